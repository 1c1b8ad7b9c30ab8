"""Exact search: all vectors in memory, one matrix product a block, on a GPU where there is one."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import TYPE_CHECKING, Protocol, TypeVar

import numpy as np

from ...checkpoints.sharing import list_cores
from ...errors import check_at_least

if TYPE_CHECKING:
    import torch

log = logging.getLogger("crosslens")

T = TypeVar("T")
Rows = slice | np.ndarray  # of a space: those side by side, or their numbers, rising
Found = tuple[np.ndarray, np.ndarray]  # rows int64 [n] and their scores float32 [n]

TOGETHER = {"cpu": 256, "cuda": 64, "mps": 64}  # queries a matrix product, at most
BLOCK = {"cpu": 16384, "cuda": 65536, "mps": 65536}  # rows a product: on a CPU what stays in its cache
SCORED = 16384  # rows scored at a time
GATHERED = 2048  # rows of the same on a CPU: what stays in its cache
GROUP = 8  # rows that stand for one another when candidates are picked, at most, where memory allows
PICKED = 64  # times as many rows as are wanted: with more, the rows of groups that are picked cost little
MAXIMA = 64 << 20  # bytes that the best products of all groups may take
FEWEST = 128  # queries that are to fit into these: with more rows than that leaves room for, groups are larger
THREADED_FROM = 32_768  # rows from which one query is worth several threads
PICKED_FROM = 1 << 20  # products from which picking the best of each query is


class Searcher(Protocol):
    """Nearest neighbours by inner product among the rows of one space."""

    def nearest(self, queries: np.ndarray, k: int, allowed: np.ndarray | None = None) -> Found:
        """Rows int64 [q, k] and scores float32 [q, k], best first; -1 and -inf where there are fewer than k.

        `queries` is float32 [q, dim]; `allowed` is a boolean mask over the rows.
        """
        ...


class FlatSearcher:
    """Exact nearest neighbours by inner product (a `Searcher`).

    `vectors` is float [n, dim], finite; float32 is used without a copy. It lies on `device` if that has room
    for it. Scores are inner products in float32, taken row by row: equal rows have equal scores, whatever else
    is in the index or the batch. Of these the one with the lower rank comes first: `ranks` int [n], the order of the
    rows without. Beside the vectors it needs some 100 MB.

    One block of rows at a time is multiplied with up to 256 queries, and of each group of up to 8 rows (more beyond a
    million) only the highest product is kept. That of the k-th best group is no higher than the k-th best score, but
    for rounding: all rows of groups that reach it are scored one by one.
    """

    def __init__(self, vectors: np.ndarray, device: str = "auto", ranks: np.ndarray | None = None) -> None:
        if vectors.ndim != 2:
            raise ValueError(f"vectors of shape {vectors.shape}, not [n, dim]")
        self.vectors = np.require(vectors, np.float32, ["C", "W"])  # not to be written to
        self._ranks = ranks
        self._device = device

    @cached_property
    def _rows(self) -> torch.Tensor:
        """The vectors on the device."""
        import torch

        from ...checkpoints.devices import is_out_of_memory, resolve_device

        rows = torch.from_numpy(self.vectors)
        wanted = resolve_device(self._device)
        if wanted.type != "cpu":
            try:
                return rows.to(wanted)
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                size = self.vectors.nbytes / 2**30
                log.warning("%s has no room for %.1f GiB of vectors: searching on the CPU", wanted, size)
        return rows

    @property
    def _on_cpu(self) -> bool:
        """Whether it searches on a CPU."""
        return self._rows.device.type == "cpu"

    def nearest(self, queries: np.ndarray, k: int, allowed: np.ndarray | None = None) -> Found:
        """As `Searcher.nearest`; of rows with equal scores the lower one comes first, and is found at the cutoff.

        Rows that are allowed are read where they are if they lie side by side, and copied else.
        """
        check_at_least(1, k=k)
        count, dim = self.vectors.shape
        queries = np.ascontiguousarray(queries, np.float32)
        if queries.ndim != 2 or queries.shape[1] != dim:
            raise ValueError(f"queries of shape {queries.shape} for vectors of {dim} dimensions")
        if allowed is not None and allowed.shape != (count,):
            raise ValueError(f"a mask of shape {allowed.shape} for {count} rows")
        chosen = slice(0, count) if allowed is None else _list_rows(allowed)
        count = _count(chosen)
        rows = np.full((len(queries), k), -1, np.int64)
        scores = np.full((len(queries), k), -np.inf, np.float32)
        if (depth := min(k, count)) == 0:
            return rows, scores
        # As many rows a group as memory asks for, while groups stay far more than are wanted; else fewer queries.
        group = min(GROUP, count // (PICKED * depth))
        group = max(1, min(max(group, -(-count * FEWEST * 4 // MAXIMA)), count // (4 * depth)))
        most = TOGETHER[self._rows.device.type] if len(queries) > 1 else 1
        together = max(1, min(most, MAXIMA * group // (4 * count)))
        for start in range(0, len(queries), together):
            found = self._search(queries[start : start + together], depth, chosen, group)
            for place, (mine, theirs) in enumerate(found, start):
                rows[place, :depth], scores[place, :depth] = mine, theirs
        return rows, scores

    def _search(self, queries: np.ndarray, k: int, chosen: Rows, group: int) -> Iterable[Found]:
        """The same for a few queries, with k rows there to find: of each its k best, best first."""
        # A command that asks once and ends does without torch, which takes longer to import than to search.
        spared = "torch" not in sys.modules and self._device in ("auto", "cpu")
        if len(queries) == 1 and (spared or self._on_cpu):
            return [self._take_best(*self._score_all(queries[0], chosen, k), k)]
        maxima = self._find_maxima(queries, chosen, group)
        # Products and scores differ by rounding: a row of the k-th score may have a product so much below.
        slack = 2 * self._bound_rounding(queries)
        if not self._on_cpu:
            least = maxima.topk(k, dim=1, sorted=False).values.amin(1).cpu().numpy() - slack
            return self._search_on_device(queries, maxima, least, k, chosen, group)
        products, place = maxima.numpy(), maxima.shape[1] - k

        def search(query: int) -> Found:
            mine = products[query]
            least = np.partition(mine, place)[place] - slack[query]
            rows = _open_groups(np.flatnonzero(mine >= least), group, chosen)
            return self._take_best(rows, self._score(queries[query], rows), k)

        return _run_threaded(search, range(len(queries)), products.size >= PICKED_FROM)

    def _search_on_device(
        self, queries: np.ndarray, maxima: torch.Tensor, least: np.ndarray, k: int, chosen: Rows, group: int
    ) -> Iterator[Found]:
        """Of each query the best rows of groups whose highest product reaches `least` float32 [q]."""
        import torch

        reached = maxima >= torch.from_numpy(least).to(maxima.device)[:, None]
        of, groups = (each.cpu().numpy() for each in torch.nonzero(reached, as_tuple=True))
        parts = np.split(groups, np.searchsorted(of, np.arange(1, len(queries))))
        rows = [_open_groups(each, group, chosen) for each in parts]
        owners = np.repeat(np.arange(len(queries)), [len(each) for each in rows])
        scores = self._score_together(queries, owners, np.concatenate(rows))
        ends = np.searchsorted(owners, np.arange(1, len(queries)))
        for mine, theirs in zip(rows, np.split(scores, ends), strict=True):
            yield self._take_best(mine, theirs, k)

    def _take_best(self, rows: np.ndarray, scores: np.ndarray, k: int) -> Found:
        """The k best of some rows with their scores, best first."""
        if len(rows) > 2 * k:
            kept = scores >= np.partition(scores, len(rows) - k)[len(rows) - k]
            rows, scores = rows[kept], scores[kept]
        order = np.lexsort((rows if self._ranks is None else self._ranks[rows], -scores))[:k]
        return rows[order], scores[order]

    def _find_maxima(self, queries: np.ndarray, chosen: Rows, group: int) -> torch.Tensor:
        """The highest product of each group of rows with each query: float32 [q, groups]."""
        import torch

        device = self._rows.device
        asked = torch.from_numpy(queries).to(device)
        count = _count(chosen)
        maxima = torch.empty(len(queries), -(-count // group), device=device)
        size = BLOCK[device.type] // group * group
        buffer = torch.empty(min(size, maxima.shape[1] * group) if group > 1 else 0, len(queries), device=device)
        wanted = None if isinstance(chosen, slice) else torch.from_numpy(chosen).to(device)
        first = chosen.start if isinstance(chosen, slice) else 0
        for start in range(0, count, size):
            end = min(start + size, count)
            some = slice(first + start, first + end)
            block = self._rows[some] if wanted is None else self._rows.index_select(0, wanted[some])
            if group == 1:
                torch.mm(asked, block.T, out=maxima[:, start:end])
                continue
            length = -(-len(block) // group) * group
            torch.mm(block, asked.T, out=buffer[: len(block)])
            buffer[len(block) : length] = -torch.inf
            best = torch.amax(buffer[:length].view(-1, group, len(queries)), dim=1)
            maxima[:, start // group : (start + length) // group] = best.T
        return maxima

    def _bound_rounding(self, queries: np.ndarray) -> np.ndarray:
        """How far a product in a block and the score of the same row may lie apart: float32 [q]."""
        step = float(np.finfo(np.float32).eps) * self.vectors.shape[1] ** 0.5
        bound: np.ndarray = 2 * step * self._longest * np.linalg.norm(queries, axis=1)
        return bound

    @cached_property
    def _longest(self) -> float:
        """The length of the longest vector."""
        parts = (self.vectors[at : at + SCORED] for at in range(0, len(self.vectors), SCORED))
        return float(np.sqrt(max((np.vecdot(part, part).max() for part in parts), default=0.0)))

    def _score(self, query: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Inner products of a query with some rows: float32 [rows]."""
        scores = np.empty(len(rows), np.float32)
        for at in range(0, len(rows), GATHERED):
            some = slice(at, at + GATHERED)
            np.vecdot(self.vectors.take(rows[some], 0), query, out=scores[some])
        return scores

    def _score_together(self, queries: np.ndarray, owners: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Inner products of each row with its query, on a GPU, which takes less time for all than for each: float32.

        Always `SCORED` products at a time, padded: in how many parts a GPU adds up a row depends on the number of rows.
        """
        import torch

        device = self._rows.device
        asked = torch.from_numpy(queries).to(device)
        padded = np.zeros((2, -(-len(rows) // SCORED) * SCORED), np.int64)
        padded[:, : len(rows)] = owners, rows
        pairs = torch.from_numpy(padded).to(device).split(SCORED, dim=1)
        sums = [(self._rows[some] * asked[of]).sum(dim=1) for of, some in pairs]
        scores: np.ndarray = torch.cat(sums)[: len(rows)].cpu().numpy() if sums else np.empty(0, np.float32)
        return scores

    def _score_all(self, query: np.ndarray, chosen: Rows, k: int) -> Found:
        """One query on a CPU: a dot product a row keeps up with memory, which matrix products do not.

        The k best rows, and all that tie with the k-th.
        """
        block = self.vectors[chosen]
        scores = np.empty(len(block), np.float32)
        threaded = len(block) >= THREADED_FROM
        step = -(-len(block) // _count_threads()) if threaded else len(block)

        def score_from(start: int) -> None:
            np.vecdot(block[start : start + step], query, out=scores[start : start + step])

        _run_threaded(score_from, range(0, len(block), step), threaded)
        best = np.flatnonzero(scores >= np.partition(scores, len(scores) - k)[len(scores) - k])
        return _find_rows(best, chosen), scores[best]


def _run_threaded(work: Callable[[int], T], numbers: Sequence[int], threaded: bool) -> list[T]:
    """`work` for each of some numbers, by several threads if that is worth it: numpy computes outside Python's lock."""
    threads = min(_count_threads(), len(numbers)) if threaded else 1
    if threads == 1:
        return list(map(work, numbers))
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(work, numbers))


