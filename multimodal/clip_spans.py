"""Where the tokens of open_clip's tokenizers are in a text: they clean it first, so that places must be led back."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from open_clip.tokenizer import SimpleTokenizer

from ..checkpoints.source import locate_tokens

PIECE = 256  # characters that byte-pair merging in Python, which takes the square of them, is given at a time


def locate_clip_tokens(tokenizer: Any, texts: Sequence[str], name: str) -> list[np.ndarray]:
    """The tokens of each text as `encoders.base.Tokenizes` gives them, by their places before it was cleaned.

    Where cleaning changes a word so that its letters cannot be told from each other any more (`&amp;`), all its tokens
    have the place of the word. `InputError` if the tokenizer does not say.
    """
    unit = lru_cache(maxsize=1 << 16)(tokenizer.clean_fn)
    cleaned = [_cleaned(text, tokenizer.clean_fn, unit) for text in texts]
    if isinstance(tokenizer, SimpleTokenizer):
        found = [_byte_pairs(tokenizer, text) for text, _ in cleaned]
    else:
        found = locate_tokens(tokenizer.tokenizer, [text for text, _ in cleaned], name)
    made = []
    for spans, (_, places) in zip(found, cleaned, strict=True):
        # Some tokenizers give the space before a text, which is not in it, a token of no length.
        starts = places[np.minimum(spans[:, 0], len(places) - 1), 0] if len(places) else spans[:, 0]
        ends = places[np.maximum(spans[:, 1] - 1, 0), 1] if len(places) else spans[:, 1]
        made.append(np.stack([starts, np.maximum(starts, ends)], axis=1))
    return made


def count_special_tokens(tokenizer: Any) -> int:
    """How many tokens are put around a text."""
    if isinstance(tokenizer, SimpleTokenizer):
        return 2
    if tokenizer.tokenizer_mode == "clips":
        return 3
    inner = tokenizer.tokenizer
    return len(inner("a")["input_ids"]) - len(inner("a", add_special_tokens=False)["input_ids"])


def _cleaned(text: str, clean: Callable[[str], str], unit: Callable[[str], str]) -> tuple[str, np.ndarray]:
    """A text word by word as `clean` leaves it, and where each of its characters comes from, int64 [characters, 2]."""
    words: list[str] = []
    places: list[tuple[int, int]] = []
    for word in re.finditer(r"\S+", text):
        start, end = word.span()
        if not (left := clean(word[0])):
            continue
        if words:
            places.append((start, start))  # the space before it
        words.append(left)
        if len(left) == len(word[0]) and left == word[0].lower():
            places += [(n, n + 1) for n in range(start, end)]
            continue
        marks = _characters(word[0])
        parts = [unit(word[0][a:b]) for a, b in marks]
        if "".join(parts) == left:
            for (a, b), part in zip(marks, parts, strict=True):
                places += [(start + a, start + b)] * len(part)
        else:
            places += [(start, end)] * len(left)
    return " ".join(words), np.array(places, np.int64).reshape(-1, 2)


def _characters(word: str) -> list[tuple[int, int]]:
    """Where each letter begins and ends, the marks behind it included."""
    starts = [
        n for n, letter in enumerate(word) if n == 0 or letter.isascii() or unicodedata.category(letter)[0] != "M"
    ]
    return list(zip(starts, [*starts[1:], len(word)], strict=True))


def _byte_pairs(tokenizer: SimpleTokenizer, text: str) -> np.ndarray:
    """The tokens of a clean text, which are of bytes; int64 [tokens, 2] in characters."""
    spans: list[tuple[int, int]] = []
    for match in tokenizer.pat.finditer(text):
        for start in range(match.start(), match.end(), PIECE):
            piece = text[start : min(start + PIECE, match.end())]
            # Which character each byte belongs to.
            letters = [start + n for n, letter in enumerate(piece) for _ in letter.encode()]
            symbols = "".join(tokenizer.byte_encoder[byte] for byte in piece.encode())
            at = 0
            for token in tokenizer.bpe(symbols).split(" "):
                size = len(token.removesuffix("</w>"))
                spans.append((letters[at], letters[at + size - 1] + 1))
                at += size
    return np.array(spans, np.int64).reshape(-1, 2)
