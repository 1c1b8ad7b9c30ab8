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
from ...runs import Rankings
from ..storage.card import Recall, Space
from ..storage.storage import Storage
from ..storage.tables import Tables
from .base import MASKED, MASKS, DenseKind, SpaceQueries
from .recall import load_spaces

log = logging.getLogger("crosslens")

TOGETHER = 64  # queries a matrix product
BLOCK = {"cpu": 16384, "cuda": 65536, "mps": 65536}  # rows a product: on a CPU what stays in its cache
SCORED = 16384  # rows scored at a time
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
    for it. Scores are inner products in float32, taken row by row: equal rows have equal scores, whatever else
    is in the index or the batch. Beside the vectors it needs some 50 MB.

    One block of rows at a time is multiplied with 64 queries, and of each group of 8 rows (more beyond a
    million) only the highest score is kept. The k best groups of a query hold its k best rows, which are then
    scored one by one; so are the rows of further groups that may tie with the k-th but for rounding.
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
        """As `Searcher.nearest`; of rows with equal scores the lower one comes first, and is found at the cutoff."""
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
            tied: Sequence[int] = [0] if candidates.shape[1] > k else []
            more = {0: (candidates[0], scores[0])}
        else:
            group = max(GROUP, -(-count * len(queries) * 4 // MAXIMA))
            group = 1 if 4 * k * group > count else group
            maxima = self._find_maxima(queries, chosen, group)
            top = maxima.T.contiguous().topk(min(k + 1, len(maxima)), sorted=True)
            candidates = self._list_rows(top.indices[:, :k].cpu().numpy(), group, chosen)
            scores = self._score(queries, candidates)
            scores[candidates < 0] = -np.inf
            last = -np.partition(-scores, k - 1, axis=1)[:, k - 1]
            # Products and scores differ by rounding; so the next group may hold a row that is as good.
            near = last - self._bound_rounding(queries)
            reaching = np.count_nonzero(scores >= last[:, None], axis=1) > k
            if len(maxima) > k:
                reaching |= top.values[:, k].cpu().numpy() >= near
            tied = np.flatnonzero(reaching).tolist()
            more = {row: self._search_groups(queries[row], maxima[:, row], near[row], group, chosen) for row in tied}
        best = np.argpartition(-scores, k - 1, axis=1)[:, :k]
        rows, values = np.take_along_axis(candidates, best, 1), np.take_along_axis(scores, best, 1)
        for row in tied:
            found, theirs = more[row]
            order = np.lexsort((found, -theirs))[:k]
            rows[row], values[row] = found[order], theirs[order]
        order = np.lexsort((rows, -values), axis=1)
        return np.take_along_axis(rows, order, 1), np.take_along_axis(values, order, 1)

    def _find_maxima(self, queries: np.ndarray, chosen: np.ndarray | None, group: int) -> torch.Tensor:
        """The highest product of each group of rows with each query: float32 [groups, q]."""
        device = self._rows.device
        turned = torch.from_numpy(queries).to(device).T
        count = len(self._rows) if chosen is None else len(chosen)
        maxima = torch.empty(-(-count // group), len(queries), device=device)
        size = BLOCK[device.type] // group * group
        buffer = torch.empty(min(size, len(maxima) * group), len(queries), device=device)
        wanted = None if chosen is None else torch.from_numpy(chosen).to(device)
        for start in range(0, count, size):
            part = slice(start, start + size)
            block = self._rows[part] if wanted is None else self._rows.index_select(0, wanted[part])
            length = -(-len(block) // group) * group
            torch.mm(block, turned, out=buffer[: len(block)])
            buffer[len(block) : length] = -torch.inf
            best = maxima[start // group : (start + length) // group]
            torch.amax(buffer[:length].view(-1, group, len(queries)), dim=1, out=best)
        return maxima

    def _list_rows(self, groups: np.ndarray, group: int, chosen: np.ndarray | None) -> np.ndarray:
        """The rows of groups int64 [..., g]: int64 [..., g * group]; -1 beyond the end of the last group."""
        places = (groups[..., None] * group + np.arange(group)).reshape(*groups.shape[:-1], -1)
        count = len(self.vectors) if chosen is None else len(chosen)
        rows = places if chosen is None else chosen[np.minimum(places, count - 1)]
        return np.where(places < count, rows, -1)

    def _search_groups(
        self, query: np.ndarray, maxima: torch.Tensor, least: float, group: int, chosen: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """The rows of all groups whose highest product is at `least` that, and their scores."""
        rows = self._list_rows(torch.nonzero(maxima >= float(least))[:, 0].cpu().numpy(), group, chosen)
        rows = rows[rows >= 0]
        parts = [self._score(query[None], part[None])[0] for part in np.split(rows, range(SCORED, len(rows), SCORED))]
        return rows, np.concatenate(parts)

    def _bound_rounding(self, queries: np.ndarray) -> np.ndarray:
        """How far a product in a block and the score of the same row may lie apart: float32 [q]."""
        step = np.finfo(np.float32).eps * np.sqrt(self.vectors.shape[1])
        bound: np.ndarray = 2 * step * self._longest * np.linalg.norm(queries, axis=1)
        return bound

    @cached_property
    def _longest(self) -> float:
        """The length of the longest vector."""
        return max(
            (
                float(np.linalg.norm(self.vectors[at : at + SCORED], axis=1).max())
                for at in range(0, len(self.vectors), SCORED)
            ),
            default=0.0,
        )

    def _score(self, queries: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Inner products of each query with its own rows int64 [q, c]: float32 [q, c]."""
        if self._rows.device.type != "cpu":
            return self._score_together(queries, rows)
        scores = np.empty(rows.shape, np.float32)
        for query, mine, out in zip(queries, rows, scores, strict=True):
            np.vecdot(self.vectors[mine], query, out=out)
        return scores

    def _score_together(self, queries: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """The same on a GPU, which would take longer to be asked for each query than to compute for all.

        Always `SCORED` products at a time, padded: in how many parts a GPU adds up a row depends on the number of rows.
        """
        device = self._rows.device
        asked, wanted = torch.from_numpy(queries).to(device), torch.from_numpy(rows.reshape(-1)).to(device)
        padded = torch.zeros(-(-len(wanted) // SCORED) * SCORED, dtype=torch.long, device=device)
        padded[: len(wanted)] = wanted
        owners = (torch.arange(len(padded), device=device) // max(rows.shape[1], 1)).clamp_(max=len(queries) - 1)
        parts = zip(padded.split(SCORED), owners.split(SCORED), strict=True)
        sums = [(self._rows[some] * asked[of]).sum(dim=1) for some, of in parts]
        scores: np.ndarray = (
            torch.cat(sums)[: len(wanted)].view(rows.shape).cpu().numpy() if sums else np.empty(rows.shape)
        )
        return scores.astype(np.float32, copy=False)

    def _search_one(self, query: np.ndarray, k: int, chosen: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        """One query on a CPU: a dot product a row keeps up with memory, which matrix products do not.

        The k best rows, and all that tie with the k-th.
        """
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
        top = torch.from_numpy(scores).topk(k, sorted=False)
        best = top.indices.numpy()
        if np.count_nonzero(scores >= (last := top.values.numpy().min())) > k:
            best = np.flatnonzero(scores >= last)
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
            if len(self._masks) >= max(MASKS, MASKED // max(1, len(mask))):
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
        """The vectors of a space in memory, raw or corrected: these are two sets.

        They stand in the order of their ids, since the searcher breaks ties by row.
        """
        key = (space.fingerprint, corrected)
        if key not in self._loaded:
            ids = sorted(self.storage.tables.list_ids(f"{space.column} IS NOT NULL"))
            rows = {id: row for row, id in enumerate(ids)}
            vectors = np.empty((len(ids), space.spec.dim), np.float32)
            read = 0
            for names, _, _, block in self.storage.tables.blocks(space, corrected):
                places = [rows[name] for name in names if name in rows]
                read += len(names)
                if len(places) == len(names):
                    vectors[places] = block
            if not len(ids) == read == space.count:
                raise InputError(f"{self.storage.path} has changed since it was opened: open it again")
            self._loaded[key] = LoadedSpace(ids, FlatSearcher(vectors, self.device), self.storage.tables)
        return self._loaded[key]
