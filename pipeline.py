"""Stages map `Run -> Run` and compose: `a >> b`, `a % k`, `a + b`, `w * a`, `rrf(a, b)`, `merge(a, b)`, `zscore(a)`."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, fields, is_dataclass, replace
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

import numpy as np

from .errors import InputError, check_cutoff
from .items import Queries, hash_json
from .runs import Documents, Hit, Manifest, Record, Run, hits_of
from .steps import put

Watcher = Callable[[int], None]  # takes how much is done in all
# What shows how far long work is: `with progress("encoding", total) as watcher`.
Progress = Callable[[str, int | None], AbstractContextManager[Watcher]]

_WATCHER: ContextVar[Watcher | None] = ContextVar("watcher", default=None)


def watch(watcher: Watcher) -> AbstractContextManager[None]:
    """While the block runs, `watcher` gets how many questions the stages in it have answered in all."""
    total = 0

    def add(done: int) -> None:
        nonlocal total
        total += done
        watcher(total)

    return put(_WATCHER, add)


def advance(done: int = 1) -> None:
    """Report that so much more is done; to be called in the thread of the stage."""
    if (watcher := _WATCHER.get()) is not None and done:
        watcher(done)


@contextmanager
def show_nothing(what: str, total: int | None = None) -> Iterator[Watcher]:
    """A `Progress` that shows nothing."""
    yield lambda done: None


_ENCODED: ContextVar[Watcher | None] = ContextVar("encoded", default=None)


def watch_encoded(watcher: Watcher) -> AbstractContextManager[None]:
    """While the block runs, `watcher` gets the size of each batch that an encoder gives to an index."""
    return put(_ENCODED, watcher)


def note_encoded(number: int) -> None:
    """Report that so many items more are encoded, by one encoder."""
    if (watcher := _ENCODED.get()) is not None:
        watcher(number)


class Stage:
    """A frozen dataclass that maps `Run -> Run`; equality, fingerprint and provenance follow from its fields.

    A new stage subclasses this, declares its parameters as fields and writes `apply`. Fields declared with
    `compare=False` (a device, a batch size) change speed, not results, and stay out of the fingerprint.
    """

    def apply(self, run: Run, count: Counter[str]) -> Run:
        """The stage itself; what it counts (tokens, judge calls, ...) goes to `count` and the manifest."""
        raise NotImplementedError

    def ready(self) -> None:
        """Load what it works with; not counted in its seconds, which would depend on what ran before."""

    def __call__(self, run: Run | Queries) -> Run:
        run = run if isinstance(run, Run) else Run.of(run)
        count: Counter[str] = Counter()
        self.ready()
        fingerprint = self.fingerprint  # before the work, which would be lost on one that has none
        started = time.perf_counter()
        result = self.apply(run, count)
        seconds = round(time.perf_counter() - started, 4)
        record = Record(str(self), fingerprint, seconds, dict(count), self.models)
        return replace(result, manifest=Manifest((*result.manifest.records, record)))

    @property
    def docs(self) -> Documents | None:
        """Where the documents of its hits are found, if it brings them."""
        return None

    def map(self, change: Callable[[Stage], Stage]) -> Stage:
        """The same pipeline with each of its innermost stages put through `change`, in their order."""
        return change(self)

    @property
    def parts(self) -> tuple[Stage, ...]:
        """The innermost stages, in their order."""
        found: list[Stage] = []
        self.map(lambda stage: found.append(stage) or stage)  # type: ignore[func-returns-value]
        return tuple(found)

    def describe(self) -> object:
        """What the stage computes, for its fingerprint: type and fields, JSON-able."""
        return describe_fields(self)

    @property
    def fingerprint(self) -> str:
        """12 hex digits over the type and its fields; equal stages have equal ones on every machine."""
        return hash_description(self)

    @property
    def models(self) -> Mapping[str, str]:
        """The models that the stage runs, by name, with their revisions: for the manifest."""
        return {}

    def __rshift__(self, after: Stage) -> Stage:
        if not isinstance(after, Stage):
            raise InputError(f"a stage is followed by a stage, and not by {repr(after)[:60]} ({type(after).__name__})")
        # Always nested to the left, so that (a >> b) >> c and a >> (b >> c) are one pipeline with one fingerprint.
        return Then(self >> after.first, after.second) if isinstance(after, Then) else Then(self, after)

    def __mod__(self, k: int) -> Stage:
        return Then(self, Cut(k))

    def __add__(self, other: Stage) -> Stage:
        return Sum(
            tuple(chain.from_iterable(each.branches if isinstance(each, Sum) else [each] for each in (self, other)))
        )

    def __rmul__(self, weight: float) -> Stage:
        return Then(self, Scale(float(weight)))

    def __str__(self) -> str:
        return type(self).__name__.lower()


@dataclass(frozen=True)
class Then(Stage):
    """`first >> second`: the output of one is the input of the next."""

    first: Stage
    second: Stage

    def __call__(self, run: Run | Queries) -> Run:
        _ = self.second.fingerprint  # as in `Stage`
        return self.second(self.first(run))

    def map(self, change: Callable[[Stage], Stage]) -> Stage:
        return Then(self.first.map(change), self.second.map(change))

    def __str__(self) -> str:
        return f"{self.first} >> {self.second}"


@dataclass(frozen=True)
class Cut(Stage):
    """`stage % k`: the first k hits of each query."""

    k: int

    def __post_init__(self) -> None:
        check_cutoff(self.k, "a cutoff")
        object.__setattr__(self, "k", int(self.k))  # numpy's whole numbers have no stable description

    def apply(self, run: Run, count: Counter[str]) -> Run:
        return run.cut(self.k)

    def __str__(self) -> str:
        return f"% {self.k}"


@dataclass(frozen=True)
class Scale(Stage):
    """`weight * stage`: every score times the weight, which may not be negative (it would turn the order)."""

    weight: float

    def __post_init__(self) -> None:
        if not 0 <= self.weight < math.inf:
            raise InputError(f"a weight must be 0 or more, and finite, not {self.weight}")

    def apply(self, run: Run, count: Counter[str]) -> Run:
        return run.ranking(
            {query: [(hit.id, self.weight * hit.score) for hit in hits] for query, hits in run.hits.items()}
        )

    def __str__(self) -> str:
        return f"* {self.weight:g}"


@dataclass(frozen=True)
class ZScore(Stage):
    """Scores of each query as z-scores over its hits (mean 0, deviation 1); equal scores become 0."""

    def apply(self, run: Run, count: Counter[str]) -> Run:
        scores = {query: standardize([hit.score for hit in hits]).tolist() for query, hits in run.hits.items()}
        return run.ranking({query: hits_of([hit.id for hit in run[query]], scores[query]) for query in run.hits})


@dataclass(frozen=True)
class Fusion(Stage):
    """Several rankings made into one: a new way subclasses this and writes `combine`."""

    branches: tuple[Stage, ...]

    def __post_init__(self) -> None:
        if not self.branches:
            raise InputError(f"{type(self).__name__.lower()} needs at least one stage")

    def combine(self, rankings: Sequence[tuple[Hit, ...]]) -> Mapping[str, float]:
        """Document id to score, from one query's ranking in each branch."""
        raise NotImplementedError

    def __call__(self, run: Run | Queries) -> Run:
        run = run if isinstance(run, Run) else Run.of(run)
        fingerprint = self.fingerprint  # as in `Stage`
        runs = [branch(run) for branch in self.branches]
        started = time.perf_counter()
        hits = {query.id: self.combine([each[query.id] for each in runs]).items() for query in run.queries}
        before = run.manifest.records  # every branch repeats them
        records = list(before)
        for each in runs:
            own = each.manifest.records
            records += own[len(before) :] if own[: len(before)] == before else own
        docs = next((each.docs for each in runs if each.docs is not None), run.docs)
        result = run.ranking(hits, docs)
        records.append(Record(str(self), fingerprint, round(time.perf_counter() - started, 4)))
        return replace(result, manifest=Manifest(tuple(records)))

    def map(self, change: Callable[[Stage], Stage]) -> Stage:
        return replace(self, branches=tuple(each.map(change) for each in self.branches))

    def __str__(self) -> str:
        return f"{type(self).__name__.lower()}({', '.join(map(str, self.branches))})"


