"""Batches taken apart into rows, one an item, and put together again."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from ..items import Batch, Dense, Multi, Sparse
from .base import EncoderSpec

Terms = tuple[np.ndarray, np.ndarray]  # of one item, rising: int32 [terms]; and their weights: float32 [terms]
Row = Any  # float32 [dim]; float32 [tokens, dim]; or `Terms`


def split_rows(batch: Batch) -> list[Row]:
    """What each item of a batch has, in its order."""
    if not isinstance(batch, Sparse):
        return [np.asarray(vectors, np.float32) for vectors in batch.vectors]
    matrix = batch.vectors.tocsr()
    terms, weights = matrix.indices.astype(np.int32), matrix.data.astype(np.float32)
    return [(terms[start:end], weights[start:end]) for start, end in pairwise(matrix.indptr.tolist())]


def join_rows(ids: Sequence[str], rows: Sequence[Row], spec: EncoderSpec) -> Batch:
    """One batch of at least one row, of the kind that `spec` says."""
    if spec.kind == "dense":
        return Dense(ids, np.stack(rows).astype(np.float32, copy=False))
    if spec.kind == "multi":
        return Multi(ids, rows)
    import scipy.sparse

    starts = np.cumsum([0, *(len(terms) for terms, _ in rows)])
    terms, weights = (np.concatenate(parts) for parts in zip(*rows, strict=True))
    shape = (len(rows), spec.dim)
    return Sparse(ids, scipy.sparse.csr_matrix((weights, terms, starts), shape, dtype=np.float32))


def take_floats(row: Row) -> np.ndarray:
    """The floats of a row: its vector or vectors, or its weights."""
    floats: np.ndarray = row[1] if isinstance(row, tuple) else row
    return floats


def select_terms(weights: np.ndarray, most: int = 0) -> Terms:
    """The terms of a row of weights float32 [vocabulary] that are above 0, or not finite.

    At most `most` of them, the strongest, if that is not 0; of equal ones the lower terms.
    """
    terms = np.flatnonzero(~(weights <= 0))  # so that nan stays, to be found
    if most and len(terms) > most:
        mine = weights[terms]
        order = np.lexsort((terms, -mine))[:most]
        terms = np.sort(terms[order])
    return terms.astype(np.int32), weights[terms].astype(np.float32)
