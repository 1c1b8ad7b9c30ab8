"""What an experiment would do, without doing it: documents, tokens and judge calls, estimated."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from statistics import mean

import numpy as np

from ...items import Item
from ...multilingual.judges.messages import TokenEstimate
from ...multilingual.reranking.plan import RerankPlan
from ...multilingual.reranking.rerank import QueryGroup, drive
from ...runs import Hit
from .conduct import open_sites
from .plan import Plan
from .sites import ExperimentSite

SAMPLE = 1000  # documents from whose length that of all is estimated
TRIALS = 5  # sorts by random answers from which the number of questions is estimated


@dataclass(frozen=True)
class IndexEstimate:
    """An index: where, of how many documents with about how many tokens, and how far it is: done, begun or to do."""

    folder: str
    encoders: tuple[str, ...]
    documents: int
    tokens: int
    state: str


@dataclass(frozen=True)
class SystemEstimate:
    """A system: the queries that it answers, and about how many calls and prompt tokens its judges need."""

    system: str
    pipeline: str
    queries: int
    calls: int
    tokens: int


@dataclass(frozen=True)
class Survey:
    """What would be done on one collection."""

    collection: str
    documents: int
    queries: int
    indexes: tuple[IndexEstimate, ...]
    systems: tuple[SystemEstimate, ...]

    def to_json(self) -> dict[str, object]:
        return asdict(self)

    def __str__(self) -> str:
        lines = [f"{self.collection}: {self.documents:,} documents, {self.queries:,} queries"]
        for index in self.indexes:
            what = ", ".join(index.encoders) or "full text"
            tokens = f", about {index.tokens:,} tokens to encode" * bool(index.tokens)
            lines.append(f"  index {index.folder} ({what}): {index.state}; {index.documents:,} documents{tokens}")
        for system in self.systems:
            judged = f"; about {system.calls:,} judge calls, {system.tokens:,} prompt tokens"
            lines.append(f"  {system.system}: {system.pipeline}" + judged * bool(system.calls))
        return "\n".join(lines)


def survey_plan(plan: Plan, out: Path) -> list[Survey]:
    """The plan's work, a survey a collection; loads no model and writes nothing but what was read of collections.

    Tokens are those of `TokenEstimate`, rather too many than too few; work that an earlier run has finished is not
    subtracted.
    """
    return [_survey_site(site) for site in open_sites(plan, out)]


def _survey_site(site: ExperimentSite) -> Survey:
    documents = site.content.counts.documents
    length = _mean_tokens(site.collection.docs())
    query_length = _mean_tokens(site.queries)
    indexes: dict[str, IndexEstimate] = {}
    estimates = []
    for name, system in site.systems.items():
        for plan in map(site.complete, system.plans):
            folder = site.folder(plan)
            made = folder.with_name(f"{folder.name}.json").exists()
            state = "done" if made else "begun" if folder.exists() else "to do"
            own = _mean_tokens(site.find_version(plan.documents)[0].docs()) if plan.documents else length
            overlap = plan.windows.window / plan.windows.stride if plan.windows else 1.0
            encoders = plan.encoders or ()
            encoded = round(own * documents * len(encoders) * overlap)
            indexes[folder.name] = IndexEstimate(folder.name, encoders, documents, encoded, state)
        judging = [_estimate_judging(part.method, query_length, length) for part in system.parts if part.method]
        count = len(site.queries)
        calls = round(count * sum(asked for asked, _ in judging))
        tokens = round(count * sum(read for _, read in judging))
        estimates.append(SystemEstimate(name, system.line, count, calls, tokens))
    return Survey(site.name, documents, len(site.queries), tuple(indexes.values()), tuple(estimates))


def _mean_tokens(items: Iterable[Item]) -> float:
    estimate = TokenEstimate()
    return mean(estimate.count(item.text or "") for item in islice(items, SAMPLE))


def _estimate_judging(method: RerankPlan, query: float, passage: float) -> tuple[float, float]:
    """Questions to a reranker's judge for one query, and prompt tokens in them; from the mean tokens of both."""
    calls, passages = count_questions(method)
    limit = method.options.get("passage_tokens")
    shown = min(passage, float(limit)) if isinstance(limit, int) and limit > 0 else passage
    wording = TokenEstimate().count(method.prompt.template + method.prompt.system)
    return calls, calls * (query + wording) + passages * shown


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
