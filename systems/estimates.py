"""How much a judge has to do, estimated before any model is loaded."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..multilingual.judges.messages import TokenEstimate
from ..multilingual.reranking.plan import RerankPlan
from ..multilingual.reranking.rerank import QueryGroup, drive
from ..runs import Hit

TRIALS = 5  # sorts by random answers from which the number of questions is estimated


@dataclass(frozen=True)
class Work:
    """Questions to a judge, and prompt tokens in them."""

    calls: float = 0.0
    tokens: float = 0.0

    def __add__(self, other: Work) -> Work:
        return Work(self.calls + other.calls, self.tokens + other.tokens)


def estimate_judging(method: RerankPlan, query: float, passage: float) -> Work:
    """The work of a reranker for one query; `query` and `passage` are mean tokens."""
    calls, passages = count_questions(method)
    limit = method.options.get("passage_tokens")
    shown = min(passage, float(limit)) if isinstance(limit, int) and limit > 0 else passage
    wording = TokenEstimate().count(method.prompt.template + method.prompt.system)
    return Work(calls, calls * (query + wording) + passages * shown)


def count_questions(method: RerankPlan) -> tuple[float, float]:
    """Questions for one query, and passages shown in them: what the sorter asks when the answers are random."""
    hits = [Hit(str(n), float(-n)) for n in range(method.depth)]
    chances = {str(trial): random.Random(trial) for trial in range(TRIALS)}
    shown: list[int] = []

    def answer(asked: Sequence[QueryGroup]) -> list[np.ndarray]:
        shown.extend(len(group) for _, group in asked)
        return [np.array([chances[trial].random() for _ in group]) for trial, group in asked]

    deque(drive(((trial, method.sort(hits, method.k)) for trial in chances), answer, 1), maxlen=0)
    views = 2 if method.prompt.orders == "both" else 1
    return len(shown) * views / TRIALS, sum(shown) * views / TRIALS
