"""Exact search: all vectors in memory, one matrix product a block, on a GPU where there is one."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import Generic, Protocol, TypeVar

import numpy as np
import torch

from ...checkpoints.devices import is_out_of_memory, resolve_device
from ...errors import InputError, check_at_least
from ..storage.card import Recall, Space
from ..storage.storage import Storage
from ..storage.tables import Tables
from .base import MASKS, DenseKind, Rankings, SpaceQueries
from .recall import load_spaces

log = logging.getLogger("crosslens")

TOGETHER = 64  # queries a matrix product
BLOCK = {"cpu": 16384, "cuda": 65536, "mps": 65536}  # rows a product: on a CPU what stays in its cache
GROUP = 8  # rows that stand for one another when candidates are picked
MAXIMA = 32 << 20  # bytes that the best scores of all groups may take
THREADED_FROM = 32_768  # rows from which one query is worth several threads


class Searcher(Protocol):
    """Nearest neighbours by inner product among the rows of one space."""

    def nearest(self, queries: np.ndarray, k: int, allowed: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Rows int64 [q, k] and scores float32 [q, k], best first; -1 and -inf where there are fewer than k.

        `queries` is float32 [q, dim]; `allowed` is a boolean mask over the rows.
        """
        ...


S = TypeVar("S", bound=Searcher)


