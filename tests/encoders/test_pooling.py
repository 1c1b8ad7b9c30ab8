"""Texts to inputs, states to vectors: plain functions that encoding and training share, with gradients where wanted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from crosslens.encoders.base import encode_matrix
from crosslens.encoders.pooling import collate, finish, pool, tokenize
from crosslens.encoders.registry import load_encoder
from crosslens.items import Item
from tiny.tokenizers import make_tokenizer

TEXTS = ["the cat", "the cat sleeps all day and hunts at night", "猫"]
IDS = [[5, 6], [7, 8, 9, 10], [11]]


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("how", ["mean", "cls", "last"])
def test_pooling_takes_what_the_mask_shows_on_either_side(side, how):
    inputs = collate(IDS, side=side, fill=3)
    mask = inputs["attention_mask"]
    assert [row[kept.bool()].tolist() for row, kept in zip(inputs["input_ids"], mask, strict=True)] == IDS
    assert (inputs["input_ids"][mask == 0] == 3).all()
    assert mask[2].tolist() == ([1, 0, 0, 0] if side == "right" else [0, 0, 0, 1])
    states = torch.where(mask[..., None] > 0, torch.randn(3, 4, 8), 99.0).requires_grad_()
    pooled = pool(states, mask, how)
    for row, kept in enumerate(mask.bool()):
        mine = states[row][kept]
        expected = {"mean": mine.mean(0), "cls": mine[0], "last": mine[-1]}[how]
        torch.testing.assert_close(pooled[row], expected)
    pooled.sum().backward()
    assert (states.grad[mask == 0] == 0).all()
    assert (states.grad[mask == 1].sum(1) > 0).sum() == (7 if how == "mean" else 3)


def test_positions_count_from_the_first_token_and_fillings_need_not_be_attended_to():
    inputs = collate(IDS, side="left", positions=True, attended=[2, 1, 1])
    assert inputs["position_ids"].tolist() == [[0, 0, 0, 1], [0, 1, 2, 3], [0, 0, 0, 0]]
    assert inputs["attention_mask"].tolist() == [[0, 0, 1, 1], [1, 0, 0, 0], [0, 0, 0, 1]]
    assert "position_ids" not in collate(IDS)


def test_a_text_ends_once_and_within_its_length():
    tokenizer = make_tokenizer("<s> $A", bos_token="<s>", eos_token="</s>", pad_token="<pad>")
    end = tokenizer.eos_token_id
    whole = tokenize(tokenizer, TEXTS, None, end=end)
    assert all(ids[0] == tokenizer.bos_token_id and ids.count(end) == 1 and ids[-1] == end for ids in whole)
    cut = tokenize(tokenizer, TEXTS, 4, end=end)
    assert [len(ids) for ids in cut] == [min(len(ids), 4) for ids in whole]
    assert all(ids[-1] == end for ids in cut)
    assert tokenize(tokenizer, ["a</s>"], None, end=end)[0].count(end) == 1


def test_vectors_are_cut_and_then_scaled():
    dense = torch.nn.Linear(8, 6)
    found = finish(states := torch.randn(2, 8), 4, True, dense)
    torch.testing.assert_close(found, torch.nn.functional.normalize(dense(states)[:, :4], dim=-1))
    assert finish(states, 8, False).tolist() == states.tolist()


# What training does with an encoder: its own tokens, inputs and vectors, with gradients.
FAMILIES: dict[str, tuple[str, Callable[[Any], list[Any]]]] = {
    "hf": ("hf:{tiny_encoder}?dtype=float32&pooling=mean", lambda e: e.token_ids(TEXTS)),
    "hf, first token": ("hf:{tiny_encoder}?dtype=float32&pooling=cls&dim=8", lambda e: e.token_ids(TEXTS)),
    "llm": ("llm:{tiny_llm}?dtype=float32", lambda e: e.token_ids(TEXTS)),
    "llm on the left": ("llm:{tiny_llm}?dtype=float32&padding=left", lambda e: e.token_ids(TEXTS)),
    "llm both ways": (
        "llm:{tiny_bidirectional_llm}?dtype=float32&query_prompt=&document_prompt=",
        lambda e: e.token_ids(TEXTS),
    ),
    "promptreps": (
        "promptreps:{tiny_llm}?dtype=float32",
        lambda e: [each.tokens for each in e.prepare([Item("", text) for text in TEXTS], "document")],
    ),
    "late": (
        "late:{tiny_colbert}?dtype=float32",
        lambda e: [e.fill(ids, "document") for ids in e.token_ids(TEXTS, "document")],
    ),
}


@pytest.mark.parametrize("name", FAMILIES)
def test_gradients_flow_through_what_encoding_computes(name: str, request: pytest.FixtureRequest) -> None:
    spec, prepare = FAMILIES[name]
    fixture = spec[spec.index("{") + 1 : spec.index("}")]
    encoder: Any = load_encoder(spec.format(**{fixture: request.getfixturevalue(fixture)}), device="cpu")
    items = [Item(str(row), text) for row, text in enumerate(TEXTS)]
    vectors = encoder.embed(prepare(encoder))
    assert vectors.requires_grad
    if name == "late":
        (batch,) = encoder.encode(items, "document")
        for row, expected in zip(vectors, batch.vectors, strict=True):
            np.testing.assert_allclose(row[: len(expected)].detach().numpy(), expected, atol=1e-5)
    else:
        np.testing.assert_allclose(vectors.detach().numpy(), encode_matrix(encoder, items, "document"), atol=1e-5)
    vectors[..., 0].sum().backward()
    words = encoder.model.get_input_embeddings().weight
    assert words.grad.abs().sum() > 0
    encoder.model.zero_grad()  # encoders of one checkpoint share it


def test_gradients_flow_to_weights_of_terms(tiny_splade: Path) -> None:
    encoder: Any = load_encoder(f"splade:{tiny_splade}?dtype=float32")
    weights = torch.stack(list(encoder.weigh_terms(encoder.token_ids(TEXTS))))
    items = [Item(str(row), text) for row, text in enumerate(TEXTS)]
    (batch,) = encoder.encode(items, "document")
    np.testing.assert_allclose(weights.detach().numpy(), batch.vectors.toarray(), atol=1e-5)
    weights.sum().backward()
    assert encoder.model.get_input_embeddings().weight.grad.abs().sum() > 0
    encoder.model.zero_grad()


def test_gradients_flow_through_pictures(tiny_vlm: Path) -> None:
    encoder: Any = load_encoder(f"vlm:{tiny_vlm}?dtype=float32&format=gme&max_pixels=4096")
    prepared = encoder.prepare([Item("t", text) for text in TEXTS], "document")
    for parameter in encoder.model.parameters():
        parameter.requires_grad_(True)
    vectors = encoder.embed(encoder.inputs(prepared))
    expected = encode_matrix(encoder, [Item("t", text) for text in TEXTS], "document")
    np.testing.assert_allclose(vectors.detach().numpy(), expected, atol=1e-5)
    vectors[:, 0].sum().backward()
    assert encoder.model.get_input_embeddings().weight.grad.abs().sum() > 0
