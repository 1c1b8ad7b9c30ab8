"""Sorters: generators that yield the comparisons they want and are sent the answers; no model in sight."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass

import numpy as np

from ..runs import Hit


@dataclass(frozen=True, slots=True)
class Ask:
    """Comparisons that may run at the same time: each group of hits is shown to the judge together."""

    groups: tuple[tuple[Hit, ...], ...]


Answer = list[np.ndarray]  # for each group, one score a hit, higher is better
Sorter = Callable[[Sequence[Hit], int], Generator[Ask, Answer, Sequence[Hit]]]


def pointwise(hits: Sequence[Hit], k: int) -> Generator[Ask, Answer, Sequence[Hit]]:
    """Score every hit alone and sort by the score: n groups of one, in a single ask."""
    answer = yield Ask(tuple((hit,) for hit in hits))
    scored = [Hit(hit.id, float(scores[0])) for hit, scores in zip(hits, answer, strict=True)]
    return sorted(scored, key=lambda hit: -hit.score)


SORTERS: dict[str, Sorter] = {"pointwise": pointwise}