class FlatSearcher:
    """Exact nearest neighbours by inner product (a `Searcher`).

    `vectors` is float [n, dim], finite; float32 is used without a copy. It lies on `device` if that has room
    for it. Products are float32: equal to brute force up to float32 rounding, so that scores closer than that
    may change places. A query's scores do not depend on the others of its batch. Beside the vectors it needs
    some 50 MB.

    One block of rows at a time is multiplied with 64 queries, and of each group of 8 rows (more beyond a
    million) only the highest score is kept. The k best groups of a query hold its k best rows, which are then
    scored one by one.
    """

    def __init__(self, vectors: np.ndarray, device: str = "auto") -> None:
        if vectors.ndim != 2:
            raise ValueError(f"vectors of shape {vectors.shape}, not [n, dim]")
        self.vectors = np.require(vectors, np.float32, ["C", "W"])  # not to be written to
        self._rows = torch.from_numpy(self.vectors)
        wanted = resolve_device(device)
        if wanted.type != "cpu":
            try:
                self._rows = self._rows.to(wanted)
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                size = self.vectors.nbytes / 2**30
                log.warning("%s has no room for %.1f GiB of vectors: searching on the CPU", wanted, size)

    def nearest(self, queries: np.ndarray, k: int, allowed: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """As `Searcher.nearest`; of rows with equal scores the lower one comes first."""
        check_at_least(1, k=k)
        count, dim = self.vectors.shape
        queries = np.ascontiguousarray(queries, np.float32)
        if queries.ndim != 2 or queries.shape[1] != dim:
            raise ValueError(f"queries of shape {queries.shape} for vectors of {dim} dimensions")
        if allowed is not None and allowed.shape != (count,):
            raise ValueError(f"a mask of shape {allowed.shape} for {count} rows")
        chosen = None if allowed is None else np.flatnonzero(allowed)
        matching = count if chosen is None else len(chosen)
        rows = np.full((len(queries), k), -1, np.int64)
        scores = np.full((len(queries), k), -np.inf, np.float32)
        depth = min(k, matching)
        if depth == 0 or len(queries) == 0:
            return rows, scores
        with torch.inference_mode():
            for start in range(0, len(queries), TOGETHER):
                part = slice(start, min(start + TOGETHER, len(queries)))
                rows[part, :depth], scores[part, :depth] = self._nearest(queries[part], depth, chosen)
        return rows, scores

    def _nearest(self, queries: np.ndarray, k: int, chosen: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        """The same for up to 64 queries, with k rows there to find; `chosen` are the rows allowed, rising."""
        count = len(self.vectors) if chosen is None else len(chosen)
        if len(queries) == 1 and self._rows.device.type == "cpu":
            candidates, scores = self._search_one(queries[0], k, chosen)
        else:
            group = max(GROUP, -(-count * len(queries) * 4 // MAXIMA))
            group = 1 if 4 * k * group > count else group
            places = self._propose(queries, k, chosen, group).cpu().numpy()
            # The end of the last group is not there: its place is scored as the last row, and struck out.
            absent = places >= count
            places = np.minimum(places, count - 1)
            candidates = places if chosen is None else chosen[places]
            scores = self._score(queries, candidates)
            scores[absent] = -np.inf
        if candidates.shape[1] > k:
            best = np.argpartition(-scores, k - 1, axis=1)[:, :k]
            candidates, scores = np.take_along_axis(candidates, best, 1), np.take_along_axis(scores, best, 1)
        order = np.lexsort((candidates, -scores), axis=1)
        return np.take_along_axis(candidates, order, 1), np.take_along_axis(scores, order, 1)

    def _propose(self, queries: np.ndarray, k: int, chosen: np.ndarray | None, group: int) -> torch.Tensor:
        """Places (in `chosen`, or rows) of the k groups with the highest scores: int64 [q, k * group]."""
        device = self._rows.device
        turned = torch.from_numpy(queries).to(device).T
        count = len(self._rows) if chosen is None else len(chosen)
        groups = -(-count // group)
        maxima = torch.empty(groups, len(queries), device=device)
        size = BLOCK[device.type] // group * group
        buffer = torch.empty(min(size, groups * group), len(queries), device=device)
        wanted = None if chosen is None else torch.from_numpy(chosen).to(device)
        for start in range(0, count, size):
            part = slice(start, start + size)
            block = self._rows[part] if wanted is None else self._rows.index_select(0, wanted[part])
            length = -(-len(block) // group) * group
            torch.mm(block, turned, out=buffer[: len(block)])
            buffer[len(block) : length] = -torch.inf
            best = maxima[start // group : (start + length) // group]
            torch.amax(buffer[:length].view(-1, group, len(queries)), dim=1, out=best)
        top = maxima.T.contiguous().topk(min(k, groups), sorted=False).indices
        return (top[:, :, None] * group + torch.arange(group, device=device)).flatten(1)

    def _score(self, queries: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Inner products of each query with its own rows int64 [q, c]: float32 [q, c]."""
        scores = np.empty(rows.shape, np.float32)
        device = self._rows.device
        for query, mine, out in zip(queries, rows, scores, strict=True):
            if device.type == "cpu":
                np.vecdot(self.vectors[mine], query, out=out)
            else:
                block = self._rows[torch.from_numpy(mine).to(device)]
                out[:] = (block * torch.from_numpy(query).to(device)).sum(dim=1).cpu().numpy()
        return scores

    def _search_one(self, query: np.ndarray, k: int, chosen: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        """One query on a CPU: a dot product a row keeps up with memory, which matrix products do not."""
        block = self.vectors if chosen is None else self.vectors[chosen]
        scores = np.empty(len(block), np.float32)
        step = -(-len(block) // torch.get_num_threads()) if len(block) >= THREADED_FROM else len(block)

        def score_from(start: int) -> None:
            np.vecdot(block[start : start + step], query, out=scores[start : start + step])

        starts = range(0, len(block), step)
        if len(starts) == 1:
            score_from(0)
        else:
            with ThreadPoolExecutor(len(starts)) as pool:
                list(pool.map(score_from, starts))
        best = torch.from_numpy(scores).topk(k, sorted=False).indices.numpy()
        return (best if chosen is None else chosen[best])[None], scores[best][None]


class LoadedSpace(Generic[S]):
    """A space in memory: a searcher, and `ids` (an object array) that name its rows; `tables` know filters."""

    def __init__(self, ids: Sequence[str], searcher: S, tables: Tables) -> None:
        self.ids = np.array(ids, object)
        self.searcher = searcher
        # Not an lru_cache of a method: it would refer to itself, and hold what is discarded until garbage is collected.
        self._masks: dict[str, np.ndarray] = {}
        self._tables = tables

    @cached_property
    def rows(self) -> dict[str, int]:
        """The row of each id."""
        return {id: row for row, id in enumerate(self.ids.tolist())}

    def rank(self, queries: np.ndarray, k: int, condition: str | None) -> Rankings:
        """The nearest of each query by id, of rows that match an SQL condition; absent ones are left out."""
        return [
            list(zip(self.ids[mine[mine >= 0]].tolist(), theirs[mine >= 0].tolist(), strict=True))
            for mine, theirs in zip(*self.searcher.nearest(queries, k, self.mask(condition)), strict=True)
        ]

    def mask(self, condition: str | None) -> np.ndarray | None:
        """The rows that match a condition, as a mask bool [n]; None without one."""
        if condition is None:
            return None
        if (mask := self._masks.get(condition)) is None:
            mask = np.zeros(len(self.ids), bool)
            mask[[self.rows[id] for id in self._tables.list_ids(condition) if id in self.rows]] = True
            if len(self._masks) >= MASKS:
                del self._masks[next(iter(self._masks))]
            self._masks[condition] = mask
        return mask


class FlatKind(DenseKind):
    """Vectors are loaded once and searched exactly, on a GPU where there is one.

    For experiments: batches of queries run many times faster than from disk. Needs 4 bytes a dimension and vector.
    """

    writes = False

    def __init__(self, storage: Storage, device: str = "auto", detail: str = "") -> None:
        super().__init__(storage, device, detail)
        self._loaded: dict[tuple[str, bool], LoadedSpace[FlatSearcher]] = {}

    def build(self, ann: str) -> Recall:
        """Load the vectors; `ann` is `auto` or `none`, as search is exact."""
        return load_spaces(self, ann, "flat", lambda space: self.load(space, space.multilingual))

    def nearest(self, asked: SpaceQueries, k: int, condition: str | None, exact: bool) -> Rankings:
        return self.load(asked.space, asked.corrected).rank(asked.vectors, k, condition)

    def vectors(self, space: Space, ids: Sequence[str], corrected: bool) -> np.ndarray:
        if (loaded := self._loaded.get((space.fingerprint, corrected))) is None:
            return super().vectors(space, ids, corrected)  # a few, which are not worth loading all for
        rows = np.array([loaded.rows.get(id, -1) for id in ids], np.int64)
        found = np.full((len(ids), space.spec.dim), np.nan, np.float32)
        found[rows >= 0] = loaded.searcher.vectors[rows[rows >= 0]]
        return found

    def discard(self) -> None:
        self._loaded.clear()
        super().discard()

    def load(self, space: Space, corrected: bool) -> LoadedSpace[FlatSearcher]:
        """The vectors of a space in memory, raw or corrected: these are two sets."""
        key = (space.fingerprint, corrected)
        if key not in self._loaded:
            vectors = np.empty((space.count, space.spec.dim), np.float32)
            ids: list[str] = []
            for names, _, _, block in self.storage.tables.blocks(space, corrected):
                ids += names
                if len(ids) <= len(vectors):
                    vectors[len(ids) - len(names) : len(ids)] = block
            if len(ids) != len(vectors):
                raise InputError(f"{self.storage.path} has changed since it was opened: open it again")
            self._loaded[key] = LoadedSpace(ids, FlatSearcher(vectors, self.device), self.storage.tables)
        return self._loaded[key]
