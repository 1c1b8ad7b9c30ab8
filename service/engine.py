"""The engine of a service: indexes, systems, encoders and rerankers, and the two threads that work with models.

Searches and encodings are done by one thread, in turn, rerankings by another: models compute with all cores as it is,
and a slow reranking holds no search up. What all requests ask for at a time is done together.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from statistics import median
from typing import TypeVar

import numpy as np
from PIL import Image

from ..encoders.base import Encoder, EncoderSpec
from ..errors import CrosslensError, InputError, list_few
from ..indexes.base import Index
from ..indexes.encoding import encode_dense
from ..items import Item, Role, group_positions, split_by_weight
from ..media.images import encode_png
from ..multilingual.reranking.plan import rank
from ..multilingual.reranking.rerank import Rerank
from ..pipeline import Stage
from ..systems.system import System
from .gate import hide_paths
from .metrics import Metrics
from .quotas import Late, Quotas, Unknown
from .searching import Found, Searching, Wanted, measure_tokens
from .systems import Search, ServedIndex, ServedSystem
from .workers import WorkKind, WorkThread

log = logging.getLogger("crosslens")
T = TypeVar("T")
MODES = ("hybrid", "dense", "lexical")
SEARCHES = 64  # queries that are searched for together
ENCODED = 4096  # tokens, about, that are encoded together
JUDGED = 16_384  # tokens, about, that are judged together
PASSAGE = 128  # tokens that a candidate is taken to have where nothing says more
RERANKED = 20  # rerankings of which the middle one says what one costs


@dataclass(frozen=True)
class Embedded:
    """Vectors float32 [n, dim] in the order of the items, and the tokens that were read."""

    vectors: np.ndarray
    tokens: int
    model: str
    spec: EncoderSpec


@dataclass(frozen=True)
class Scored:
    """`scores` of documents, in their order, in 0..1; `raw` are the reranker's own, higher is better in both."""

    scores: list[float]
    raw: list[float]
    tokens: int
    model: str


@dataclass(frozen=True)
class Answer:
    """What a search found: the ranking, what it is cut to, and how long each part took, in seconds."""

    found: Found
    search: Search
    reranked: bool
    partial: bool
    seconds: Mapping[str, float]


