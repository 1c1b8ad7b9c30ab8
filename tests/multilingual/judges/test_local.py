"""What answers are read from is computed in float32, whatever the model computes in."""

from __future__ import annotations

import pytest
import torch
import transformers
from crosslens.multilingual.judges.local import make_causal_head

SIZE = {"vocab_size": 500, "hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
# By kind: its configuration, and its logits of what its head's matrix gives, in float64.
KINDS = {
    "plain": (lambda: transformers.Qwen2Config(**SIZE, num_key_value_heads=1), lambda x: x),
    "with a bias": (lambda: transformers.PhiConfig(**SIZE), lambda x: x),
    "capped": (
        lambda: transformers.Gemma2Config(**SIZE, num_key_value_heads=1, head_dim=32, final_logit_softcapping=25.0),
        lambda x: 25 * torch.tanh(x / 25),
    ),
    "scaled": (lambda: transformers.CohereConfig(**SIZE, logit_scale=0.5), lambda x: x / 2),
}


@pytest.fixture(params=KINDS)
def headed(request):
    """The head of a model in bfloat16, and what makes logits of states: in float64, and as the model computes them."""
    config, finish = KINDS[request.param]
    torch.manual_seed(0)
    with torch.inference_mode():
        model = transformers.AutoModelForCausalLM.from_config(config()).bfloat16().eval()
        layer = model.get_output_embeddings()
        layer.weight.normal_()
        if layer.bias is not None:
            layer.bias.normal_()
        head = make_causal_head(model)
        assert head.plain

        def compute(states):
            exact = states.double() @ layer.weight.double().T
            return finish(exact if layer.bias is None else exact + layer.bias.double())

        yield head, compute, lambda states: head.way(layer(states).float(), slice(None))


def test_labels_that_rounded_logits_tie_are_told_apart(headed):
    head, compute, as_computed = headed
    states = (torch.randn(64) + torch.randn(200, 64) / 20).bfloat16()  # much alike, as those after similar passages
    columns = [7, 3, 400]
    found = head.logits(states, columns)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), compute(states)[:, columns], rtol=0, atol=1e-4)
    distinct = [len(set(each.tolist())) for each in (found[:, 0], as_computed(states)[:, 7])]
    assert distinct[0] > 190
    assert distinct[1] < 150


def test_likelihoods_are_those_of_exact_logits(headed):
    head, compute, as_computed = headed
    states = torch.randn(200, 64).bfloat16()
    targets = torch.cat([compute(states)[:100].argmax(-1), torch.arange(100)])  # certain ones, and any
    read = lambda logits: logits.double().log_softmax(-1).gather(-1, targets[:, None])[:, 0]  # noqa: E731
    expected = read(compute(states))
    off = (head.log_probs(states, targets).double() - expected).abs()
    before = (read(as_computed(states)) - expected).abs()
    assert off.max() < 5e-3
    assert before.max() > 2e-2
    assert off.mean() < before.mean() / 20
    assert head.log_probs(states, targets).max() <= 0
