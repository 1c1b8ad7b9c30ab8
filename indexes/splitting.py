"""Where documents are split: windows of an encoder's tokens, cut where no character is torn apart."""

from __future__ import annotations

import unicodedata
from bisect import bisect_right
from collections.abc import Sequence
from functools import cache

import numpy as np

from ..encoders.base import Encoder, Tokenizes
from ..errors import InputError, list_few
from .encoding import SpaceEncoders
from .storage.card import Windows


def split_text(text: str, spans: np.ndarray, windows: Windows) -> list[tuple[int, int]]:
    """Where the passages of a text begin and end, in characters; together they hold all of it, in order.

    `spans` is int [tokens, 2], as `Tokenizes.token_spans` gives it. A passage has at most `window` tokens, but never
    less than a character with its marks, or than an emoji made of several; the next one begins `stride` tokens
    later or, inside a character, at it. None lies in another. White space belongs to the token before it.
    """
    cuts, before = _find_cuts(text, spans)
    last = len(cuts) - 1

    def find_end(start: int) -> int:
        return max(start + 1, bisect_right(before, before[start] + windows.window) - 1)

    start, end = 0, find_end(0)
    passages = [(cuts[0], cuts[end])]
    while end < last:
        start = min(end, max(start + 1, bisect_right(before, before[start] + windows.stride) - 1))
        while (further := find_end(start)) <= end:
            start += 1
        end = further
        passages.append((cuts[start], cuts[end]))
    return passages


def choose_tokenizer(
    windows: Windows, encoders: Sequence[Encoder], before: str = "", loader: SpaceEncoders | None = None
) -> Tokenizes | None:
    """The one whose tokens are counted: named by `windows`, else `before` (a fingerprint), else the first that can.

    One that is named and not among the encoders is loaded by `loader`. None if `before` is not among the encoders.
    `InputError` if no encoder can say where its tokens are, or if a window does not fit into it.
    """
    candidates = [each for each in encoders if "text" in each.spec.modalities]
    if windows.tokenizer:
        candidates = [each for each in candidates if each.spec.name == windows.tokenizer] or [
            (loader or SpaceEncoders()).load(windows.tokenizer)
        ]
    elif before:
        candidates = [each for each in candidates if each.spec.fingerprint == before]
        if not candidates:
            return None
    for each in candidates:
        if (tokenizer := _find_tokenizer(each)) is not None:
            if each in encoders and windows.window > (room := tokenizer.room()):
                raise InputError(
                    f"a window of {windows.window} tokens does not fit into {each.spec.name}: beside its prompt and "
                    f"special tokens there is room for {room}; make the window smaller"
                )
            return tokenizer
    lacking = (
        list_few(each.spec.name for each in candidates) + " cannot say where its own are"
        if candidates
        else "none is given"
    )
    raise InputError(
        f"documents are split by an encoder's tokens, and {lacking}: add an hf: encoder, or name one, "
        "Windows(tokenizer=SPEC)"
    )


def _find_tokenizer(encoder: Encoder) -> Tokenizes | None:
    """The encoder, if it can say where its tokens are."""
    if not isinstance(encoder, Tokenizes):
        return None
    try:
        encoder.token_spans(["a"])
    except InputError:
        return None
    return encoder


# Where a text may be cut

SPACE, MARK, JOINER, FLAG = 1, 2, 3, 4
PLANES = 0x20000  # code points below are looked up


def _find_cuts(text: str, spans: np.ndarray) -> tuple[list[int], list[int]]:
    """Characters where passages may begin or end, and the number of tokens before each; both ends included."""
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
    kinds = _classify_code_points()[np.minimum(codes, PLANES)]
    kinds[codes >= 0xE0000] = MARK  # variation selectors and tags; private use, which needs no care
    joined = np.zeros(len(codes) + 1, bool)
    joined[:-1] = (kinds == MARK) | (kinds == JOINER)
    joined[1:-1] |= (kinds[:-1] == JOINER) | ((kinds[:-1] == FLAG) & (kinds[1:] == FLAG))
    solid = np.append(0, np.cumsum(kinds != SPACE))
    starts, ends = spans.T
    free = ~joined[starts] & (solid[ends] > solid[starts])
    free[1:] &= starts[1:] >= np.maximum.accumulate(ends)[:-1]
    before = np.flatnonzero(free)
    cuts = starts[before]
    # What comes before the first token that can be seen goes with it.
    return [0, *cuts[1:].tolist(), len(text)], [0, *before[1:].tolist(), len(spans)]


@cache
def _classify_code_points() -> np.ndarray:
    """What the code points of the first two planes are to their neighbours, uint8; 0 for most."""
    kinds = np.zeros(PLANES + 1, np.uint8)
    for code in range(PLANES):
        character = chr(code)
        if character.isspace():
            kinds[code] = SPACE
        elif unicodedata.category(character)[0] == "M" or 0x1F3FB <= code <= 0x1F3FF:  # skin tones
            kinds[code] = MARK
    kinds[0x200D] = JOINER
    kinds[0x1F1E6:0x1F200] = FLAG  # letters that make flags two by two
    return kinds