@dataclass(frozen=True)
class Sum(Fusion):
    """`a + b`: CombSUM (Fox and Shaw 1994); a document that one lacks gets that one's lowest score."""

    def combine(self, rankings: Sequence[tuple[Hit, ...]]) -> Mapping[str, float]:
        totals: dict[str, float] = {hit.id: 0.0 for hits in rankings for hit in hits}
        for hits in rankings:
            scores = dict(hits)
            floor = hits[-1].score if hits else 0.0
            for doc in totals:
                totals[doc] += scores.get(doc, floor)
        return totals

    def __str__(self) -> str:
        return "(" + " + ".join(map(str, self.branches)) + ")"


@dataclass(frozen=True)
class RRF(Fusion):
    """Reciprocal rank fusion (Cormack, Clarke and Buettcher 2009): the sum of 1 / (constant + rank)."""

    constant: int = 60

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.constant >= 0:
            raise InputError(f"the constant of rrf must be 0 or more, not {self.constant}")

    def combine(self, rankings: Sequence[tuple[Hit, ...]]) -> Mapping[str, float]:
        return reciprocal_ranks(rankings, self.constant)


@dataclass(frozen=True)
class RoundRobin(Fusion):
    """The first hit of each branch in turn, then the second of each, and so on; a document counts once.

    It merges rankings of several collections or languages when their scores cannot be compared. Scores are 1 / rank.
    """

    def combine(self, rankings: Sequence[tuple[Hit, ...]]) -> Mapping[str, float]:
        turns = (hit.id for round_ in zip_longest(*rankings) for hit in round_ if hit is not None)
        return {doc: 1.0 / rank for rank, doc in enumerate(dict.fromkeys(turns), 1)}


