"""What approximate search finds of what exact search finds: queries to measure with, recall, and plans."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import TypeVar

import numpy as np

from ...runs import Rankings
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