@dataclass
class Engine:
    """What is served, open and loaded; made by `load`.

    `search`, `embed` and `score` are for the event loop. `InputError` for what cannot be done as it was asked for,
    `Unknown` for a name that is not served, `Busy` and `Late` (`quotas`) where there is too much or too little time.
    """

    indexes: Mapping[str, ServedIndex]
    systems: Mapping[str, ServedSystem]
    limits: Quotas = field(default_factory=Quotas)
    metrics: Metrics = field(default_factory=Metrics)

    def __post_init__(self) -> None:
        self.searching = Searching(self.indexes, self.limits.query_tokens)
        self.encoders: dict[str, Encoder] = {}
        for served in self.indexes.values():
            for name, encoder in served.encoders.items():
                if encoder.spec.kind == "dense":
                    self.encoders.setdefault(hide_paths(name), encoder)
        self.rerankers = {name: system for name, system in self.systems.items() if system.second is not None}
        first = next(iter(self.systems.values()))
        self._modes = {
            mode: replace(ServedSystem.split(mode, System.parse(mode)), second=first.second) for mode in MODES
        }
        self._recent: deque[float] = deque(maxlen=RERANKED)
        seen = self.metrics.watch_batches
        most = self.limits.requests
        self.models = WorkThread(
            "models",
            {
                "search": WorkKind(self.searching.search, SEARCHES, seen("search")),
                "encode": WorkKind(self._encode, ENCODED, seen("encode")),
            },
            most,
        )
        self.judges = WorkThread(
            "judges",
            {
                "rerank": WorkKind(self.searching.rerank, JUDGED, seen("rerank")),
                "score": WorkKind(self._score, JUDGED, seen("score")),
            },
            most,
        )

    @classmethod
    def load(
        cls,
        indexes: Mapping[str, Index],
        systems: Sequence[str] = ("hybrid",),
        *,
        limits: Quotas = Quotas(),  # noqa: B008 - it is frozen
        device: str = "auto",
        trust_remote_code: bool = False,
    ) -> Engine:
        """Indexes by name, and lines of systems (`LINE` or `NAME=LINE`), all models loaded, each tried once.

        The first system is the one that is used where none is named. `InputError` for a line that is wrong or does
        not fit an index, and for an unfinished index.
        """
        parsed = [ServedSystem.parse(each, device=device, trust_remote_code=trust_remote_code) for each in systems]
        for system in parsed:
            for part in filter(None, (system.first, system.second)):
                part.check_named()
        named = {system.name: system for system in parsed}
        if len(named) < len(parsed):
            raise InputError("two systems have one name: give each its own, as NAME=LINE")
        served = {name: ServedIndex.load(name, index) for name, index in indexes.items()}
        engine = cls(served, named, limits)
        for system in named.values():
            for name in served:
                engine.try_out(name, system)
        return engine

    def try_out(self, index: str, system: ServedSystem) -> None:
        """Bind a system to an index, and search and rerank once with all that it reads.

        So what is wrong is known before the first request, which then waits for no model to get ready.
        """
        search = Search(index, system, (), 2, False, False, system.second is not None)
        reads = self.indexes[index].reads
        queries = {"text": Item("", "crosslens"), "image": Item("", image=encode_png(Image.new("RGB", (32, 32))))}
        for query in (each for modality, each in queries.items() if modality in reads):
            try:
                (tried,) = self.searching.search([Wanted(search, query)])
            except InputError:
                if query.text:
                    raise
                continue  # full text alone reads no pictures
            if isinstance(tried, CrosslensError):
                raise tried
            if system.second is not None and tried.hits and query.text:
                self.searching.rerank([(search, tried)])
        if system.second is not None:
            self.searching.load_reranker(system)

    def close(self, seconds: float = 10.0) -> None:
        """End both threads, when what is under way is done or the time is over."""
        for worker in (self.models, self.judges):
            worker.close(seconds)

    # Search

    def choose_system(self, system: str | None, mode: str | None) -> ServedSystem:
        """The system of that name; `mode` searches in another way, and reranks as the first system does."""
        first = next(iter(self.systems.values()))
        if system is not None:
            if mode is not None:
                raise InputError("give a system or a mode: a system says how it searches")
            if system not in self.systems:
                raise Unknown(f"there is no system {system!r} here, only {list_few(self.systems, 20)}")
            return self.systems[system]
        if mode is None:
            return first
        if mode not in MODES:
            raise InputError(f"mode must be one of {', '.join(MODES)}, not {mode!r}")
        return self._modes[mode]

    def choose_index(self, name: str | None) -> ServedIndex:
        """The index of that name, or the first."""
        if name is None:
            return next(iter(self.indexes.values()))
        if name not in self.indexes:
            raise Unknown(f"there is no index {name!r} here, only {list_few(self.indexes, 20)}")
        return self.indexes[name]

    async def search(self, asked: Wanted, deadline: float) -> Answer:
        """The ranking for a query: the first one, `partial`, where the reranking fails or is not done by the deadline.

        The deadline is in seconds of `time.monotonic`. `Late` where nothing is found by then.
        """
        started = time.monotonic()
        found: Found = await _wait(self.models.submit("search", asked), deadline)
        searched = time.monotonic()
        seconds = {"wait": max(0.0, searched - started - found.seconds), "search": found.seconds}
        reranked = partial = False
        if asked.search.rerank and asked.search.system.second is not None and found.hits:
            job = self.judges.submit("rerank", (asked.search, found), self._cost(asked.search, found))
            try:
                found = await _wait(job, deadline)
                reranked = True
                seconds["rerank"] = time.monotonic() - searched
                if not found.cached:
                    self._recent.append(seconds["rerank"])
            except Late:
                partial = True
            except InputError as error:  # a judge's mistake, as one score for all: the request itself was searched for
                log.warning("a reranking is left out: %s", error)
                partial = True
            if reranked and not found.cached:
                self.metrics.count_tokens("rerank", int(found.manifest.total("prompt_tokens")))
        for part, took in seconds.items():
            self.metrics.watch_stage(part, took)
        return Answer(found, asked.search, reranked, partial, seconds)

    def _cost(self, search: Search, found: Found) -> int:
        second = search.system.second
        assert second is not None
        depth = sum(part.method.depth for part in second.parts if part.method)
        return min(depth, len(found.hits)) * PASSAGE

    async def fetch(self, found: Found, ids: Sequence[str]) -> list[Item]:
        """Documents of a ranking; those that the search has not read are read in another thread."""
        kept = self.searching.find_kept(found, ids)
        return await asyncio.to_thread(self.searching.fetch, found, ids) if kept is None else kept

    @property
    def rerank_seconds(self) -> float | None:
        """What a reranking has taken of late."""
        return median(self._recent) if self._recent else None

    # Encoders

    def choose_encoder(self, model: str | None) -> tuple[str, Encoder]:
        """The encoder of that name, with or without its family; the first where there is no name."""
        if not self.encoders:
            raise Unknown("no encoder of single vectors is served here")
        if not model:
            return next(iter(self.encoders.items()))
        for name, encoder in self.encoders.items():
            if model in (name, name.partition(":")[2], name.partition("?")[0]):
                return name, encoder
        raise Unknown(f"there is no encoder {model!r} here, only {list_few(self.encoders, 20)}")

    async def embed(self, model: str | None, items: Sequence[Item], role: Role) -> Embedded:
        """Vectors of items; `InputError` names what the encoder does not read."""
        name, encoder = self.choose_encoder(model)
        until = time.monotonic() + self.limits.timeout_ms / 1000
        for number, item in enumerate(items):
            if item.modalities.isdisjoint(encoder.spec.modalities):
                what = f"holds {' and '.join(sorted(item.modalities))}" if item.modalities else "is empty"
                raise InputError(f"input {number} {what}, and {name} reads {' and '.join(encoder.spec.modalities)}")
        jobs = [
            self.models.submit("encode", (name, role, part), sum(map(_guess_tokens, part)))
            for part in split_by_weight(items, ENCODED, _guess_tokens)
        ]
        parts = await asyncio.gather(*(_wait(job, until) for job in jobs))
        vectors = np.concatenate([part for part, _ in parts]) if parts else np.zeros((0, encoder.spec.dim), np.float32)
        tokens = sum(number for _, number in parts)
        self.metrics.count_tokens("encode", tokens)
        return Embedded(vectors, tokens, name, encoder.spec)

    def _encode(self, jobs: Sequence[tuple[str, Role, Sequence[Item]]]) -> list[tuple[np.ndarray, int]]:
        made: dict[int, tuple[np.ndarray, int]] = {}
        for (name, role), places in group_positions((name, role) for name, role, _ in jobs).items():
            encoder = self.encoders[name]
            items = [replace(item, id=str(n)) for n, item in enumerate(i for place in places for i in jobs[place][2])]
            vectors = encode_dense(encoder, items, role)
            tokens = measure_tokens(encoder, [item.text or "" for item in items])
            start = 0
            for place in places:
                end = start + len(jobs[place][2])
                made[place] = vectors[start:end], sum(tokens[start:end])
                start = end
        return [made[place] for place in range(len(jobs))]

    # Rerankers

    def choose_reranker(self, model: str | None) -> tuple[str, ServedSystem]:
        """The reranking of the system of that name, or of that SPEC; the first where there is no name."""
        if not self.rerankers:
            raise Unknown("no reranker is served here: start the service with --rerank SPEC")
        if not model:
            return next(iter(self.rerankers.items()))
        for name, system in self.rerankers.items():
            if system.second is not None and model in (name, hide_paths(system.second.line)):
                return name, system
        names = [hide_paths(system.second.line) for system in self.rerankers.values() if system.second is not None]
        known = list(dict.fromkeys([*self.rerankers, *names]))  # a system and a SPEC may have one name: `default`
        raise Unknown(f"there is no reranker {model!r} here, only {list_few(known, 20)}")

    async def score(self, model: str | None, query: Item, documents: Sequence[Item]) -> Scored:
        """What a reranker says of each document, whatever its depth and its weight are in a search."""
        name, _ = self.choose_reranker(model)
        if not documents:
            raise InputError("there are no documents to rerank")
        for number, item in enumerate((query, *documents)):
            if not item.modalities:
                raise InputError(f"document {number - 1} is empty" if number else "the query is empty")
        until = time.monotonic() + self.limits.timeout_ms / 1000
        cost = sum(map(_guess_tokens, documents)) + _guess_tokens(query) * len(documents)
        raw, tokens, scores = await _wait(self.judges.submit("score", (name, query, documents), cost), until)
        self.metrics.count_tokens("score", tokens)
        return Scored(scores, raw, tokens, name)

    def _score(self, jobs: Sequence[tuple[str, Item, Sequence[Item]]]) -> list[tuple[list[float], int, list[float]]]:
        answers = []
        for name, query, documents in jobs:
            stage = self.searching.load_reranker(self.rerankers[name])
            usage = _total(stage)
            items = [replace(item, id=f"d{place}") for place, item in enumerate(documents)]
            hits = rank(replace(query, id="query"), items, stage)
            scores = {hit.id: hit.score for hit in hits}
            raw = [scores[item.id] for item in items]
            answers.append((raw, _total(stage) - usage, _to_shares(stage, raw)))
        return answers


