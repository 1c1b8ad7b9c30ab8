"""Hybrid search that keeps languages in their places: full text reorders each language's documents among themselves."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence

import numpy as np

from ..pipeline import reciprocal_ranks
from ..runs import Hit


def hybrid(dense: Sequence[Hit], lexical: Sequence[Hit], group: Callable[[str], Hashable]) -> list[Hit]:
    """Fuse two rankings by reciprocal rank within each group (language) of documents.

    Full text sees little but the query's own language. Plain reciprocal rank fusion takes that for relevance and
    lifts the query's language over all others; here the dense ranking decides which group stands at which rank, and
    within a group both decide together; a group that full text does not answer for stays as dense search has it. In a
    collection of one language this is plain reciprocal rank fusion. Scores are the dense scores of the ranks;
    documents beyond the dense ranking follow below its last one.
    """
    queues: dict[Hashable, list[str]] = {}
    lists: dict[Hashable, tuple[list[Hit], list[Hit]]] = {}
    for place, hits in enumerate((dense, lexical)):
        for hit in hits:
            lists.setdefault(group(hit.id), ([], []))[place].append(hit)
    totals: dict[str, float] = {}
    for key, both in lists.items():
        scores = reciprocal_ranks(both)
        totals |= scores
        queues[key] = sorted(scores, key=lambda doc: (-scores[doc], doc))
    order = [queues[group(hit.id)].pop(0) for hit in dense]
    left = sorted((doc for queue in queues.values() for doc in queue), key=lambda doc: (-totals[doc], doc))
    fused: list[Hit] = []
    last = np.inf
    for place, doc in enumerate([*order, *left]):
        # Equal dense scores would let the ids decide; the fused order is to stand.
        score = min(dense[place].score if place < len(dense) else last, np.nextafter(last, -np.inf))
        last = score if np.isfinite(score) else 1.0 / (place + 1)
        fused.append(Hit(doc, float(last)))
    return fused


def found_by(*rankings: Mapping[str, Sequence[Hit]]) -> list[str]:
    """The ids of all documents in the rankings (query id to hits), sorted."""
    return sorted({hit.id for lists in rankings for hits in lists.values() for hit in hits})
