"""How many questions a reranker will ask, before it has asked any."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Sequence

import numpy as np

from ...runs import Hit
from .plan import RerankPlan
from .rerank import QueryGroup, drive

TRIALS = 5  # sorts by random answers from which the number of questions is estimated


def count_questions(method: RerankPlan) -> tuple[float, float]:
    """Questions for one query, and passages shown in them: what the sorter asks when the answers are random."""
    hits = [Hit(str(n), float(-n)) for n in range(method.depth)]
    chances = {str(trial): random.Random(trial) for trial in range(TRIALS)}
    shown: list[int] = []

    def answer(asked: Sequence[QueryGroup]) -> list[np.ndarray]:
        for _, group in asked:
            shown.extend(map(len, method.prompt.list_orders(len(group))))
        return [np.array([chances[trial].random() for _ in group]) for trial, group in asked]

    deque(drive(((trial, method.sort(hits, method.k)) for trial in chances), answer, 1), maxlen=0)
    return len(shown) / TRIALS, sum(shown) / TRIALS
