"""The first k of a ranking where hits at the cutoff have one score: those with the lowest ids."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..runs import Rankings, rank_hits

DEEPER = 4  # times as many hits are asked for when those at the cutoff tie


def search_past_ties(ask: Callable[[Sequence[int], int], Rankings], queries: int, k: int, near: float = 0) -> Rankings:
    """The k best hits of each of so many queries: of those that tie with the k-th the ones with the lowest ids.

    `ask` gives the hits of some of the queries, by their numbers, best first and so many of each. It is asked for more
    than k, and again for more until the last score falls below the k-th by more than `near`: how far apart the scores
    of hits and what they were picked by may lie.
    """
    depth = k + 1 + (k // 8 if near else 0)
    found = ask(range(queries), depth)
    while tied := [
        row for row, hits in enumerate(found) if len(hits) >= depth and hits[-1][1] >= hits[k - 1][1] - near
    ]:
        depth *= DEEPER
        for row, hits in zip(tied, ask(tied, depth), strict=True):
            found[row] = hits
    return [
        hits[:k] if len(hits) <= k or hits[k - 1][1] > hits[k][1] else list[tuple[str, float]](rank_hits(hits)[:k])
        for hits in found
    ]
