"""The vectors of a space in memory: all that fit, or a part at a time; and the memory that there is for them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from heapq import nsmallest
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ...media.language_codes import find_language
from ...runs import Rankings, hits_of, pause_collector
from ..storage.card import Space
from ..storage.rows import view_halves
from ..storage.tables import Tables
from .base import MASKED, MASKS

if TYPE_CHECKING:
    from .searcher import FlatSearcher, Found, Searcher

S = TypeVar("S", bound="Searcher")


class LoadedSpace(Generic[S]):
    """A space in memory: a searcher, and `ids` (an object array) that name its rows; `tables` know filters.

    `langs` are where the rows of each language lie, side by side, of all.
    """

    def __init__(
        self, ids: Sequence[str] | np.ndarray, searcher: S, tables: Tables, langs: dict[str | None, slice] | None = None
    ) -> None:
        self.ids = np.array(ids, object)
        self.searcher = searcher
        # Not an lru_cache of a method: it would refer to itself, and hold what is discarded until garbage is collected.
        self._masks: dict[str, np.ndarray] = {}
        self._tables = tables
        self._langs = langs or {}

    @cached_property
    def rows(self) -> dict[str, int]:
        """The row of each id."""
        return {id: row for row, id in enumerate(self.ids.tolist())}

    def rank(self, queries: np.ndarray, k: int, condition: str | None) -> Rankings:
        """The nearest of each query by id, of rows that match an SQL condition; absent ones are left out."""
        return self._name(self.searcher.nearest(queries, k, self.mask(condition)))

    def rank_languages(
        self, queries: np.ndarray, k: int, condition: str | None, langs: Iterable[str | None]
    ) -> dict[str | None, Rankings]:
        """`rank` in each of some languages, and under None among the rows in no other."""
        return {
            lang: self._name(self.searcher.nearest(queries, k, mask))
            for lang, mask in self.split(self.mask(condition), langs).items()
        }

    def split(self, mask: np.ndarray | None, langs: Iterable[str | None]) -> dict[str | None, np.ndarray]:
        """The rows of a mask in each of some languages, and under None those in no other, as masks."""
        others = np.ones(len(self.ids), bool) if mask is None else mask.copy()
        masks: dict[str | None, np.ndarray] = {}
        for lang in langs:
            if lang is not None:
                mine = masks[lang] = np.zeros(len(self.ids), bool)
                rows = self._langs.get(lang, slice(0, 0))
                mine[rows] = others[rows]
                others[rows] = False
        return {**masks, None: others}

    def mask(self, condition: str | None) -> np.ndarray | None:
        """The rows that match a condition, as a mask bool [n]; None without one."""
        if condition is None:
            return None
        if (mask := self._masks.get(condition)) is None:
            mask = np.zeros(len(self.ids), bool)
            mask[[self.rows[id] for id in self._tables.list_ids(condition) if id in self.rows]] = True
            if len(self._masks) >= max(MASKS, MASKED // max(1, len(mask))):
                del self._masks[next(iter(self._masks))]
            self._masks[condition] = mask
        return mask

    @pause_collector()
    def _name(self, found: Found) -> Rankings:
        """Hits of rows int64 [q, k] and scores float32 [q, k], without those below row 0."""
        return [
            list[tuple[str, float]](hits_of(self.ids[mine[mine >= 0]].tolist(), theirs[mine >= 0].tolist()))
            for mine, theirs in zip(*found, strict=True)
        ]


def load_parts(
    tables: Tables, space: Space, corrected: bool, device: str, condition: str | None = None, most: int | None = None
) -> Iterator[LoadedSpace[FlatSearcher]]:
    """The vectors of a space, raw or corrected, of documents that match an SQL condition: as one, or `most` bytes each.

    Rows stand by language, the largest first and those without one last, and by id within each; equal scores by id.
    """
    name = space.corrected if corrected else space.column
    held = f"{name} IS NOT NULL" + (f" AND ({condition})" if condition else "")
    batches: list[pa.RecordBatch] = []
    rows = 0
    for batch in tables.scan(["id", "lang", name], held, table=tables.table_of(name)):
        batches.append(batch)
        rows += len(batch)
        if most is not None and rows * space.spec.dim * 4 >= most:
            yield _arrange(batches, space.spec.dim, device, tables)
            batches, rows = [], 0
    if batches or most is None:
        yield _arrange(batches, space.spec.dim, device, tables)


def _arrange(batches: list[pa.RecordBatch], dim: int, device: str, tables: Tables) -> LoadedSpace[FlatSearcher]:
    """What was read, in its order in memory; takes the batches out of the list, so that they are let go of."""
    from .searcher import FlatSearcher

    ids = pa.concat_arrays([batch.column(0) for batch in batches]) if batches else pa.array([], pa.string())
    by_id = pc.sort_indices(ids).to_numpy()
    langs, of = _find_languages([batch.column(1) for batch in batches])
    ranks = np.argsort(of[by_id], kind="stable")  # of the rows to come by id
    placed = by_id[ranks]  # where they stood when read
    places = np.empty(len(ids), np.int64)
    places[placed] = np.arange(len(ids))
    vectors = np.empty((len(ids), dim), np.float32)
    batches.reverse()
    start = 0
    while batches:
        halves = view_halves(batches.pop().column(2))
        vectors[places[start : start + len(halves)]] = halves
        start += len(halves)
    ends = np.cumsum(np.bincount(of, minlength=len(langs))).tolist()
    slices = {lang: slice(begin, end) for lang, begin, end in zip(langs, [0, *ends], ends, strict=False)}
    names = ids.take(pa.array(placed)).to_numpy(zero_copy_only=False)
    return LoadedSpace(names, FlatSearcher(vectors, device, ranks), tables, slices)


def _find_languages(columns: Sequence[pa.Array]) -> tuple[list[str | None], np.ndarray]:
    """The languages of documents, the largest first and None last; and which of them each has, as int64 [n]."""
    if not columns:
        return [], np.empty(0, np.int64)
    encoded = pa.concat_arrays(columns).dictionary_encode(null_encoding="encode")
    spelled = [find_language(each) for each in encoded.dictionary.to_pylist()]  # earlier versions stored what was given
    spellings = encoded.indices.to_numpy(zero_copy_only=False)
    counts = np.bincount(spellings, minlength=len(spelled)).tolist()
    sizes = {lang: sum(count for code, count in zip(spelled, counts, strict=True) if code == lang) for lang in spelled}
    langs = sorted(sizes, key=lambda lang: (lang is None, -sizes[lang], lang or ""))
    return langs, np.array([langs.index(each) for each in spelled])[spellings]


class BestHits:
    """The k best documents of each query, of those that were added so far."""

    def __init__(self, queries: int, k: int) -> None:
        self._k = k
        self._scores = np.full((queries, 0), -np.inf, np.float32)
        self._ids = np.zeros((queries, 0), dtype=object)

    def add(self, ids: np.ndarray, found: Found) -> None:
        """More documents: the `ids` of all, and rows int64 [q, c] of these with scores float32 [q, c], -1 for none."""
        rows, scores = found
        scores = np.concatenate([self._scores, scores], axis=1)
        named = np.concatenate([self._ids, ids[rows] if len(ids) else np.zeros(rows.shape, object)], axis=1)
        if scores.shape[1] > self._k:
            top = np.argpartition(-scores, self._k - 1, axis=1)[:, : self._k]
            _settle_ties(top, scores, named)
            scores, named = np.take_along_axis(scores, top, 1), np.take_along_axis(named, top, 1)
        self._scores, self._ids = scores, named

    @pause_collector()
    def rank(self) -> Rankings:
        """The hits of each query, best first."""
        order = np.argsort(-self._scores, axis=1, kind="stable")
        best, ids = np.take_along_axis(self._scores, order, 1), np.take_along_axis(self._ids, order, 1)
        counts = np.count_nonzero(best > -np.inf, axis=1).tolist()
        return [
            list[tuple[str, float]](hits_of(mine[:count], theirs[:count]))
            for mine, theirs, count in zip(ids.tolist(), best.tolist(), counts, strict=True)
        ]


def _settle_ties(top: np.ndarray, scores: np.ndarray, ids: np.ndarray) -> None:
    """Make `top`, the places of the k best scores [q, k], those with the lowest ids where more tie with the k-th."""
    k = top.shape[1]
    last = np.take_along_axis(scores, top, 1).min(axis=1)
    tied = (np.count_nonzero(scores >= last[:, None], axis=1) > k) & (last > -np.inf)
    for row in np.flatnonzero(tied):
        above = np.flatnonzero(scores[row] > last[row])
        equal = np.flatnonzero(scores[row] == last[row])
        top[row] = [*above, *nsmallest(k - len(above), equal, key=lambda place: ids[row, place])]


def measure_free_memory() -> int:
    """Bytes of memory that this process may still take; where the system does not say, half of the machine's."""
    try:
        listed = Path("/proc/meminfo").read_text(encoding="ascii")
        free = int(re.findall(r"^MemAvailable: *(\d+) kB$", listed, re.MULTILINE)[0]) * 1024
    except (OSError, IndexError):
        free = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    group = Path("/sys/fs/cgroup")  # of a container
    try:
        limit, used = (int((group / f"memory.{name}").read_text(encoding="ascii")) for name in ("max", "current"))
        cached = re.findall(r"^inactive_file (\d+)$", (group / "memory.stat").read_text(encoding="ascii"), re.MULTILINE)
        return min(free, max(0, limit - used + int(cached[0])))
    except (OSError, ValueError, IndexError):  # none, or one without a limit
        return free
