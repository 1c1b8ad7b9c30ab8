"""Searches and rerankings of many requests at once: jobs to rankings, equal ones done once."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from sys import getsizeof
from typing import Any

from ..errors import CrosslensError, InputError
from ..indexes.base import Mode, Retrieve
from ..items import Item, group_positions
from ..multilingual.languages import fill_languages
from ..pipeline import Stage
from ..runs import EXCLUDED, Documents, Hit, Manifest, Probe, Run
from ..systems.system import OpenSite
from ..systems.trace import Trace
from .quotas import TooLarge
from .systems import Kept, Search, ServedIndex, ServedSystem

RANKINGS = 1024  # that are kept for queries which come again
ITEMS = 8192  # documents that are kept
ROOM = 32 << 20  # bytes that rankings have with their queries, and documents as much
LENGTH = 64  # characters that a token has at most: what is longer is not even read as tokens
HIT = 150  # bytes of a hit, about
LARGEST = 1 << 14  # characters of a document that is


@dataclass(frozen=True)
class Wanted:
    """A query as somebody asks it: its words, its picture, a document `like` which it wants others, or several.

    Of the hits from `first` on so many as are `shown` are read with it, together with those of others.
    """

    search: Search
    query: Item
    like: str = ""
    first: int = 0
    shown: int = 0


@dataclass(frozen=True)
class Found:
    """A ranking, what made it, and the edition of the index that it is of; `stages` are the rankings on the way."""

    query: Item
    hits: tuple[Hit, ...]
    docs: Documents
    edition: str
    manifest: Manifest
    stages: tuple[tuple[str, tuple[Hit, ...]], ...] = ()
    probes: tuple[Probe, ...] = ()
    seconds: float = 0.0
    cached: bool = False


@dataclass
class Searching:
    """The two halves of a search, each for many requests at once, over the indexes that are served.

    `query_tokens` is the longest query. Rankings are kept by content and edition; so are small documents.
    """

    indexes: Mapping[str, ServedIndex]
    query_tokens: int
    _rankings: Kept[Found] = field(default_factory=lambda: Kept(RANKINGS, ROOM, _weigh_ranking))
    _items: Kept[Item] = field(default_factory=lambda: Kept(ITEMS, ROOM, _weigh_item))
    _rerankers: Kept[Stage] = field(default_factory=lambda: Kept(64))

    def search(self, jobs: Sequence[Wanted]) -> list[Found | CrosslensError]:
        """The first ranking of each job, or why there is none: `TooLarge` for a query, `Unknown` for a document.

        `InputError` where one of them cannot be searched for.
        """
        found: dict[int, Found | CrosslensError] = {}
        for places in group_positions(job.search.key for job in jobs).values():
            found |= zip(places, self._search_alike([jobs[place] for place in places]), strict=True)
        return [found[place] for place in range(len(jobs))]

    def _search_alike(self, jobs: Sequence[Wanted]) -> list[Found | CrosslensError]:
        started = time.perf_counter()
        search = jobs[0].search
        served = self.indexes[search.index]
        named = [
            replace(query, id=search.name_query(query, job.like))
            for query, job in zip(fill_languages(job.query for job in jobs), jobs, strict=True)
        ]
        view = served.index.view()
        edition = view.fingerprint
        ready: dict[str, Found | CrosslensError] = {
            query.id: replace(kept, docs=view) for query in named if (kept := self._rankings.find((edition, query.id)))
        }
        asked: dict[str, Item] = {}
        probes: dict[str, tuple[Probe, ...]] = {}
        for query, job in zip(named, jobs, strict=True):
            if query.id not in ready and query.id not in asked:
                try:
                    self._check_length(served, query)
                    if job.like:
                        query, probes[query.id] = self._make_like(served, query, job.like)
                except CrosslensError as error:
                    ready[query.id] = error
                else:
                    asked[query.id] = query
        if asked:
            trace = Trace()
            run = served.bind(search).map(trace.wrap)(replace(Run.of(asked.values()), probes=probes))
            docs = run.docs if run.docs is not None else view  # of an empty index there are none
            seconds = time.perf_counter() - started
            for id, query in asked.items():
                own = Found(
                    query, run[id][: search.depth], docs, edition, run.manifest, _list_stages(trace, id),
                    tuple(run.probes.get(id, ())), seconds,
                )  # fmt: skip
                ready[id] = own
                # Not with the view of the edition, which would stay in memory when others have come.
                self._rankings.keep((edition, id), replace(own, cached=True, seconds=0.0, docs=served.index))
        answers = [ready[query.id] for query in named]
        shown: dict[str, Found] = {}
        for place, (found, job) in enumerate(zip(answers, jobs, strict=True)):
            if isinstance(found, Found):
                answers[place] = self._explain(served, search, found) if job.search.explain else found
                shown |= dict.fromkeys((hit.id for hit in found.hits[job.first :][: job.shown]), found)
        if shown:
            self.fetch(next(iter(shown.values())), list(shown)[:ITEMS])
        return answers

    def _explain(self, served: ServedIndex, search: Search, found: Found) -> Found:
        """Also where a hybrid search has its hits from: the rankings by vectors and by full text, which it fuses."""
        stage = served.bind(search)
        if not isinstance(stage, Retrieve) or stage.mode != "hybrid" or not served.index.card.spaces:
            return found
        asked = replace(Run.of([found.query]), probes={found.query.id: found.probes} if found.probes else {})
        worded = any(item.text for item in (found.query, *(probe.item for probe in found.probes)))
        modes: tuple[Mode, ...] = ("dense", "lexical") if worded else ("dense",)
        parts = tuple((mode, replace(stage, mode=mode)(asked)[found.query.id]) for mode in modes)
        return replace(found, stages=(*parts, *found.stages))

    def _check_length(self, served: ServedIndex, query: Item) -> None:
        text = query.text or ""
        if len(text) <= self.query_tokens:  # a token has a character at least
            return
        if len(text) > (most := self.query_tokens * LENGTH):
            raise TooLarge(f"the query has {len(text):,} characters, and {most:,} are the most: make it shorter")
        tokens = max(measure_tokens(each, [text])[0] for each in (*served.encoders.values(), None))
        if tokens > self.query_tokens:
            raise TooLarge(f"the query has {tokens} tokens, and {self.query_tokens} are the most: make it shorter")

    def _make_like(self, served: ServedIndex, query: Item, like: str) -> tuple[Item, tuple[Probe, ...]]:
        """A query for what is like a stored document, which it does not find; what else it holds counts as much."""
        document = served.find(like)
        own = (Probe(query, "query"),) if query.modalities else ()
        shown = replace(document, id=like)
        lang = query.lang or document.lang
        asked = replace(query, text=query.text or document.text, lang=lang, meta={**query.meta, EXCLUDED: [like]})
        return asked, (*own, Probe(shown, "document"))

    def rerank(self, jobs: Sequence[tuple[Search, Found]]) -> list[Found]:
        """The second ranking of each job, from its first."""
        ranked: dict[int, Found] = {}
        keys = [(search.index, found.edition, search.system.second) for search, found in jobs]
        for places in group_positions(keys).values():
            alike = self._rerank_alike(jobs[places[0]][0], [jobs[place][1] for place in places])
            ranked |= dict(zip(places, alike, strict=True))
        return [ranked[place] for place in range(len(jobs))]

    def _rerank_alike(self, search: Search, firsts: Sequence[Found]) -> list[Found]:
        started = time.perf_counter()
        served, second = self.indexes[search.index], search.system.second
        ready = {
            each.query.id: kept
            for each in firsts
            if (kept := self._rankings.find((each.edition, second, each.query.id)))
        }
        asked = {each.query.id: each for each in firsts if each.query.id not in ready}
        if asked:
            trace = Trace()
            first = next(iter(asked.values()))
            hits = {id: each.hits for id, each in asked.items()}
            run = Run(tuple(each.query for each in asked.values()), hits, docs=first.docs)
            run = self.load_reranker(search.system).map(trace.wrap)(run)
            seconds = time.perf_counter() - started
            for id, each in asked.items():
                own = replace(
                    each, hits=run[id], seconds=seconds, cached=False, stages=_list_stages(trace, id),
                    manifest=run.manifest,
                )  # fmt: skip
                ready[id] = own
                kept = replace(own, cached=True, seconds=0.0, docs=served.index)
                self._rankings.keep((each.edition, second, id), kept)
        return [_join(each, ready[each.query.id]) for each in firsts]

    def load_reranker(self, system: ServedSystem) -> Stage:
        """The reranking part of a system, its models loaded once."""
        second = system.second
        assert second is not None
        return self._rerankers.make(second.line, lambda: second.bind(OpenSite(unseen="keep"), 0))

    def find_kept(self, found: Found, ids: Sequence[str]) -> list[Item] | None:
        """The documents of a ranking, if all of them are kept."""
        held = [self._items.find((found.edition, id)) for id in ids]
        kept = [item for item in held if item is not None]
        return kept if len(kept) == len(ids) else None

    def fetch(self, found: Found, ids: Sequence[str]) -> list[Item]:
        """The documents of a ranking, as its edition has them."""
        held: dict[str, Item | None] = {id: self._items.find((found.edition, id)) for id in dict.fromkeys(ids)}
        if lacking := [id for id, item in held.items() if item is None]:
            for read in found.docs.get(lacking):
                held[read.id] = read
                if not isinstance(read.image, bytes) and not read.media and len(read.text or "") <= LARGEST:
                    self._items.keep((found.edition, read.id), read)
        return [item for id in ids if (item := held[id]) is not None]


def _weigh_item(item: Item) -> int:
    held = sum(len(each) for each in item.contents.values() if isinstance(each, bytes))
    return 500 + held + getsizeof(item.text) + len(repr(item.meta))


def _weigh_ranking(found: Found) -> int:
    hits = len(found.hits) + sum(len(each) for _, each in found.stages)
    return HIT * hits + sum(map(_weigh_item, (found.query, *(probe.item for probe in found.probes))))


def _list_stages(trace: Trace, query: str) -> tuple[tuple[str, tuple[Hit, ...]], ...]:
    return tuple((stage, hits[query]) for stage, hits in trace.rankings if query in hits)


def _join(first: Found, second: Found) -> Found:
    """A reranking after the search that it is of."""
    manifest = Manifest((*first.manifest.records, *second.manifest.records))
    return replace(second, docs=first.docs, manifest=manifest, stages=(*first.stages, *second.stages))


def measure_tokens(encoder: Any, texts: Sequence[str]) -> list[int]:
    """How many tokens each text has, without the special ones; words where the encoder does not say."""
    try:
        return [len(spans) for spans in encoder.token_spans(texts)]
    except (AttributeError, InputError):
        return [len(text.split()) for text in texts]
