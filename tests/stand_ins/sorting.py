"""The reference driver of sorters, which checks the protocol, and a judge that knows the truth."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from crosslens.multilingual.reranking.sorters import Ask, Pointwise, Sorter
from crosslens.runs import Hit

Judge = Callable[[tuple[Hit, ...]], np.ndarray]


@dataclass
class Driven:
    """What came of a sorter, and what it asked: one list of groups a round."""

    order: list[str] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    rounds: list[list[tuple[str, ...]]] = field(default_factory=list)

    @property
    def groups(self) -> list[tuple[str, ...]]:
        return [group for each in self.rounds for group in each]


def drive(sorter: Sorter, n: int, k: int, judge: Judge) -> Driven:
    """The reference driver: one query, one round after the other, and the protocol checked on the way."""
    hits = [Hit(f"d{i}", 1.0 / (i + 1)) for i in range(n)]
    generator, answer, driven = sorter(hits, k), None, Driven()
    while True:
        try:
            ask = generator.send(answer)  # type: ignore[arg-type]
        except StopIteration as stop:
            driven.order = [hit.id for hit in stop.value]
            driven.scores = [hit.score for hit in stop.value]
            break
        assert isinstance(ask, Ask)
        assert ask.groups, "an empty round"
        for group in ask.groups:
            assert len(set(group)) == len(group) > 0
            assert set(group) <= set(hits)
        driven.rounds.append([tuple(hit.id for hit in group) for group in ask.groups])
        answer = [judge(group) for group in ask.groups]
    assert sorted(driven.order) == sorted(hit.id for hit in hits), "not a permutation"
    asked = driven.groups
    assert len(set(asked)) == len(asked), "the same group was asked twice"
    if (most := getattr(sorter, "most", None)) is not None:
        assert max(map(len, asked), default=0) <= most
    if not isinstance(sorter, Pointwise):
        assert min(map(len, asked), default=2) >= 2, "asked with nothing to decide"
        assert driven.scores == [float(n - rank) for rank in range(n)]
    return driven


def perfect(truth: Sequence[float]) -> Judge:
    return lambda group: np.array([truth[int(hit.id[1:])] for hit in group])


def noisy(truth: Sequence[float], seed: int, *, temperature: float, preference: float, names: bool) -> Judge:
    """Chooses by a softmax over the truth at a temperature (Gumbel noise), and likes a place more the later it is.

    It says the log-probability of each to be chosen as it sees them, or `names` the best.
    """
    chance = np.random.default_rng(seed)

    def judge(group: tuple[Hit, ...]) -> np.ndarray:
        seen = np.array([truth[int(hit.id[1:])] for hit in group]) + temperature * chance.gumbel(size=len(group))
        seen += preference * np.linspace(0, 1, len(group))
        if names:
            return np.eye(len(group))[int(seen.argmax())]
        return seen / temperature - np.logaddexp.reduce(seen / temperature)

    return judge


def ranking(truth: Sequence[float]) -> list[str]:
    return [f"d{i}" for i in sorted(range(len(truth)), key=lambda i: -truth[i])]


def shuffled(n: int, seed: int) -> list[float]:
    truth = [float(i) for i in range(n)]
    random.Random(seed).shuffle(truth)
    return truth