@dataclass(frozen=True)
class Merge(Fusion):
    """All hits of all branches by their scores as they are; a document that several have keeps its best score.

    It merges rankings of collections or languages that have no document in common (`a + b` would add to each
    document the other ranking's floor). Raw scores compare where one model gave them all; `merge(zscore(a),
    zscore(b))` where not.
    """

    def combine(self, rankings: Sequence[tuple[Hit, ...]]) -> Mapping[str, float]:
        scores: dict[str, float] = {}
        for hit in (hit for hits in rankings for hit in hits):
            scores[hit.id] = max(hit.score, scores.get(hit.id, -math.inf))
        return scores


def merge(*stages: Stage) -> Stage:
    """Merge stages by their scores as they are."""
    return Merge(stages)


def roundrobin(*stages: Stage) -> Stage:
    """Merge stages by taking turns, the first stage first."""
    return RoundRobin(stages)


def rrf(*stages: Stage, k: int = 60) -> Stage:
    """Fuse stages by reciprocal rank; `k` is the constant of the paper."""
    return RRF(stages, k)


def zscore(stage: Stage) -> Stage:
    """A stage with its scores as z-scores, so that `zscore(a) + 0.5 * zscore(b)` adds like to like."""
    return stage >> ZScore()


def reciprocal_ranks(rankings: Sequence[Sequence[Hit]], constant: int = 60) -> dict[str, float]:
    """Document id to the sum over rankings of 1 / (constant + rank)."""
    totals: dict[str, float] = {}
    for hits in rankings:
        for rank, hit in enumerate(hits, 1):
            totals[hit.id] = totals.get(hit.id, 0.0) + 1.0 / (constant + rank)
    return totals


def standardize(scores: Sequence[float]) -> np.ndarray:
    """z-scores, float64 [n]; zeros where all scores are equal."""
    values = np.asarray(scores, dtype=np.float64)
    largest = float(np.abs(values).max(initial=0.0))
    values = values / (largest or 1.0)  # whose squares are numbers, however small the scores
    # Scores that differ by rounding alone are equal: dividing by such a spread would make noise the signal.
    # It is relative, for probabilities of 1e-12 differ too.
    if largest == 0 or (spread := values.std()) <= 1e-9:
        return np.zeros(len(values))
    standard: np.ndarray = (values - values.mean()) / spread
    return standard


def hash_description(value: object) -> str:
    """12 hex digits over a value's canonical description (see `describe`)."""
    return hash_json(describe(value))


def check_description(value: object, name: str) -> None:
    """`InputError` where what is called `name` has no stable description, without which no result can be told apart."""
    try:
        describe(value)
    except TypeError as error:
        raise InputError(f"{name}: {error}") from None


def describe(value: object) -> object:
    """A JSON-able description of what a value computes; `TypeError` where there is no stable one."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, Mapping):
        return {str(key): describe(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple | frozenset | set):
        inner = [describe(each) for each in value]
        return sorted(inner, key=repr) if isinstance(value, frozenset | set) else inner
    if isinstance(value, Stage):
        return value.describe()
    if isinstance(own := getattr(value, "fingerprint", None), str):
        return own
    if is_dataclass(value) and not isinstance(value, type):
        return describe_fields(value)
    # Not a lambda, a closure or a bound method: their names do not show what they hold.
    qualname = getattr(value, "__qualname__", "<")
    if callable(value) and "<" not in qualname and not hasattr(value, "__self__"):
        return f"{value.__module__}.{qualname}"
    raise TypeError(f"{type(value).__name__} has no stable description: give it a `fingerprint`")


def describe_fields(value: Any) -> dict[str, object]:
    """The type of a dataclass and its fields, without those declared with `compare=False`; `TypeError` for others."""
    if not is_dataclass(value):
        raise TypeError(f"{type(value).__name__} is no dataclass and has no stable description: make it a frozen one")
    own = {each.name: describe(getattr(value, each.name)) for each in fields(value) if each.compare}
    return {"type": type(value).__qualname__, **own}
