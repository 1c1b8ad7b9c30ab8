"""Outliers moved into the weights before int8: exact, where it is not left alone, and rankings that int8 alone upsets."""

from __future__ import annotations

import copy
import logging

import jinja2
import pytest
import torch
from crosslens.checkpoints import packed
from crosslens.checkpoints.packed import BlockNorm, pack_decoder
from crosslens.checkpoints.smoothing import read_sample, smooth
from crosslens.errors import InputError
from scipy.stats import kendalltau
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

SAMPLE = [range(1, 60), range(60, 2, -1)]
SIZES = {
    "vocab_size": 64,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 96,
    "initializer_range": 0.2,
}


def make_model(kind: str = "Llama"):
    torch.manual_seed(0)
    made = {"Llama": (LlamaConfig, LlamaForCausalLM), "Qwen2": (Qwen2Config, Qwen2ForCausalLM)}[kind]
    return made[1](made[0](**SIZES)).eval().requires_grad_(False)


def plant(model, size: float = 300.0) -> None:
    """Outliers in what every linear layer reads, taken back by its weights."""
    for layer in model.base_model.layers:
        attention, forward = layer.self_attn, layer.mlp
        for norm, readers in (
            (layer.input_layernorm, (attention.q_proj, attention.k_proj, attention.v_proj)),
            (layer.post_attention_layernorm, (forward.gate_proj, forward.up_proj)),
        ):
            norm.weight[5] *= size
            for each in readers:
                each.weight[:, 5] /= size
        forward.up_proj.weight[7] *= size
        forward.down_proj.weight[:, 7] /= size
        attention.v_proj.weight[3] *= size  # read as columns 3 and 11: two heads share it
        attention.o_proj.weight[:, [3, 11]] /= size


def rank(model) -> torch.Tensor:
    texts = torch.randint(1, 64, (40, 12), generator=torch.Generator().manual_seed(1))
    return model(input_ids=texts).logits[:, -1, 3]


@torch.inference_mode()
def test_outliers_of_columns_upset_a_ranking_in_int8_and_moved_into_the_weights_they_do_not():
    model = make_model()
    truth = rank(model)
    taus = []
    for planted, sample in ((False, ()), (True, ()), (True, SAMPLE)):
        ours = copy.deepcopy(model)
        if planted:
            plant(ours)
            torch.testing.assert_close(rank(ours), truth, rtol=1e-2, atol=1e-3)
        try:
            pack_decoder(ours.base_model, ours.get_output_embeddings(), "planted", sample)
        except InputError as error:
            pytest.skip(str(error))  # no VNNI
        taus.append(float(kendalltau(truth, rank(ours)).statistic))
    plain, upset, smoothed = taus
    assert upset < 0.5
    assert min(plain, smoothed) > 0.8


@pytest.mark.parametrize("kind", ["tiny_judge", "tiny_llm", "Qwen2"])
@torch.inference_mode()
def test_a_smoothed_model_computes_bit_by_bit_what_it_did(kind, request):
    """Gemma's norms multiply by 1 + weight and it has norms after its blocks; Qwen2 has biases."""
    if kind == "Qwen2":
        model = make_model(kind)
        for layer in model.base_model.layers:
            layer.self_attn.v_proj.bias.normal_()
    else:
        model = AutoModelForCausalLM.from_pretrained(request.getfixturevalue(kind)).eval().requires_grad_(False)
    model = model.bfloat16()
    norms = {each: each.factor for each in packed.block_norms(model.base_model)}
    for layer in model.base_model.layers:
        for made in (layer.self_attn.v_proj.weight, layer.mlp.up_proj.weight, *norms.values()):
            made[5] *= 100
    before, weights = model(torch.arange(1, 40)[None]).logits, copy.deepcopy(model.state_dict())
    smooth(model.base_model, SAMPLE, norms, {type(model.base_model.layers[0].mlp)})
    assert torch.equal(model(torch.arange(1, 40)[None]).logits, before)
    changed = {key.split(".")[-2] for key, value in model.state_dict().items() if not value.equal(weights[key])}
    assert changed >= {"q_proj", "k_proj", "v_proj", "o_proj", "up_proj", "down_proj", "gate_proj"}


@torch.inference_mode()
def test_columns_that_something_else_reads_as_well_are_left_alone(caplog):
    model = make_model()
    plant(model)
    other = type(model.base_model.layers[0].mlp)

    class Leaking(other):
        def forward(self, states):
            return super().forward(states) + states

    for layer in model.base_model.layers:
        layer.mlp.__class__ = Leaking
    before = copy.deepcopy(model)
    norms = {each: each.factor for each in packed.block_norms(model.base_model)}
    with caplog.at_level(logging.INFO, "crosslens"):
        smooth(model.base_model, SAMPLE, norms, {Leaking})
    assert "outliers stay in what norm makes" in caplog.text
    for layer, old in zip(model.base_model.layers, before.base_model.layers, strict=True):
        assert layer.mlp.gate_proj.weight.equal(old.mlp.gate_proj.weight)
        assert isinstance(layer.input_layernorm, BlockNorm)
        assert layer.input_layernorm.factor.equal(old.input_layernorm.weight)
        assert not layer.mlp.down_proj.weight.equal(old.mlp.down_proj.weight)


def test_the_sample_is_a_few_hundred_tokens_and_stands_in_a_chat_template():
    class Characters:
        chat_template = None

        def __call__(self, text, add_special_tokens=True):
            return {"input_ids": [1] * add_special_tokens + [ord(letter) for letter in text]}

        def apply_chat_template(self, turns, tokenize):
            return "".join(f"<{turn['role']}>{turn['content']}" for turn in turns)

    tokenizer = Characters()
    plain = read_sample(tokenizer)
    scripts = {chr(code) for ids in plain for code in ids}
    assert set("dд段زミعप") <= scripts
    assert plain[0][0] == 1
    tokenizer.chat_template = "a template"
    templated = ["".join(map(chr, ids)) for ids in read_sample(tokenizer)]
    assert all(each.startswith("<user>") and "<assistant>" in each for each in templated)
    assert len(templated) == len(plain)

    def refuse(turns, tokenize):
        raise jinja2.TemplateError("the first turn must be a system's")

    tokenizer.apply_chat_template = refuse
    assert read_sample(tokenizer) == plain
