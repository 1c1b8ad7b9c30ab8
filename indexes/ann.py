"""Approximate search in a Lance vector column: building it, probes by measured recall, and asking it."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from lancedb.index import HnswSq, IvfFlat, IvfPq, IvfRq

from ..errors import InputError, unknown_name
from ..runs import hits_of, uncollected
from .base import Recall
from .card import Ann, Space
from .table import Tables, failing, where_sql

if TYPE_CHECKING:
    from .lance import Found, LanceIndex

AUTO_FROM = 50_000  # vectors; below, exact search is as fast
KINDS = {"IVF_FLAT": IvfFlat, "IVF_RQ": IvfRq, "IVF_PQ": IvfPq, "IVF_HNSW_SQ": HnswSq}
ENOUGH = (
    0.97  # recall@10 that the probes are raised to: above the 0.95 asked for, as it is itself an estimate
)
QUERIES = 100
CUTOFFS = (10, 100)
# How far a query is from the stored vector that it is made from: a cosine of about 0.9, as between a question
# and its answer.
NOISE = 0.5
PROBES = 20
REFINE = 10
FILTER_KEEPS = 0.05
TIE = 1e-4  # float16 rows are not quite of length 1, so cosine and inner product differ in the fifth digit
BATCH = 64


def build(index: LanceIndex, kind: str) -> Recall:
    """Index each space of a Lance index, note the plan on its card, and return the lowest recall of them."""
    started = time.perf_counter()
    if kind not in ("auto", "none", *KINDS):
        raise unknown_name(kind, ("auto", "none", *KINDS), "kind of approximate index")
    for space in index.card.spaces:
        space.ann = None
        count = sum(space.counts.values())
        chosen = kind
        if kind == "auto":
            small, odd = count < AUTO_FROM, space.spec.dim % 8
            chosen = "none" if small else "IVF_FLAT" if odd else "IVF_RQ"
        drop(index._tables, space)
        if chosen != "none" and count:
            space.ann = _built(index, space, chosen)
    plans = [space.ann for space in index.card.spaces if space.ann is not None]
    seconds = round(time.perf_counter() - started, 3)
    if not plans:
        # Exact search finds what exact search finds.
        return Recall("flat", 0, dict.fromkeys(CUTOFFS, 1.0), seconds)
    lowest = {cutoff: min(plan.recall[cutoff] for plan in plans) for cutoff in CUTOFFS}
    return Recall("+".join(dict.fromkeys(plan.kind for plan in plans)), QUERIES, lowest, seconds)


def drop(tables: Tables, space: Space) -> None:
    """Remove the approximate indexes of a space."""
    for name in (space.column, space.corrected):
        if name == space.corrected and not space.multilingual:
            continue
        table = tables.holding(name)
        for each in table.list_indices():
            if name in each.columns:
                table.drop_index(each.name)


def search(
    tables: Tables,
    space: Space,
    vectors: np.ndarray,
    k: int,
    condition: str | None,
    corrected: bool,
    plan: Ann | None,
) -> Found:
    """LanceDB's search, approximate by `plan`, exact without: for each vector k ids and inner products."""
    name = space.corrected if corrected else space.column
    table = tables.holding(name)
    found: Found = [[] for _ in vectors]
    for start in range(0, len(vectors), BATCH):
        part = vectors[start : start + BATCH]
        with failing("read", tables.where):
            query = table.search(list(part), vector_column_name=name).limit(k)
            query = query.select(["id", "_distance", *(["query_index"] if len(part) > 1 else [])])
            query = query.where(condition) if condition else query
            if plan is None:
                query = query.distance_type("dot").bypass_vector_index()
            else:
                query = query.distance_type(metric(space, corrected))
                query = query.nprobes(plan.filtered_probes if condition else plan.probes)
                query = query.refine_factor(plan.refine)
                if plan.kind == "IVF_HNSW_SQ":
                    query = query.ef(max(200, 2 * k * plan.refine))
            hits = query.to_arrow()
        rows = hits["query_index"].to_pylist() if len(part) > 1 else [0] * len(hits)
        distances = hits["_distance"].to_pylist()
        for row, doc, distance in zip(rows, hits["id"].to_pylist(), distances, strict=True):
            found[start + row].append((doc, 1.0 - distance))
    return found


def metric(space: Space, corrected: bool) -> str:
    """The metric of an approximate index.

    Cosine wherever vectors have length 1: with `dot`, LanceDB 0.40 misses a few even when it probes all
    partitions.
    """
    return "cosine" if corrected or space.spec.normalized else "dot"


