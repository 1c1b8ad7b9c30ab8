"""hf: judges in int8: the layers against their definition, what is replaced, one answer however asked, and refusals."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from crosslens.checkpoints import packed
from crosslens.checkpoints.packed import (
    BlockNorm,
    LastRows,
    PackedGated,
    PackedLinear,
    PackedWeight,
    Rows,
    pack_decoder,
)
from crosslens.errors import InputError
from crosslens.multilingual.judges import load_judge
from crosslens.multilingual.judges.messages import Message, Passage
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel


def find_refusal() -> str:
    """Why this processor does not multiply int8; empty if it does."""
    try:
        packed.require_packed()
    except InputError as error:
        return str(error)
    return ""


pytestmark = pytest.mark.skipif(bool(find_refusal()), reason=find_refusal())

PROMPTS = [
    Message((Passage(text), " Is it about cats? Answer:"), chat="never")
    for text in ("The cat sleeps all day.", "猫", "گربه تمام روز می‌خوابد.", "Кошка спит весь день. " * 8, "😀")
]


def round_rows(values: torch.Tensor, largest: float, dtype: torch.dtype) -> torch.Tensor:
    """By the definition, in float64."""
    step = (values.abs().amax(-1, keepdim=True) / largest).to(dtype).double()
    return (values.double() / step).round() * step


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bias", [True, False])
def test_a_layer_is_what_its_integers_say(monkeypatch, dtype, bias):
    monkeypatch.setattr(packed, "BLOCK", 200)  # several blocks of rows
    torch.manual_seed(0)
    linear = torch.nn.Linear(48, 24, bias=bias).to(dtype).requires_grad_(False)
    states = (torch.randn(3, 5, 48) * torch.logspace(-3, 3, 15).view(3, 5, 1)).to(dtype)
    found = PackedLinear(linear, LastRows())(states)
    expected = round_rows(states.float(), packed.LARGEST, dtype) @ round_rows(linear.weight, 127, torch.float32).T
    expected = expected + linear.bias.double() if bias else expected
    assert (found.dtype, found.shape) == (dtype, (3, 5, 24))
    off = (found.double() - expected).abs() / (expected.abs() + states.double().norm(dim=-1, keepdim=True))
    assert off.max() < {torch.float32: 1e-5, torch.bfloat16: 1e-2}[dtype]


def test_rows_hold_what_is_there_also_none_and_no_number():
    rows = Rows.quantise(torch.tensor([[0.0, 0.0], [1.0, -2.0], [float("nan"), 1.0], [3e38, -1.0]]))
    assert rows.whole[0].tolist() == [0, 0]
    assert rows.whole[1].tolist() == [64, -127]
    assert rows.step.isfinite().flatten().tolist() == [True, True, False, True]


@pytest.mark.parametrize("kind", ["tiny_llm", "tiny_judge"])
@torch.inference_mode()
def test_feed_forward_layers_and_norms_compute_what_they_did(kind, request, monkeypatch):
    monkeypatch.setattr(packed, "CHUNK", 4)
    model = AutoModelForCausalLM.from_pretrained(request.getfixturevalue(kind), dtype=torch.float32).eval()
    for name, weights in model.named_parameters():
        if "norm" in name:
            weights.add_(torch.rand_like(weights))
    ours = copy.deepcopy(model)
    pack_decoder(ours.base_model, ours.get_output_embeddings(), kind, [range(1, 40)])
    assert type(ours.get_output_embeddings()) is torch.nn.Linear
    kinds = [type(each) for each in ours.base_model.modules()]
    layers = len(ours.base_model.layers)
    assert kinds.count(PackedGated) == layers
    assert kinds.count(PackedLinear) == 4 * layers
    assert kinds.count(PackedWeight) == 3 * layers
    assert kinds.count(BlockNorm) == sum(type(each).__name__.endswith("RMSNorm") for each in model.modules())
    ids = torch.arange(1, 23).view(2, 11)
    exact, found = model.base_model(ids)[0], ours.base_model(ids)[0]
    assert 0 < float((found - exact).norm() / exact.norm()) < 0.08


class Gated(torch.nn.Module):
    """Its inner states have one column that is 1,000 times the others."""

    def __init__(self) -> None:
        super().__init__()
        self.gate_proj, self.up_proj = torch.nn.Linear(32, 130, bias=False), torch.nn.Linear(32, 130, bias=False)
        self.down_proj, self.act_fn = torch.nn.Linear(130, 32), torch.nn.SiLU()
        self.up_proj.weight.data[129] *= 1000

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        return self.down_proj(self.act_fn(self.gate_proj(states)) * self.up_proj(states))


@torch.inference_mode()
def test_a_column_that_is_larger_spoils_only_its_own_group(monkeypatch):
    monkeypatch.setattr(packed, "CHUNK", 4)
    torch.manual_seed(0)
    layer, states = Gated(), torch.randn(2, 5, 32)
    layer.down_proj.weight.data[:, 129] = 0  # nothing of it is left in what comes out
    exact, off = layer(states), {}
    for groups, columns in ((1, 130), (2, 128)):
        monkeypatch.setattr(packed, "COLUMNS", columns)
        ours = PackedGated(layer)
        assert [each.packed.numel() for each in ours.down_proj] == ([4160] if groups == 1 else [4096, 64])
        off[groups] = float((ours(states) - exact).norm() / (exact - layer.down_proj.bias).norm())
    assert off[2] < 0.06 < 10 * off[2] < off[1]


@torch.inference_mode()
def test_a_feed_forward_layer_that_computes_something_else_keeps_its_own_way(tiny_llm):
    model = AutoModelForCausalLM.from_pretrained(tiny_llm, dtype=torch.float32).eval()
    other = type(model.base_model.layers[0].mlp)

    class Halved(other):
        def forward(self, states):
            return super().forward(states) / 2

    for layer in model.base_model.layers:
        layer.mlp.__class__ = Halved
    ids = torch.arange(1, 12)[None]
    exact = model.base_model(ids)[0]
    pack_decoder(model.base_model, None, "halved", [range(1, 40)])
    assert type(model.base_model.layers[0].mlp) is Halved
    assert float((model.base_model(ids)[0] - exact).norm() / exact.norm()) < 0.08


def test_a_judge_answers_nearly_as_in_float32_and_the_same_alone_as_among_others(tiny_llm):
    exact, judge = (load_judge(f"hf:{tiny_llm}?dtype={dtype}", device="cpu") for dtype in ("float32", "int8"))
    labels = ("A", "B", "C")
    truth, found = exact.choose(PROMPTS, labels), judge.choose(PROMPTS, labels)
    assert 0 < np.abs(truth - found).max() < 0.6
    assert np.corrcoef(truth.ravel(), found.ravel())[0, 1] > 0.99
    alone = np.concatenate([judge.choose([each], labels) for each in PROMPTS])
    np.testing.assert_allclose(alone, found, atol=0.03)
    assert judge.generate(PROMPTS[:1], max_new_tokens=3)[0].tokens <= 3
    assert "int8" in judge.fingerprint
    assert "int8" not in exact.fingerprint


def test_what_int8_is_not_for_is_refused_in_one_line(tiny_llm, monkeypatch):
    with pytest.raises(InputError, match="dtype=int8 is for causal language models, not seq2seq; leave dtype out"):
        load_judge(f"hf:{tiny_llm}?dtype=int8&task=seq2seq", device="cpu")
    shape = GPT2Config(n_layer=1, n_head=2, n_embd=16, vocab_size=32, n_positions=16)
    with pytest.raises(InputError, match="gpt2: its GPT2Model has no linear layers that int8 is for; use bfloat16"):
        pack_decoder(GPT2LMHeadModel(shape).base_model, None, "gpt2", [])
    genuine = packed.multiply

    def saturate(rows, *weights):
        return genuine(rows, *weights).clamp(-32768, 32767)

    packed.require_packed.cache_clear()
    monkeypatch.setattr(packed, "multiply", saturate)
    with pytest.raises(InputError, match="dtype=int8 needs a CPU with VNNI"):
        load_judge(f"hf:{tiny_llm}?dtype=int8&passage_tokens=9", device="cpu")
    monkeypatch.undo()
    packed.require_packed()
    with pytest.raises(InputError, match=r"dtype.*int4.*int8"):
        load_judge(f"hf:{tiny_llm}?dtype=int4", device="cpu")
