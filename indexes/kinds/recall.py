"""What approximate search finds of what exact search finds: exact search itself, queries to measure with, recall."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from heapq import nsmallest
from typing import Any, TypeVar

import numpy as np

from ...items import group_positions
from ...runs import Rankings, hits_of, pause_collector
from ..products import multiply_rows
from ..storage.card import Ann, Card, Recall, Space
from ..storage.tables import Tables
from .base import Kind

T = TypeVar("T")

# recall@10 that the probes are raised to: above the 0.95 asked for, as it is itself an estimate
ENOUGH = 0.97
QUERIES = 100
CUTOFFS = (10, 100)
DEPTH = 2 * CUTOFFS[-1]  # of exact search: twice as deep, so that what ties with the last of the best is known
# How far a query is from the stored vector that it is made from: a cosine of about 0.9, as between a question
# and its answer.
NOISE = 0.5
FILTER_KEEPS = 0.05
TIE = 1e-4  # float16 rows are not quite of length 1, so cosine and inner product differ in the fifth digit
# Ids, languages, modalities and vectors, a block at a time.
Scanned = Iterable[tuple[list[str], Sequence[str | None], Any, np.ndarray]]


@pause_collector()
def scan_blocks(blocks: Scanned, vectors: np.ndarray, k: int) -> Rankings:
    """Exact search of many queries in one pass over the vectors: one matrix product a block; best first.

    Equal vectors have equal scores. Of documents that tie with the k-th the ones with the lowest ids are found.
    """
    best = _Best(len(vectors), k)
    for names, _, scores in _multiply(blocks, vectors):
        best.add(names, scores)
    return best.rank()


@pause_collector()
def scan_languages(
    blocks: Scanned, vectors: np.ndarray, k: int, langs: Iterable[str | None]
) -> dict[str | None, Rankings]:
    """`scan_blocks` for each of some languages, in one pass over all; under None for the documents in no other."""
    best = {lang: _Best(len(vectors), k) for lang in langs}
    for names, codes, scores in _multiply(blocks, vectors):
        for lang, rows in group_positions(code if code in best else None for code in codes).items():
            best[lang].add(names[rows], scores[:, rows])
    return {lang: each.rank() for lang, each in best.items()}


def _multiply(blocks: Scanned, vectors: np.ndarray) -> Iterator[tuple[np.ndarray, Sequence[str | None], np.ndarray]]:
    """Of each block the ids [n], the languages, and the scores float32 [q, n]."""
    import torch

    turned = torch.from_numpy(np.ascontiguousarray(vectors, np.float32)).T
    for names, langs, _, block in blocks:
        yield np.array(names, object), langs, multiply_rows(torch.from_numpy(block), turned, by_query=True).T.numpy()


class _Best:
    """The k best documents of each query, of those that were added so far."""

    def __init__(self, queries: int, k: int) -> None:
        self._k = k
        self._scores = np.full((queries, 0), -np.inf, np.float32)
        self._ids = np.zeros((queries, 0), dtype=object)

    def add(self, listed: np.ndarray, scores: np.ndarray) -> None:
        """More documents: their ids [n], and their scores float32 [q, n]."""
        k, best, ids = self._k, self._scores, self._ids
        better, named = scores, np.broadcast_to(listed, scores.shape)
        if best.shape[1] == k:
            # Hardly any document of a later block reaches the k-th before it: only those are looked at.
            rows, columns = np.nonzero(scores >= best.min(axis=1)[:, None])
            counts = np.bincount(rows, minlength=len(scores))
            places = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
            better = np.full((len(scores), counts.max(initial=0)), -np.inf, np.float32)
            better[rows, places] = scores[rows, columns]
            named = np.full(better.shape, None, dtype=object)
            named[rows, places] = listed[columns]
        best, ids = np.concatenate([best, better], axis=1), np.concatenate([ids, named], axis=1)
        if best.shape[1] > k:
            top = np.argpartition(-best, k - 1, axis=1)[:, :k]
            _settle_ties(top, best, ids)
            best, ids = np.take_along_axis(best, top, 1), np.take_along_axis(ids, top, 1)
        self._scores, self._ids = best, ids

    def rank(self) -> Rankings:
        """The hits of each query, best first."""
        order = np.argsort(-self._scores, axis=1, kind="stable")
        best, ids = np.take_along_axis(self._scores, order, 1), np.take_along_axis(self._ids, order, 1)
        return [list[tuple[str, float]](hits_of(*each)) for each in zip(ids.tolist(), best.tolist(), strict=True)]


def _settle_ties(top: np.ndarray, scores: np.ndarray, ids: np.ndarray) -> None:
    """Make `top`, the places of the k best scores [q, k], those with the lowest ids where more tie with the k-th."""
    k = top.shape[1]
    last = np.take_along_axis(scores, top, 1).min(axis=1)
    for row in np.flatnonzero(np.count_nonzero(scores >= last[:, None], axis=1) > k):
        above = np.flatnonzero(scores[row] > last[row])
        tied = np.flatnonzero(scores[row] == last[row])
        top[row] = [*above, *nsmallest(k - len(above), tied, key=lambda place: ids[row, place])]


def pick_evenly(stream: Iterable[T], count: int, most: int) -> Iterator[T]:
    """Up to `most` of the `count` elements of a stream, evenly spaced, the first and the last among them."""
    wanted = set(np.linspace(0, count - 1, min(count, most)).astype(int).tolist())
    return (each for place, each in enumerate(stream) if place in wanted)


def perturb_vectors(tables: Tables, space: Space, corrected: bool) -> np.ndarray:
    """Up to 100 stored vectors, evenly spaced, with noise that is always the same: float32 [q, dim]."""
    stored = (vector for _, _, _, block in tables.blocks(space, corrected) for vector in block)
    # Copies, as a view would keep its whole block in memory.
    vectors = np.stack([each.copy() for each in pick_evenly(stored, space.count, QUERIES)])
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    noise = np.random.default_rng(0).standard_normal(vectors.shape) / np.sqrt(vectors.shape[1])
    noisy = vectors + NOISE * lengths * noise
    return (noisy * lengths / np.maximum(np.linalg.norm(noisy, axis=1, keepdims=True), 1e-9)).astype(np.float32)


def measure_recall(found: Rankings, truth: Rankings, cutoff: int) -> float:
    """Recall of the best `cutoff` in 0..1, by the exact scores in `truth`; any that ties with the last will do.

    `truth` is best first, and deeper than the cutoff where there may be ties.
    """
    shares = []
    for mine, best in zip(found, truth, strict=True):
        if wanted := best[:cutoff]:
            last = wanted[-1][1]
            better = {id for id, score in best if score > last + TIE}
            tied = {id for id, score in best if abs(score - last) <= TIE}
            ids = {id for id, _ in mine[:cutoff]}
            shares.append((len(ids & better) + min(len(ids & tied), len(wanted) - len(better))) / len(wanted))
    return round(float(np.mean(shares)), 4) if shares else 1.0


def tune_plan(plans: Iterable[Ann], search: Callable[[Ann, int], Rankings], truth: Rankings, same: float = 0.0) -> Ann:
    """The first of `plans`, from the least to the most work, that finds enough, with the recall that it has.

    `search` finds so many best by a plan, and `truth` has what exact search finds. Where none finds enough, the first
    that finds as much as the last; recall that is `same` counts as equal.
    """
    tried: list[tuple[Ann, float]] = []
    for plan in plans:
        tried.append((plan, measure_recall(search(plan, CUTOFFS[0]), truth, CUTOFFS[0])))
        if tried[-1][1] >= ENOUGH:
            break
    enough = min(tried[-1][1], ENOUGH) - same
    best = next(plan for plan, recall in tried if recall >= enough)
    return replace(best, recall={k: measure_recall(search(best, k), truth, k) for k in CUTOFFS})


def double_up(first: int, last: int) -> list[int]:
    """`first`, twice that, and so on, ending with `last`."""
    steps = [first]
    while steps[-1] < last:
        steps.append(min(last, 2 * steps[-1]))
    return steps


def choose_filter(card: Card) -> tuple[str, float] | None:
    """The language that keeps about 5% of the documents, and its share, to measure filtered search with."""
    if not card.langs:
        return None
    shares = {lang: count / card.documents for lang, count in card.langs.items()}
    lang = min(shares, key=lambda each: (abs(shares[each] - FILTER_KEEPS), each))
    return lang, round(shares[lang], 4)


def build_spaces(kind: Kind, ann: str, choose: Callable[[Space], str], make: Callable[[Space, str], Ann]) -> Recall:
    """Make an approximate index of each space, and note its plan on the card; returns the lowest recall of them.

    It is of the kind `ann`, for `auto` of that which `choose` names; `none` is exact search.
    """
    started = time.perf_counter()
    kind.discard()
    for space in kind.storage.card.spaces:
        if (chosen := choose(space) if ann == "auto" else ann) != "none" and space.count:
            begun = time.perf_counter()
            space.ann = make(space, chosen)
            space.ann.seconds = round(time.perf_counter() - begun, 3)
    plans = [space.ann for space in kind.storage.card.spaces if space.ann is not None]
    if not plans:
        return _report_exact("flat", started)
    lowest = {cutoff: min(plan.recall[cutoff] for plan in plans) for cutoff in CUTOFFS}
    kinds = "+".join(dict.fromkeys(plan.kind for plan in plans))
    seconds = round(time.perf_counter() - started, 3)
    return Recall(kinds, min(plan.queries for plan in plans), lowest, seconds)


def _report_exact(name: str, started: float) -> Recall:
    """The recall of exact search, made ready since `started` by `time.perf_counter`."""
    return Recall(name, 0, dict.fromkeys(CUTOFFS, 1.0), round(time.perf_counter() - started, 3))


def load_spaces(kind: Kind, ann: str, built: str, load: Callable[[Space], object]) -> Recall:
    """Load each space of a kind that searches exactly; `InputError` unless `ann` is what it can build."""
    kind.check_ann(kind.storage.card.kind, ann)
    started = time.perf_counter()
    for space in kind.storage.card.spaces:
        load(space)
    return _report_exact(built, started)