def _total(stage: Stage) -> int:
    return sum(int(part.judge.usage.get("prompt_tokens", 0)) for part in stage.parts if isinstance(part, Rerank))


def _to_shares(stage: Stage, raw: Sequence[float]) -> list[float]:
    """Scores in 0..1, in the same order: probabilities of log-probabilities, shares of grades and of ranks."""
    last = stage.parts[-1]
    assert isinstance(last, Rerank)
    prompt = last.prompt
    if len([part for part in stage.parts if isinstance(part, Rerank)]) > 1 or prompt.most > 1:  # ranks, or added up
        order = sorted(set(raw))
        return [(order.index(score) + 1) / len(order) for score in raw]
    if prompt.asks == "likelihood" or (prompt.highest is not None and prompt.highest < 0.1):
        return [math.exp(min(0.0, score)) for score in raw]
    if prompt.highest is not None:
        return [min(1.0, max(0.0, score / prompt.highest)) for score in raw]
    return [1 / (1 + math.exp(-max(-60.0, min(60.0, score)))) for score in raw]


def _guess_tokens(item: Item) -> int:
    """About how many tokens an item has: what it costs beside others."""
    text = item.text or ""
    return 2 + (len(text) // 4 if text.isascii() else len(text) // 2) + 256 * (item.image is not None)


async def _wait(job: Future[T], deadline: float) -> T:
    """The answer to a job; `Late` at the deadline, from when on nobody waits for it, as after a cancellation."""
    try:
        async with asyncio.timeout(max(0.0, deadline - time.monotonic())):
            return await asyncio.wrap_future(job)
    except TimeoutError:
        job.cancel()
        raise Late("the time of the request is over: raise timeout_ms, or ask for less") from None
