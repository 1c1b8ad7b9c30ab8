"""Tokens of the judges that run in this process: counting and cutting texts, and what labels are made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np

from ...errors import InputError

REACH = 16  # characters before a text that decide how a tokenizer splits it
ANCHORS = (")", "]", "\n")  # what a label may follow without merging with it


@dataclass(frozen=True, slots=True)
class LabelTokens:
    """How labels are read off: as one next token each, or as whole token sequences.

    With `single`, each label has one or more token ids, any of which says it, after the tokens `lead` that all
    labels begin with; tokens that all of them end with (a closing bracket) say nothing and are left out. Otherwise
    `sequences` has each label's tokens.
    """

    single: bool
    lead: tuple[int, ...]
    ids: tuple[tuple[int, ...], ...]
    sequences: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class Continuation:
    """What follows a prompt's tokens: how many of its last `tokens` are scored, or the ids of labels after them."""

    tokens: tuple[int, ...]
    scored: int = 0
    labels: tuple[tuple[int, ...], ...] = ()

    @property
    def shown(self) -> tuple[int, ...]:
        """What the model must read of it: the last scored token only has to be predicted."""
        return self.tokens[:-1] if self.scored else self.tokens

    def after(self, start: tuple[int, ...]) -> Continuation:
        """The prompt's tokens and what follows them, as one."""
        return replace(self, tokens=(*start, *self.tokens))


def plan_continuations(plans: Sequence[LabelTokens]) -> list[tuple[Continuation, ...]]:
    """What to ask after each prompt: the labels at once if all plans have single tokens, else each by itself."""
    if all(plan.single for plan in plans):
        return [(Continuation(plan.lead, labels=plan.ids),) for plan in plans]
    return [tuple(Continuation(row, len(row)) for row in plan.sequences) for plan in plans]


def normalize_labels(asked: Sequence[Sequence[Continuation]], answers: Sequence[Sequence[np.ndarray]]) -> np.ndarray:
    """Log-probabilities float64 [n, labels], normalised, from the answers to `plan_continuations`.

    A label of many tokens has the probability of them all: the sum of their logarithms, not the mean.
    """
    rows = [
        found[0] if each[0].labels else [scores.sum() for scores in found]
        for each, found in zip(asked, answers, strict=True)
    ]
    table = np.array(rows, dtype=np.float64)
    normalized: np.ndarray = table - np.logaddexp.reduce(table, axis=1, keepdims=True)
    return normalized


class CachedTokenizer:
    """A tokenizer as judges need it; its answers are remembered, for passages and labels come again and again."""

    def __init__(self, tokenizer: Any, name: str) -> None:
        self.tokenizer = tokenizer
        self.name = name
        self.ids = lru_cache(maxsize=1 << 14)(self._ids)
        self._planned = lru_cache(maxsize=1 << 10)(self._plan_labels)
        self.cut = lru_cache(maxsize=1 << 14)(self._cut)

    def count(self, text: str) -> int:
        """How many tokens a text has, without special ones."""
        return len(self.ids(text))

    def _ids(self, text: str) -> tuple[int, ...]:
        return tuple(self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])

    def _cut(self, text: str, tokens: int) -> str:
        """The start of a text that has at most so many tokens; never half a character."""
        if self.count(text) <= tokens:
            return text
        options = {"add_special_tokens": False, "return_offsets_mapping": True, "verbose": False}
        spans = self.tokenizer(text, **options)["offset_mapping"]
        end = spans[tokens - 1][1] if tokens else 0
        # Tokens of single bytes share a character's span: the character that does not fit goes as a whole.
        if tokens < len(spans) and spans[tokens][0] < end:
            end = spans[tokens][0]
        # Without what follows it, the last character may be other and more tokens.
        while end and len(self._ids(text[:end])) > tokens:
            end -= 1
        return text[:end]

    def plan_labels(self, before: str, labels: Sequence[str]) -> LabelTokens:
        """What the labels are made of after the text `before` (empty: a new turn).

        A label may follow glued or after a space, and tokenizers differ in what they make of it: " A" may be one
        token, or a space and "A". The form that goes on from `before` as people write comes first; where both
        forms are single tokens, either says the label. `InputError` if two labels have the same tokens.
        """
        return self._planned(before[-REACH:], tuple(labels))

    def _plan_labels(self, before: str, labels: tuple[str, ...]) -> LabelTokens:
        forms = (
            ("{}", " {}") if not before or (not before[-1].isalnum() and before[-1] not in ":.?!,;") else (" {}", "{}")
        )
        plans = (self._plan_form(before, [form.format(label) for label in labels]) for form in forms)
        sound = [each for each in plans if each is not None]
        if not sound:
            unk = self.tokenizer.unk_token_id
            if unwritten := [label for label in labels if unk is not None and unk in self.ids(label)]:
                raise InputError(f"{self.name}: its tokenizer has no tokens for the label {unwritten[0]}")
            raise InputError(
                f"{self.name}: its tokenizer makes the same tokens of two of the labels {', '.join(labels)}"
            )
        single = [each for each in sound if each.single]
        if not single:
            return sound[0]
        first, *others = single
        if first.lead or not others or others[0].lead:
            return first
        ids = tuple(tuple(dict.fromkeys(mine + more)) for mine, more in zip(first.ids, others[0].ids, strict=True))
        distinct = sum(map(len, ids)) == len(set().union(*ids))
        return LabelTokens(True, (), ids, first.sequences) if distinct else first

    def _plan_form(self, before: str, written: Sequence[str]) -> LabelTokens | None:
        rows = [self.following(before, text) for text in written]
        unk = self.tokenizer.unk_token_id
        if len(set(rows)) < len(rows) or not all(rows) or any(unk in row for row in rows):
            return None
        lead = rows[0][: count_common(min(rows), max(rows))]
        rest = [row[len(lead) :] for row in rows]
        # The first of several tokens is not the label: half a character, or a word that others begin with as well.
        single = all(rest) and len({row[0] for row in rest}) == len(rest) and len({row[1:] for row in rest}) == 1
        ids = tuple(row[:1] for row in rest) if single else ()
        return LabelTokens(single, lead if single else (), ids, tuple(rows))

    def following(self, before: str, text: str) -> tuple[int, ...]:
        """A text's tokens after `before`; where both merge into one token, those that it has by itself in a line."""
        before = before[-REACH:]
        start, both = self.ids(before), self.ids(before + text)
        return both[len(start) :] if both[: len(start)] == start else self._inside(text)

    def _inside(self, text: str) -> tuple[int, ...]:
        """A text's tokens within a line, where sentencepiece puts no space before it."""
        for anchor in ANCHORS:
            start, both = self.ids(anchor), self.ids(anchor + text)
            if start and both[: len(start)] == start and len(both) > len(start):
                return both[len(start) :]
        return self.ids(text)


def count_common(one: Sequence[Any], other: Sequence[Any]) -> int:
    """How many elements two sequences begin with alike."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((n for n, (a, b) in pairs if a != b), min(len(one), len(other)))
