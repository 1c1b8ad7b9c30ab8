"""Batches of weighted terms: the encoding engine of sparse encoders, and how a row of weights becomes terms."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from typing import TypeVar

import numpy as np

from ..items import Item, Sparse
from .base import EncoderSpec, NotFinite
from .batching import WINDOW, Budget, computed, prepared

P = TypeVar("P")
Terms = tuple[
    np.ndarray, np.ndarray
]  # the terms of one item, rising: int32 [t], and their weights: float32 [t]


def stream_terms(
    items: Iterable[Item],
    spec: EncoderSpec,
    *,
    prepare: Callable[[Sequence[Item]], Sequence[P]],
    cost: Callable[[P], int],
    forward: Callable[[Sequence[P]], Sequence[Terms]],
    budget: int,
    window: int = WINDOW,
) -> Iterator[Sparse]:
    """`batching.stream` for sparse encoders: one `Sparse` a window, in the order of the input.

    `forward` gives the terms of each piece of a batch. `NotFinite` names items whose weights are not finite.
    """
    import scipy.sparse

    limit = Budget(budget)
    with closing(prepared(items, spec, prepare, window)) as ready:
        for group, pieces in ready:
            ids = [item.id for item in group]
            found: dict[int, Terms] = {}
            for rows, made in computed(pieces, [cost(piece) for piece in pieces], ids, forward, limit):
                found.update(zip(rows, made, strict=True))
            terms = [found[row][0] for row in range(len(group))]
            weights = [found[row][1] for row in range(len(group))]
            if bad := [name for name, each in zip(ids, weights, strict=True) if not np.isfinite(each).all()]:
                shown = ", ".join(bad[:5]) + (f", ... ({len(bad)} in all)" if len(bad) > 5 else "")
                raise NotFinite(
                    f"{spec.name} in {spec.dtype} gave weights that are not finite for {shown}; try ?dtype=float32"
                )
            starts = np.cumsum([0, *map(len, terms)])
            data = (np.concatenate(weights), np.concatenate(terms), starts)
            yield Sparse(ids, scipy.sparse.csr_matrix(data, (len(group), spec.dim), dtype=np.float32))


def strongest(weights: np.ndarray, most: int = 0) -> Terms:
    """The terms of a row of weights float32 [vocabulary] that are above 0, or not finite.

    At most `most` of them, the strongest, if that is not 0; of equal ones the lower terms.
    """
    terms = np.flatnonzero(~(weights <= 0))  # so that nan stays, to be found
    if most and len(terms) > most:
        mine = weights[terms]
        order = np.lexsort((terms, -mine))[:most]
        terms = np.sort(terms[order])
    return terms.astype(np.int32), weights[terms].astype(np.float32)
