"""Where the tokens of clip: and ensemble: are, so that documents may be split by them: places, counts, and what fits."""

from __future__ import annotations

import numpy as np
import pytest
from crosslens.encoders.base import Tokenizes
from crosslens.encoders.ensemble import join_spans
from crosslens.encoders.registry import load_encoder
from crosslens.indexes.passages import split_text
from crosslens.indexes.registry import create_index
from crosslens.indexes.storage.card import Windows
from crosslens.items import Item

TEXTS = [
    "The CAT sleeps all day, and   hunts at night.\nIt's a cat_fish!",
    "猫整天睡觉，晚上捕猎！猫猫猫。ＡＢＣ",
    "گربه تمام روز می‌خوابد. Кошка спит.",
    "e\u0301te\u0301 Z\u0351\u036ba\u0310\u0352 cafe\u0301 &amp; \u201cquoted\u201d",
    "😀👩‍👩‍👧‍👦 🇫🇷 แมวนอนทั้งวัน",
    "  leading and trailing  ",
    "x" * 900,
    ".",
]
CANONICAL = {
    "context_length": 64,
    "width": 32,
    "heads": 2,
    "layers": 1,
    "no_causal_mask": True,
    "pool_type": "last",
    "tokenizer_kwargs": {"clean": "canonicalize"},
}


@pytest.fixture(params=["byte pairs", "XLM-R", "SigLIP"])
def encoder(request, clip_folder):
    if request.param == "SigLIP":
        return load_encoder(f"clip:{clip_folder(CANONICAL, '$A </s>', custom_text=True)}?dtype=float32")
    fixture = {"byte pairs": "tiny_clip", "XLM-R": "tiny_multilingual_clip"}[request.param]
    return load_encoder(f"clip:{request.getfixturevalue(fixture)}?dtype=float32&instruct=find")


def counted(encoder, text: str) -> int:
    """How many tokens the tokenizer itself makes of a text, without the special ones."""
    if hasattr(encoder.tokenizer, "bpe"):
        return len(encoder.tokenizer.encode(text))
    clean = encoder.tokenizer.clean_fn(text)
    return len(encoder.tokenizer.tokenizer(clean, add_special_tokens=False)["input_ids"])


def test_the_tokens_of_clip_are_counted_and_placed(encoder):
    assert isinstance(encoder, Tokenizes)
    for text, spans in zip(TEXTS, encoder.token_spans(TEXTS), strict=True):
        starts, ends = spans.T
        assert (starts <= ends).all()
        assert (np.diff(starts) >= 0).all()
        assert len(spans) == 0 or (starts[0] >= 0 and ends[-1] <= len(text))
        # At the seams of so long a word one more may come out.
        assert counted(encoder, text) <= len(spans) <= counted(encoder, text) + (3 if len(text) > 500 else 0)
        # What a token of one place is made of is there, as it was written.
        held = {text[start:end].strip().lower() for start, end in spans if end > start}
        if text is TEXTS[0] and hasattr(encoder.tokenizer, "bpe"):
            assert {"cat", "sleeps", "night", "fish", "'s"} <= held
    assert encoder.token_spans([]) == []


def test_what_has_room_is_not_cut(encoder):
    words = " ".join(TEXTS[0].split() * 30)
    (spans,) = encoder.token_spans([words])
    for role, frame in (("document", ""), ("query", encoder.instruction)):
        room = encoder.room(role)
        text = words[: spans[room - 1][1]]
        given = encoder.word_query(Item("a", text)).text if role == "query" else text
        ids = encoder.token_ids([given])
        assert encoder.spec.max_tokens - 2 <= int((ids[0] != ids[0, -1]).sum()) + 1 <= encoder.spec.max_tokens
        assert room == encoder.room() - (counted(encoder, frame) if frame else 0)
    passages = split_text(words, spans, Windows(encoder.room(), encoder.room()))
    # A word that a passage begins with may have a token more than it has behind a space.
    assert max(counted(encoder, words[start:end]) for start, end in passages) <= encoder.room() + 1


def test_tokens_in_common_are_cut_where_all_begin_and_count_the_most():
    text = "ab cdef  gh "
    one = np.array([[0, 2], [2, 5], [5, 7], [8, 11]])  # a space belongs to the word behind it
    other = np.array([[0, 1], [1, 2], [3, 7], [9, 10], [10, 11], [11, 12]])
    assert join_spans(text, [one, other]).tolist() == [[0, 3], [0, 3], [3, 9], [3, 9], [9, 11], [9, 11], [9, 11]]
    assert join_spans(text, [other]).tolist() == [[0, 1], [1, 3], [3, 9], [9, 10], [10, 11], [10, 11]]
    assert join_spans(" ", [np.zeros((0, 2), np.int64)]).shape == (0, 2)


def test_passages_of_an_ensemble_fit_into_every_member(tiny_encoder, tiny_clip, tmp_path):
    ensemble = load_encoder(f"ensemble:hf:{tiny_encoder}%3Fdtype=float32+clip:{tiny_clip}%3Fdtype=float32")
    assert isinstance(ensemble, Tokenizes)
    members = ensemble.members
    assert ensemble.room() == min(member.room() for member in members) == 22
    text = " ".join(TEXTS * 3)
    (spans,) = ensemble.token_spans([text])
    passages = split_text(text, spans, Windows(22, 22))
    assert len(passages) > 10
    for start, end in passages:
        piece = text[start:end]
        if len(piece.strip()) < 100:  # the word of 900 letters is one piece for all
            assert max(len(member.token_spans([piece])[0]) for member in members) <= 22 + 1
    index = create_index(tmp_path / "index", lexical=False, passages=Windows(16, 8))
    index.add([Item("a", TEXTS[0] * 4, lang="eng"), Item("b", TEXTS[1], lang="zho")], ensemble)
    assert {hit.id for hit in index.search([Item("q", "hunts at night")], 2)["q"]} == {"a", "b"}


def test_an_ensemble_that_cannot_show_its_tokens_says_so(tiny_encoder, monkeypatch):
    ensemble = load_encoder(f"ensemble:hf:{tiny_encoder}%3Fpooling=cls+hf:{tiny_encoder}%3Fpooling=mean")
    for member in ensemble.members:
        monkeypatch.setattr(member.tokenizer.__class__, "is_fast", property(lambda self: False))
    with pytest.raises(ValueError, match="none of ensemble:.* says where its tokens are"):
        ensemble.token_spans(["a"])
