"""What an experiment would do, told without doing it: documents, tokens and judge calls, estimated."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np

from ...items import Item
from ...multilingual.collections import base as collections
from ...multilingual.judges.estimates import Estimate
from ...multilingual.reranking.rerank import Method
from ...runs import Hit
from ...systems.stages import Leaf, Reranking
from .conduct import System, places, systems
from .plan import Plan
from .sites import Place

SAMPLE = 1000  # documents from whose length that of all is told
TRIALS = 5  # sorts by random answers from which the number of questions is told


@dataclass(frozen=True)
class Making:
    """An index: where, of how many documents with about how many tokens, and how far it is: done, begun or to do."""

    folder: str
    encoders: tuple[str, ...]
    documents: int
    tokens: int
    state: str


@dataclass(frozen=True)
class Running:
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
    indexes: tuple[Making, ...]
    systems: tuple[Running, ...]

    def to_json(self) -> dict[str, object]:
        return asdict(self)

    def __str__(self) -> str:
        lines = [f"{self.collection}: {self.documents:,} documents, {self.queries:,} queries"]
        for index in self.indexes:
            what = ", ".join(index.encoders) or "full text"
            lines.append(
                f"  index {index.folder} ({what}): {index.state}; {index.documents:,} documents"
                + (f", about {index.tokens:,} tokens to encode" if index.tokens else "")
            )
        for system in self.systems:
            judged = f"; about {system.calls:,} judge calls, {system.tokens:,} prompt tokens"
            lines.append(f"  {system.system}: {system.pipeline}" + judged * bool(system.calls))
        return "\n".join(lines)


def survey(plan: Plan, out: Path) -> list[Survey]:
    """The plan's work, a survey a collection; loads no model and writes nothing but what was read of collections.

    Tokens are those of `Estimate`, rather too many than too few; what stages have finished before is not taken off.
    """
    compared = systems(plan)
    return [_surveyed(place, compared) for place in places(plan, compared, out)]


def _surveyed(place: Place, compared: Sequence[System]) -> Survey:
    counts = place.known.counts
    sizes = _sizes(place.collection.docs())
    indexes: dict[str, Making] = {}
    running = []
    for system in compared:
        for wanted in system.wanted:
            settled = place.settled(wanted)
            folder = place.folder(wanted)
            own = sizes if not settled.documents else _sizes(collections.load(settled.documents).docs())
            overlap = settled.windows.window / settled.windows.stride if settled.windows else 1.0
            tokens = round(mean(own) * counts.documents * len(settled.encoders or ()) * overlap)
            indexes[folder.name] = Making(
                folder.name, settled.encoders or (), counts.documents, tokens, _state(folder)
            )
        calls, tokens = _judged([system.leaves[spec] for spec in system.specs], place.queries, mean(sizes))
        running.append(Running(system.name, system.pipeline, len(place.queries), calls, tokens))
    return Survey(place.name, counts.documents, len(place.queries), tuple(indexes.values()), tuple(running))


def _state(folder: Path) -> str:
    if folder.with_name(folder.name + ".json").exists():
        return "done"
    return "begun" if folder.exists() else "to do"


def _sizes(docs: Iterator[Item]) -> list[int]:
    estimate = Estimate()
    return [estimate.count(item.text or "") for item in islice(docs, SAMPLE)]


def _judged(chain: Sequence[Leaf], queries: Sequence[Item], passage: float) -> tuple[int, int]:
    """Calls and prompt tokens of all rerankers in a pipeline."""
    query = mean(Estimate().count(each.text or "") for each in queries)
    calls = tokens = 0
    for leaf in chain:
        if isinstance(leaf, Reranking):
            asked, shown = questions(leaf.method)
            limit = leaf.method.options.get("passage_tokens")
            each = min(passage, float(limit)) if isinstance(limit, int) and limit > 0 else passage
            wording = Estimate().count(leaf.method.prompt.template + leaf.method.prompt.system)
            calls += round(asked * len(queries))
            tokens += round((asked * (query + wording) + shown * each) * len(queries))
    return calls, tokens


def questions(method: Method) -> tuple[float, float]:
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