def _count_threads() -> int:
    """How many threads torch takes, or would."""
    if (loaded := sys.modules.get("torch")) is not None:
        return int(loaded.get_num_threads())
    given = os.environ.get("OMP_NUM_THREADS", "")
    return int(given) if given.isdecimal() and int(given) else len(list_cores())


def _list_rows(allowed: np.ndarray) -> Rows:
    """The rows of a mask."""
    rows = np.flatnonzero(allowed)
    side_by_side = len(rows) > 0 and rows[-1] - rows[0] + 1 == len(rows)
    return slice(int(rows[0]), int(rows[-1]) + 1) if side_by_side else rows


def _count(chosen: Rows) -> int:
    return int(chosen.stop - chosen.start) if isinstance(chosen, slice) else len(chosen)


def _find_rows(places: np.ndarray, chosen: Rows) -> np.ndarray:
    """The rows at some places among those chosen: int64 [n]."""
    rows: np.ndarray = places + chosen.start if isinstance(chosen, slice) else chosen[places]
    return rows


def _open_groups(groups: np.ndarray, group: int, chosen: Rows) -> np.ndarray:
    """The rows of some groups: int64 [n], rising as these do."""
    if group == 1:
        return _find_rows(groups, chosen)
    places = (groups[:, None] * group + np.arange(group)).reshape(-1)
    return _find_rows(places[places < _count(chosen)], chosen)
