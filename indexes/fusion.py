"""Rankings put into one: of several spaces by their z-scores, and of dense search and full text by language."""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence, Set
from typing import Any

import numpy as np

from ..items import windows
from ..pipeline import reciprocal_ranks
from ..runs import Hit, Rankings, rank_hits
from .kinds.base import SpaceQueries
from .kinds.dense import DenseKind
from .products import multiply_rows
from .statistics import SpaceStatistics
from .storage.card import Space
from .storage.filters import Where, join_conditions, list_modalities, list_values, match_modalities

HEAD = 50  # places whose documents do not depend on how many are asked for
RESCORED = 20_000  # candidates whose vectors are fetched at a time
# Standard deviations for each unit of a name's idf. Of 0.1, 0.2, 0.3, 0.5, 0.7, 1 and 1.5 the highest that loses
# nothing with e5-small or use-m3 on the dev halves of LibreOffice's help and Debian's descriptions
# (benchmarks/hybrid.py).
LIFT = 0.5

# Several spaces, or texts and pictures in one


def fuse_spaces(
    kind: DenseKind, statistics: SpaceStatistics, asked: Sequence[SpaceQueries], found: Sequence[Rankings], queries: int
) -> Rankings:
    """Candidates of all spaces, or of several modalities in one, under the mean of their exact z-scores.

    `found` has the candidates of the queries of each space of `asked`, of a batch of so many `queries`.
    """
    pools: list[dict[str, None]] = [{} for _ in range(queries)]
    for each, lists in zip(asked, found, strict=True):
        for row, ranking in zip(each.rows, lists, strict=True):
            pools[row].update((doc, None) for doc, _ in ranking)
    rankings: Rankings = []
    for rows in windows(range(queries), max(1, RESCORED // max(1, *map(len, pools)))):
        part = [each.select(rows) for each in asked]
        rankings += _rescore(kind, statistics, part, [pools[row] for row in rows])
    return rankings


def split_modalities(space: Space, where: Where | None, condition: str | None) -> list[str | None]:
    """A filter, and the same as SQL, split into one condition for each kind of document that a space has."""
    known = list_modalities()
    wanted = list(map(str, list_values(where, "modality")))
    # A value that is no modality is one of metadata.
    wanted = wanted if wanted and set(wanted) <= set(known) else known
    groups = [[each for each in wanted if space.reads(each) == read] for read in space.counts]
    if len(groups) < 2:
        return [condition]
    return [join_conditions(condition, match_modalities(group)) for group in groups if group]


def _rescore(
    kind: DenseKind, statistics: SpaceStatistics, asked: Sequence[SpaceQueries], pools: Sequence[Iterable[str]]
) -> Rankings:
    """Each query's pool of documents with their fused scores."""
    import torch

    ids = sorted({doc for pool in pools for doc in pool})
    places = {doc: place for place, doc in enumerate(ids)}
    modalities = kind.storage.tables.read_column("modality", ids)
    scores = np.full((len(asked), len(pools), len(ids)), np.nan, np.float32)
    for layer, each in zip(scores, asked, strict=True):
        if not each.rows or not ids:
            continue
        space = each.space
        vectors = torch.from_numpy(kind.vectors(space, ids, each.corrected))
        products = multiply_rows(vectors, torch.from_numpy(np.ascontiguousarray(each.vectors)).T, True).T.numpy()
        read = np.array(space.read_all(modalities))
        for group in space.counts:
            mean, deviation = statistics.get(space).background(each.vectors, group, each.corrected)
            columns = np.flatnonzero(read == group)
            z = (products[:, columns] - mean[:, None]) / deviation[:, None]
            layer[np.ix_(np.array(each.rows), columns)] = z
    fused = (average_scores(scores[:, row, [places[doc] for doc in pool]]) for row, pool in enumerate(pools))
    return [list(zip(pool, values.tolist(), strict=True)) for pool, values in zip(pools, fused, strict=True)]


def average_scores(scores: np.ndarray) -> np.ndarray:
    """One score a document from z-scores float32 [spaces, docs]: their mean over the spaces that have one.

    nan marks a space that lacks the document or cannot read the query; the result, float32 [docs], is nan
    where all do.
    """
    held = ~np.isnan(scores)
    total = np.where(held, scores, 0).sum(axis=0, dtype=np.float64)
    spaces = held.sum(axis=0)
    return np.where(spaces > 0, total / np.maximum(spaces, 1), np.nan).astype(np.float32)


# Dense search and full text; the groups of a query's probes


def weigh_names(
    names: Iterable[Sequence[Hit]], group: Callable[[str], Hashable], counts: Mapping[Any, int]
) -> list[Hit]:
    """The documents that hold names, each name with its own, by the sum of the names' idf; then by their scores.

    A name's idf, ln(1 + (N - n + 0.5) / (n + 0.5)), is that among the `counts` documents of a document's group.
    """
    weights: dict[str, float] = {}
    scores: dict[str, float] = {}
    for hits in names:
        held = Counter(group(hit.id) for hit in hits)
        for doc, score in hits:
            n = held[group(doc)]
            total = max(n, counts.get(group(doc), 0))
            weights[doc] = weights.get(doc, 0.0) + math.log1p((total - n + 0.5) / (n + 0.5))
            scores[doc] = scores.get(doc, 0.0) + score
    ranked = sorted(weights, key=lambda doc: (-weights[doc], -scores[doc], doc))
    return [Hit(doc, weights[doc]) for doc in ranked]


def lift_holders(
    dense: Sequence[Hit], holders: Sequence[Hit], group: Callable[[str], Hashable], head: int = HEAD
) -> list[Hit]:
    """A dense ranking with the documents that hold names (`weigh_names`) further up within their groups.

    Each one's score is raised by `LIFT` standard deviations of the first `head` scores for each unit of idf; a document
    beyond them counts as if it had the last of these. Groups stay at their places, and scores are those of the ranks.
    What the first `head` places hold does not depend on how deep the ranking goes.
    """
    if not dense or not holders:
        return list(dense)
    finite = [hit.score for hit in dense[:head] if math.isfinite(hit.score)]
    last = min(finite, default=0.0)
    unit = LIFT * (float(np.std(finite or [0.0])) or 1.0)
    scores = {hit.id: hit.score if math.isfinite(hit.score) else last for hit in dense[:head]}
    for doc, idf in holders:
        scores[doc] = scores.get(doc, last) + unit * idf
    queues: dict[Hashable, deque[str]] = {}
    for doc in [*sorted(scores, key=lambda doc: -scores[doc]), *(hit.id for hit in dense if hit.id not in scores)]:
        queues.setdefault(group(doc), deque()).append(doc)
    order = [queues[group(hit.id)].popleft() for hit in dense]
    # What was displaced from below the head comes last.
    left = sorted((doc for queue in queues.values() for doc in queue), key=lambda doc: -scores.get(doc, -math.inf))
    return _give_scores([*order, *left], dense)


def fuse_hybrid(
    dense: Sequence[Hit], lexical: Sequence[Hit], group: Callable[[str], Hashable], head: int = HEAD
) -> list[Hit]:
    """Fuse two rankings by reciprocal rank within each group (language) of documents.

    Full text sees little but the query's own language. Plain reciprocal rank fusion takes that for relevance and
    lifts the query's language over all others; here the dense ranking decides which group stands at which rank, and
    within a group both decide together; a group that full text does not answer for stays as dense search has it. In a
    collection of one language this is plain reciprocal rank fusion. Scores are the dense scores of the ranks;
    documents beyond the dense ranking follow below its last one.

    The first `head` places are decided by the first `head` hits of both alone, so that they are the same however deep
    the rankings go.
    """
    first, left = _interleave(dense[:head], lexical[:head], group)
    order: list[str] = []
    if max(len(dense), len(lexical)) > head:
        order, left = _interleave(dense, lexical, group, set(first))
    return _give_scores([*first, *order, *left], dense)


def fuse_groups(rankings: Sequence[Sequence[Hit]], head: int = HEAD) -> list[Hit]:
    """Fuse the rankings of a query's groups of probes by reciprocal rank, best first.

    As with `fuse_hybrid`, the first `head` places do not depend on how deep the rankings go.
    """
    first = rank_hits(reciprocal_ranks([hits[:head] for hits in rankings]).items())
    if max(map(len, rankings)) <= head:
        return list(first)
    fused = list(first[:head])
    taken = {hit.id for hit in fused}
    for doc, score in rank_hits(reciprocal_ranks(rankings).items()):
        if doc not in taken:
            fused.append(Hit(doc, min(score, float(np.nextafter(fused[-1].score, -np.inf)))))
    return fused


def _give_scores(order: Iterable[str], dense: Sequence[Hit]) -> list[Hit]:
    """Documents in an order with the scores that the dense ranking has at their places, made to decrease."""
    fused: list[Hit] = []
    last = np.inf
    for place, doc in enumerate(order):
        # Equal dense scores would let the ids decide; the fused order is to stand.
        score = min(dense[place].score if place < len(dense) else last, np.nextafter(last, -np.inf))
        last = score if np.isfinite(score) else 1.0 / (place + 1)
        fused.append(Hit(doc, float(last)))
    return fused


def _interleave(
    dense: Sequence[Hit], lexical: Sequence[Hit], group: Callable[[str], Hashable], taken: Set[str] = frozenset()
) -> tuple[list[str], list[str]]:
    """The documents that stand at the places of the dense ranking, and the others; without those that are `taken`.

    As many of each group have to be taken as the dense ranking begins with.
    """
    lists: dict[Hashable, tuple[list[Hit], list[Hit]]] = {}
    for place, hits in enumerate((dense, lexical)):
        for hit in hits:
            lists.setdefault(group(hit.id), ([], []))[place].append(hit)
    totals: dict[str, float] = {}
    queues: dict[Hashable, list[str]] = {}
    for key, both in lists.items():
        scores = reciprocal_ranks(both)
        totals |= scores
        queues[key] = sorted((doc for doc in scores if doc not in taken), key=lambda doc: (-scores[doc], doc))
    order = [queues[group(hit.id)].pop(0) for hit in dense[len(taken) :]]
    left = sorted((doc for queue in queues.values() for doc in queue), key=lambda doc: (-totals[doc], doc))
    return order, left
