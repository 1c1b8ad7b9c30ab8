"""Feedback from first results: the documents that a search found say what is searched for next."""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from ...errors import InputError, check_at_least
from ...indexes.probes import HEAVIEST
from ...items import Item, group_positions
from ...pipeline import Stage
from ...runs import Documents, Probe, Run


class FirstResults(NamedTuple):
    """What a search found for a query: its first documents, their scores, and the last documents."""

    first: Sequence[Item]
    scores: Sequence[float]
    last: Sequence[Item]


def fetch_results(run: Run, first: int, last: int = 0) -> Iterator[tuple[Item, FirstResults]]:
    """The queries of a run that have hits, with so many of the first and of the last; none stands among both.

    `InputError` for a run that was not searched for yet.
    """
    docs = require_documents(run)
    placed = {query.id: (hits[:first], hits[first:][-last:] if last else ()) for query, hits in run if hits}
    ids = dict.fromkeys(hit.id for both in placed.values() for hits in both for hit in hits)
    items = dict(zip(ids, docs.get(list(ids)), strict=True)) if ids else {}
    for query in run.queries:
        if query.id in placed:
            best, rest = placed[query.id]
            found = [items[hit.id] for hit in best]
            yield query, FirstResults(found, [hit.score for hit in best], [items[hit.id] for hit in rest])


def require_documents(run: Run) -> Documents:
    """Where the documents of a run's hits are; `InputError` if it does not say, or was not searched for yet."""
    if run.queries and not run.hits:
        raise InputError(
            "feedback reads first results, and there has been no search: let it follow one, as in "
            "`dense % 10 >> rocchio >> dense`"
        )
    if run.docs is None:
        raise InputError("this run has no documents behind it: give it a collection or an index as `docs`")
    return run.docs


def list_probes(run: Run, query: Item) -> tuple[Probe, ...]:
    """What is searched for so far in a query's place."""
    return run.probes.get(query.id) or (Probe(query, "query"),)


def check_weights(**weights: float) -> None:
    """`InputError` unless they are from 0 to what a search takes as the weight of a probe."""
    for name, weight in weights.items():
        if not 0 <= weight <= HEAVIEST:
            raise InputError(f"{name} must be from 0 to {HEAVIEST:,.0f}, not {weight:g}")


@dataclass(frozen=True)
class VectorFeedback(Stage):
    """The `first` documents of each query become probes, of which only the vectors count.

    A search by vectors then goes by query and documents together, by the weights that a subclass gives them in
    `weigh`; full text goes by the query alone. Vectors of an index's own documents are read from it, not made again;
    the documents may be in any language, as each is corrected by the mean of its own. Queries without hits stay as
    they are, and are counted (`without_hits`).
    """

    first: int = 3

    def __post_init__(self) -> None:
        check_at_least(1, docs=self.first)

    @abstractmethod
    def weigh(self, documents: int) -> tuple[float, float, float]:
        """The weights of the query, and of the means of so many first and of as many last documents."""

    def apply(self, run: Run, count: Counter[str]) -> Run:
        probes = dict(run.probes)
        last = self.first if self.weigh(self.first)[2] else 0
        for query, found in fetch_results(run, self.first, last):
            probes[query.id] = tuple(self._combine(list_probes(run, query), found))
            count["feedback_documents"] += len(found.first)
        count["without_hits"] = sum(not hits for _, hits in run)
        return replace(run, probes=probes)

    def _combine(self, probes: Sequence[Probe], found: FirstResults) -> Iterator[Probe]:
        """In each group of probes: its words as they were, and its vectors among those of the documents."""
        mine, first, last = self.weigh(len(found.first))
        for group, rows in group_positions(probe.group for probe in probes).items():
            own = [probes[row] for row in rows]
            total = sum(abs(probe.weight) for probe in own if probe.only != "words")
            for probe in own:
                if probe.only != "vector":
                    yield probe._replace(only="words")
                if probe.only != "words" and mine:
                    yield probe._replace(only="vector", weight=mine * probe.weight / total)
            for items, weight in ((found.first, first), (found.last, -last)):
                for item in items if weight else ():
                    yield Probe(item, "document", weight / len(items), group, "vector")


@dataclass(frozen=True)
class Rocchio(VectorFeedback):
    """Rocchio's feedback: `alpha` times the query, plus `beta` times the mean of the `first` documents.

    Less, with `gamma`, that times the mean of as many last ones of the run. Rocchio 1971; with vectors of encoders Li
    et al. 2021, Pseudo Relevance Feedback with Deep Language Models and Dense Retrievers, arXiv:2108.11044.
    """

    alpha: float = 1.0
    beta: float = 0.25
    gamma: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_weights(alpha=self.alpha, beta=self.beta, gamma=self.gamma)
        if not self.alpha + self.beta:
            raise InputError("with alpha and beta both 0 nothing is left to search for: raise one")

    def weigh(self, documents: int) -> tuple[float, float, float]:
        return self.alpha, self.beta, self.gamma

    def __str__(self) -> str:
        more = f", gamma={self.gamma:g}" if self.gamma else ""
        return f"rocchio(docs={self.first}, alpha={self.alpha:g}, beta={self.beta:g}{more})"


@dataclass(frozen=True)
class Average(VectorFeedback):
    """The mean of the query's vector and those of the `first` documents.

    It is the `average` of Li et al. 2021 (arXiv:2108.11044). ANCE-PRF (Yu, Xiong and Callan 2021, arXiv:2108.13454)
    trains an encoder that reads query and documents together: this averages what an untrained one makes of each.
    """

    def weigh(self, documents: int) -> tuple[float, float, float]:
        return 1.0, float(documents), 0.0

    def __str__(self) -> str:
        return f"average(docs={self.first})"
