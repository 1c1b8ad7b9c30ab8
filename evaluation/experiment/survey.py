"""What an experiment would do, without doing it: documents, tokens and judge calls, estimated."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from ...indexes.storage.card import JointWindows
from ...multilingual.judges.messages import TokenEstimate
from ...multilingual.reranking.plan import RerankPlan
from ...multilingual.reranking.questions import count_questions
from ...systems.system import System
from .conduct import open_sites
from .plan import Plan
from .rates import Rates, mean_tokens, name_indexing, name_judges, name_line, name_search, read_object
from .sites import ExperimentSite, make_slug


@dataclass(frozen=True)
class IndexEstimate:
    """An index: where, of how many documents with about how many tokens, and how far it is: done, begun or to do."""

    folder: str
    encoders: tuple[str, ...]
    documents: int
    tokens: int
    state: str
    seconds: float | None = None  # None is unknown


@dataclass(frozen=True)
class SystemEstimate:
    """A system: the queries that it answers, about how many calls and prompt tokens its judges need, and how long."""

    system: str
    pipeline: str
    queries: int
    calls: int
    tokens: int
    state: str = "to do"
    seconds: float | None = None  # None is unknown


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
            about = f"{index.state}; {index.documents:,} documents{tokens}"
            lines.append(f"  index {index.folder} ({what}): {about}{_say_seconds(index)}")
        for system in self.systems:
            judged = f"; about {system.calls:,} judge calls, {system.tokens:,} prompt tokens"
            about = f"{system.pipeline}{judged * bool(system.calls)}"
            lines.append(f"  {system.system}: {about}{_say_seconds(system)}")
        return "\n".join(lines)

    @property
    def seconds(self) -> tuple[float, int]:
        """What all that was measured will take, and of how many indexes and systems that is unknown."""
        parts: list[IndexEstimate | SystemEstimate] = [*self.indexes, *self.systems]
        each = [part.seconds for part in parts]
        return sum(filter(None, each)), each.count(None)


def _say_seconds(estimate: IndexEstimate | SystemEstimate) -> str:
    if estimate.state == "done":
        return "; done" if isinstance(estimate, SystemEstimate) else ""
    return "; time unknown" if estimate.seconds is None else f"; about {format_minutes(estimate.seconds)}"


def format_minutes(seconds: float) -> str:
    """A duration as minutes, or hours where it is long."""
    minutes = seconds / 60
    if minutes <= 1:
        return "1 minute or less"
    return f"{minutes:.0f} minutes" if minutes < 180 else f"{minutes / 60:.1f} hours"


def sum_up(surveys: Sequence[Survey]) -> str:
    """How long all of it will take on this machine, as far as that has been measured."""
    seconds, unknown = map(sum, zip(*(each.seconds for each in surveys), strict=True))
    known = f"in all about {format_minutes(seconds)}"
    if not unknown:
        return f"{known}, by what was measured on this machine"
    parts = f"{unknown} indexes and systems that were not measured on this machine"
    return f"{known}, and the time of {parts}" if seconds else "time unknown: nothing like it was measured here"


def survey_plan(plan: Plan, out: Path, *, device: str = "auto") -> list[Survey]:
    """The plan's work, a survey a collection; loads no model and writes nothing but what was read of collections.

    Tokens are those of `TokenEstimate`, rather too many than too few. Seconds are those that earlier results took, else
    come from what experiments measured on this machine and device (`rates`).
    """
    from ...checkpoints.devices import resolve_device

    where = str(resolve_device(device))
    return [_survey_site(site, where) for site in open_sites(plan, out)]


def _survey_site(site: ExperimentSite, device: str) -> Survey:
    documents = site.content.counts.documents
    length = mean_tokens(site.collection.docs())
    query_length = mean_tokens(site.queries)
    rates, stored = Rates.of_machine(device), Rates(Path())
    stored.add_results(site.out, length)
    indexes: dict[str, IndexEstimate] = {}
    estimates = []
    for name, system in site.systems.items():
        for plan in map(site.complete, system.plans):
            folder = site.folder(plan)
            made = folder.with_name(f"{folder.name}.json").exists()
            state = "done" if made else "begun" if folder.exists() else "to do"
            own = mean_tokens(site.find_version(plan.documents)[0].docs()) if plan.documents else length
            overlap = plan.windows.window / plan.windows.stride if plan.windows else 1.0
            overlap += isinstance(plan.windows, JointWindows) and own > plan.windows.window
            encoders = plan.encoders or ()
            encoded = round(own * documents * len(encoders) * overlap)
            units = max(own, 1.0) * documents * overlap
            seconds = 0.0 if made else _first(each.estimate(name_indexing(encoders), units) for each in (stored, rates))
            indexes[folder.name] = IndexEstimate(folder.name, encoders, documents, encoded, state, seconds)
        judging = [_estimate_judging(part.method, query_length, length) for part in system.parts if part.method]
        count = len(site.queries)
        calls = round(count * sum(asked for asked, _ in judging))
        tokens = round(count * sum(read for _, read in judging))
        if _is_done(site, name, system):
            state, seconds = "done", 0.0
        else:
            state, seconds = "to do", stored.estimate(name_line(system.line), count)
            seconds = _estimate_seconds(rates, system, count, calls) if seconds is None else seconds
        estimates.append(SystemEstimate(name, system.line, count, calls, tokens, state, seconds))
    return Survey(site.name, documents, len(site.queries), tuple(indexes.values()), tuple(estimates))


def _first(estimates: Iterable[float | None]) -> float | None:
    return next((each for each in estimates if each is not None), None)


def _is_done(site: ExperimentSite, name: str, system: System) -> bool:
    """Whether an earlier run has left the result of this line on these documents."""
    path = site.out / site.slug / make_slug(name) / "manifest.json"
    cell = read_object(path) if path.exists() else {}
    content = cell.get("collection", {})
    return cell.get("pipeline") == system.line and content == {"name": site.name, "content": site.content.content}


def _estimate_seconds(rates: Rates, system: System, queries: int, calls: int) -> float | None:
    """What a system takes by the rates of its search and of its judge; None where one of them is unknown."""
    judges = name_judges(system)
    if len(set(judges)) > 1:
        return None
    parts = [rates.estimate(name_search(system), queries), *(rates.estimate(each, calls) for each in judges[:1])]
    return None if None in parts else sum(filter(None, parts))


def _estimate_judging(method: RerankPlan, query: float, passage: float) -> tuple[float, float]:
    """Questions to a reranker's judge for one query, and prompt tokens in them; from the mean tokens of both."""
    calls, passages = count_questions(method)
    limit = method.options.get("passage_tokens")
    shown = min(passage, float(limit)) if isinstance(limit, int) and limit > 0 else passage
    wording = TokenEstimate().count(method.prompt.template + method.prompt.system)
    return calls, calls * (query + wording) + passages * shown
