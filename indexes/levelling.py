"""The nearest documents in all languages, brought to one level: how deep each language is searched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from ..runs import Rankings, rank_hits
from .kinds.base import Kind, SpaceQueries
from .merging import BEST, find_steps, merge_languages
from .probes import PreparedQueries
from .storage.filters import join_conditions

MERGED = 4 << 20  # hits of all languages that are held at a time
# Hits that each language is asked for first where more are wanted: so many, or so many times an equal share of them.
FIRST, SHARES = 100, 2


def search_merged(
    kind: Kind,
    asked: PreparedQueries,
    mine: SpaceQueries,
    k: int,
    condition: str | None,
    parts: Mapping[str | None, str],
    counts: Mapping[str, int],
) -> Rankings:
    """The k nearest documents of each query, best first, with all languages brought to one level (`merge_languages`).

    `parts` are the conditions of the languages (`filters.split_languages`), in which `condition` holds, too. Hardly a
    language has more than twice an equal share of many hits: so fewer than k are looked for in each, and k for those
    queries and languages of which the last hit was among the k best.
    """
    stage, spare, depth = asked.stage, asked.spare, max(k, BEST)
    first = min(depth, max(FIRST, SHARES * depth // len(parts)))
    merged: Rankings = []
    for some in mine.split(max(1, MERGED // (len(parts) * first))):
        found = {
            lang: asked.drop_excluded(some.rows, rankings, first)
            for lang, rankings in kind.nearest_by_language(some, first + spare, condition, parts, stage.exact).items()
        }
        best = [_take_best(hits, k) for hits in merge_languages(found, counts, stage.merge)]
        lacking = _find_lacking(found, best, first, k, counts, stage.merge) if first < depth else {}
        for lang, rows in lacking.items():
            few = replace(some, rows=[some.rows[row] for row in rows], vectors=some.vectors[rows])
            more = kind.nearest(few, depth + spare, join_conditions(condition, parts[lang]), stage.exact)
            for row, hits in zip(rows, asked.drop_excluded(few.rows, more, depth), strict=True):
                found[lang][row] = hits
        for row in sorted({row for rows in lacking.values() for row in rows}):
            alone = {lang: [rankings[row]] for lang, rankings in found.items()}
            best[row] = _take_best(merge_languages(alone, counts, stage.merge)[0], k)
        merged += best
    return merged


def _find_lacking(
    found: Mapping[str | None, Rankings], best: Rankings, depth: int, k: int, counts: Mapping[str, int], strength: float
) -> dict[str | None, list[int]]:
    """The queries of which a language may have more among the k best than the `depth` that were looked for there."""
    lacking: dict[str | None, list[int]] = {}
    for row, hits in enumerate(best):
        steps = find_steps(found, row, counts, strength)
        for lang, rankings in found.items():
            if len(ranking := rankings[row]) >= depth:
                last = min(score for _, score in ranking) - steps.get(lang, 0.0)
                if len(hits) < k or last >= hits[-1][1]:
                    lacking.setdefault(lang, []).append(row)
    return lacking


def _take_best(hits: Sequence[tuple[str, float]], k: int) -> list[tuple[str, float]]:
    """The k best hits, best first."""
    if len(hits) > k:
        scores = np.array([score for _, score in hits])
        last = np.partition(scores, len(hits) - k)[len(hits) - k]
        hits = [hit for hit in hits if hit[1] >= last]
    return list(rank_hits(hits)[:k])