@uncollected()
def scan(blocks: Iterable[tuple[list[str], Any, Any, np.ndarray]], vectors: np.ndarray, k: int) -> Found:
    """Exact search of many queries in one pass over the vectors: one matrix product a block; best first."""
    best = np.full((len(vectors), 0), -np.inf, np.float32)
    ids = np.zeros((len(vectors), 0), dtype=object)
    for names, _, _, block in blocks:
        scores = vectors @ block.T
        listed = np.array(names, object)
        better, named = scores, np.broadcast_to(listed, scores.shape)
        if best.shape[1] == k:
            # Hardly any document of a later block is better than the k-th before it: only those are looked at.
            rows, columns = np.nonzero(scores > best.min(axis=1)[:, None])
            counts = np.bincount(rows, minlength=len(vectors))
            places = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
            better = np.full((len(vectors), counts.max(initial=0)), -np.inf, np.float32)
            better[rows, places] = scores[rows, columns]
            named = np.full(better.shape, None, dtype=object)
            named[rows, places] = listed[columns]
        best, ids = np.concatenate([best, better], axis=1), np.concatenate([ids, named], axis=1)
        if best.shape[1] > k:
            top = np.argpartition(-best, k - 1, axis=1)[:, :k]
            best, ids = np.take_along_axis(best, top, 1), np.take_along_axis(ids, top, 1)
    order = np.argsort(-best, axis=1, kind="stable")
    best, ids = np.take_along_axis(best, order, 1), np.take_along_axis(ids, order, 1)
    return [list[tuple[str, float]](hits_of(*each)) for each in zip(ids.tolist(), best.tolist(), strict=True)]


def perturbed(tables: Tables, space: Space, corrected: bool, count: int) -> np.ndarray:
    """Up to 100 stored vectors, evenly spaced, with noise that is always the same: float32 [q, dim]."""
    wanted = set(np.linspace(0, count - 1, min(count, QUERIES)).astype(int).tolist())
    picked: list[np.ndarray] = []
    row = 0
    for _, _, _, block in tables.blocks(space, corrected):
        picked += [block[each - row] for each in range(row, row + len(block)) if each in wanted]
        row += len(block)
    vectors = np.stack(picked)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    noise = np.random.default_rng(0).standard_normal(vectors.shape) / np.sqrt(vectors.shape[1])
    noisy = vectors + NOISE * lengths * noise
    return (noisy * lengths / np.maximum(np.linalg.norm(noisy, axis=1, keepdims=True), 1e-9)).astype(
        np.float32
    )


def recall(approximate: Found, exact: Found, cutoff: int) -> float:
    """The share of the exact best `cutoff` that was found; one that ties with the last of them counts."""
    shares = []
    for found, wanted in zip(approximate, exact, strict=True):
        wanted = sorted(wanted, key=lambda hit: -hit[1])[:cutoff]
        if wanted:
            floor = wanted[-1][1] - TIE
            best = sorted(found, key=lambda hit: -hit[1])[:cutoff]
            shares.append(sum(score >= floor for _, score in best) / len(wanted))
    return round(float(np.mean(shares)), 4) if shares else 1.0


def _built(index: LanceIndex, space: Space, kind: str) -> Ann:
    started = time.perf_counter()
    tables, corrected = index._tables, space.multilingual
    name = space.corrected if corrected else space.column
    count = sum(space.counts.values())
    if count < 256:
        raise InputError(f"{count} vectors are too few for {kind} (256 are needed): build with ann none")
    with failing("write", tables.where):
        tables.holding(name).create_index(
            name, config=KINDS[kind](distance_type=metric(space, corrected)), replace=True
        )
    tables.settle()
    queries = perturbed(tables, space, corrected, count)
    # LanceDB makes fewer partitions than this, so that the last step asks every one of them.
    steps = _doubled(PROBES, max(PROBES, int(np.sqrt(count)) + 1))

    def tuned(condition: str | None, pairs: Sequence[tuple[int, int]]) -> tuple[int, int, dict[int, float]]:
        """The first probes and refine factor that find enough, else the last, with the recall they have."""
        truth = scan(tables.blocks(space, corrected, condition), queries, max(CUTOFFS))

        def measured(cutoff: int, probes: int, refine: int) -> float:
            plan = Ann(kind, probes, probes, refine)
            found = search(tables, space, queries, cutoff, condition, corrected, plan)
            return recall(found, truth, cutoff)

        enough = (pair for pair in pairs if measured(CUTOFFS[0], *pair) >= ENOUGH)
        probes, refine = next(enough, pairs[-1])
        return probes, refine, {cutoff: measured(cutoff, probes, refine) for cutoff in CUTOFFS}

    most = REFINE * 5 if kind in ("IVF_RQ", "IVF_PQ") else REFINE  # codes of few bits need more candidates
    pairs = [(PROBES, REFINE)] * (most > REFINE) + [(probes, most) for probes in steps]
    probes, refine, at = tuned(None, pairs)
    plan = Ann(kind, probes, min(steps[-1], 4 * probes), refine, at, queries=len(queries))
    if langs := index.langs:
        total = index.card.documents
        lang = min(langs, key=lambda each: (abs(langs[each] / total - FILTER_KEEPS), each))
        more = [(probes, refine) for probes in _doubled(plan.filtered_probes, steps[-1])]
        plan.filtered_probes, _, at = tuned(where_sql({"lang": lang}, ()), more)
        plan.filtered, plan.kept = at[CUTOFFS[0]], round(langs[lang] / total, 4)
    plan.seconds = round(time.perf_counter() - started, 3)
    return plan


def _doubled(first: int, last: int) -> list[int]:
    """`first`, twice that, and so on, ending with `last`."""
    steps = [first]
    while steps[-1] < last:
        steps.append(min(last, 2 * steps[-1]))
    return steps
