"""Attention in training: another way of computing it, and the same vectors."""

from __future__ import annotations

import pytest
import torch
from crosslens.items import Item
from crosslens.training.attention import LONGEST, choose_attention
from crosslens.training.encoder.trainable import open_base
from crosslens.training.recipe import EncoderRecipe

TEXTS = [Item(str(n), text) for n, text in enumerate(["aaa d", "bbb d z z z", "c c c c", "x " * 30])]
# A new architecture is one line here.
BASES = {
    "tiny_encoder": "hf:{}?pooling=mean",
    "tiny_llm": "llm:{}",
    "tiny_bidirectional_llm": "llm:{}",
    "tiny_colbert": "late:{}",
    "tiny_splade": "splade:{}",
}
BOTH_WAYS = "llm:{}?attention=bidirectional&pooling=mean"


@pytest.mark.parametrize(("fixture", "spec"), [*BASES.items(), ("tiny_llm", BOTH_WAYS)])
def test_it_changes_no_row(fixture: str, spec: str, request: pytest.FixtureRequest):
    trainable = open_base(spec.format(request.getfixturevalue(fixture)), EncoderRecipe(), device="cpu").trainable
    model = trainable.encoder.opened.model
    rows = []
    for most in (LONGEST + 1, LONGEST):
        more = choose_attention(model, torch.device("cpu"), most)
        rows.append(trainable.represent(trainable.prepare(TEXTS, "document", None)))
        assert (more > 0) == (model.config._attn_implementation == "eager") == (most == LONGEST)  # noqa: SLF001
    assert torch.allclose(*rows, atol=1e-4)


def test_other_devices_and_a_model_with_one_way_keep_theirs(tiny_encoder):
    model = open_base(f"hf:{tiny_encoder}", EncoderRecipe(), device="cpu").trainable.encoder.opened.model
    assert choose_attention(model, torch.device("cuda"), 8) == 0
    assert model.config._attn_implementation == "sdpa"  # noqa: SLF001
    assert choose_attention(torch.nn.Linear(2, 2), torch.device("cpu"), 8) == 0
