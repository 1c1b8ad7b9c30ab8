"""Candidates of several spaces, or of texts and pictures in one, put into one order by their z-scores."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from .card import Space
from .spaces import fuse
from .table import as_read

if TYPE_CHECKING:
    from .lance import Found, LanceIndex

RESCORED = 20_000  # candidates whose vectors are fetched at a time


@dataclass(frozen=True)
class Asked:
    """The queries that a space can read: their places in the batch, and vectors float32 [q, dim]."""

    space: Space
    rows: list[int]
    vectors: np.ndarray
    corrected: bool

    def part(self, start: int, stop: int) -> Asked:
        """Those of the places from `start` to `stop`, counted from there."""
        held = [at for at, row in enumerate(self.rows) if start <= row < stop]
        return replace(self, rows=[self.rows[at] - start for at in held], vectors=self.vectors[held])


def fused(index: LanceIndex, asked: Sequence[Asked], found: Sequence[Found], queries: int) -> Found:
    """Candidates of all spaces under the mean of their exact z-scores."""
    pools: list[dict[str, None]] = [{} for _ in range(queries)]
    for each, lists in zip(asked, found, strict=True):
        for row, ranking in zip(each.rows, lists, strict=True):
            pools[row].update((doc, None) for doc, _ in ranking)
    step = max(1, RESCORED // max(1, *map(len, pools)))
    return [
        ranking
        for start in range(0, queries, step)
        for ranking in _rescored(
            index, [each.part(start, start + step) for each in asked], pools[start : start + step]
        )
    ]


def _rescored(index: LanceIndex, asked: Sequence[Asked], pools: Sequence[Iterable[str]]) -> Found:
    """Each query's pool of documents with their fused scores."""
    ids = sorted({doc for pool in pools for doc in pool})
    places = {doc: place for place, doc in enumerate(ids)}
    modalities = index._tables.column("modality", ids)
    scores = np.full((len(asked), len(pools), len(ids)), np.nan, np.float32)
    for layer, each in zip(scores, asked, strict=True):
        if not each.rows or not ids:
            continue
        products = each.vectors @ index._vectors(each.space, ids, each.corrected).T
        kinds = np.array([as_read(held, each.space) for held in modalities])
        for kind in each.space.counts:
            mean, deviation = index._moment(each.space).background(each.vectors, kind, each.corrected)
            columns = np.flatnonzero(kinds == kind)
            z = (products[:, columns] - mean[:, None]) / deviation[:, None]
            layer[np.ix_(np.array(each.rows), columns)] = z
    results: Found = []
    for row, pool in enumerate(pools):
        mine = list(pool)
        values = fuse(scores[:, row, [places[doc] for doc in mine]])
        results.append(list(zip(mine, values.tolist(), strict=True)))
    return results
