"""What an experiment would do, without doing it: documents, tokens and judge calls, estimated."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from statistics import mean

from ...items import Item
from ...multilingual.collections.registry import load_collection
from ...multilingual.judges.messages import TokenEstimate
from ...systems.estimates import Work
from .conduct import open_sites
from .plan import Plan
from .sites import ExperimentSite

SAMPLE = 1000  # documents from whose length that of all is estimated


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
            lines.append(
                f"  index {index.folder} ({what}): {index.state}; {index.documents:,} documents"
                + (f", about {index.tokens:,} tokens to encode" if index.tokens else "")
            )
        for system in self.systems:
            judged = f"; about {system.calls:,} judge calls, {system.tokens:,} prompt tokens"
            lines.append(f"  {system.system}: {system.pipeline}" + judged * bool(system.calls))
        return "\n".join(lines)


def survey_plan(plan: Plan, out: Path) -> list[Survey]:
    """The plan's work, a survey a collection; loads no model and writes nothing but what was read of collections.

    Tokens are those of `TokenEstimate`, rather too many than too few; what stages have finished before is not taken off.
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
            own = _mean_tokens(load_collection(plan.documents).docs()) if plan.documents else length
            overlap = plan.windows.window / plan.windows.stride if plan.windows else 1.0
            encoders = plan.encoders or ()
            tokens = round(own * documents * len(encoders) * overlap)
            indexes[folder.name] = IndexEstimate(folder.name, encoders, documents, tokens, _find_state(folder))
        work = sum((part.estimate(query_length, length) for part in system.parts), Work())
        count = len(site.queries)
        estimates.append(
            SystemEstimate(name, system.line, count, round(work.calls * count), round(work.tokens * count))
        )
    return Survey(site.name, documents, len(site.queries), tuple(indexes.values()), tuple(estimates))


def _find_state(folder: Path) -> str:
    if folder.with_name(folder.name + ".json").exists():
        return "done"
    return "begun" if folder.exists() else "to do"


def _mean_tokens(items: Iterable[Item]) -> float:
    estimate = TokenEstimate()
    return mean(estimate.count(item.text or "") for item in islice(items, SAMPLE))
