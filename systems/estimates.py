"""How much a judge has to do, estimated before any model is loaded."""

from __future__ import annotations

import random
from dataclasses import dataclass
from statistics import mean
from typing import Any

import numpy as np

from ..multilingual.judges.estimates import TokenEstimate
from ..multilingual.reranking.plan import RerankPlan
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
    views = 2 if method.prompt.orders == "both" else 1
    asked, shown = [], []
    for trial in range(TRIALS):
        chance = random.Random(trial)
        sorting: Any = method.sort(hits, method.k)
        questions = passages = 0
        try:
            ask = next(sorting)
            while True:
                questions += len(ask.groups)
                passages += sum(map(len, ask.groups))
                ask = sorting.send([np.array([chance.random() for _ in group]) for group in ask.groups])
        except StopIteration:
            asked.append(questions * views)
            shown.append(passages * views)
    return mean(asked), mean(shown)
