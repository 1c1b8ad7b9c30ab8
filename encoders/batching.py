"""The encoding engine: bounded windows, length-sorted batches under a budget, order restored, OOM halved."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

import numpy as np

from ..errors import InputError
from ..items import Dense, Item, windows
from .base import EncoderSpec, check_finite, check_modalities

P = TypeVar("P")
log = logging.getLogger("crosslens")

WINDOW = 1024  # items read ahead: enough that sorting by length leaves almost no padding


def stream(
    items: Iterable[Item],
    spec: EncoderSpec,
    *,
    prepare: Callable[[Sequence[Item]], Sequence[P]],
    cost: Callable[[P], int],
    forward: Callable[[Sequence[P]], np.ndarray],
    budget: int,
    window: int = WINDOW,
) -> Iterator[Dense]:
    """Encode items window by window; one `Dense` a window, in the order of the input.

    `prepare` makes the model's inputs for a window (tokenises), `cost` says how long one is (tokens), `forward`
    encodes a batch to float [n, dim]. A batch holds at most `budget` padded tokens.
    """
    for group in windows(items, window):
        for item in group:
            check_modalities(item, spec)
        pieces = prepare(group)
        vectors = np.empty((len(group), spec.dim), dtype=np.float32)
        for rows in batches([cost(piece) for piece in pieces], budget):
            vectors[rows] = halving(forward, [pieces[row] for row in rows], [group[row].id for row in rows])
        ids = [item.id for item in group]
        check_finite(ids, vectors, spec.name, spec.dtype)
        yield Dense(ids, vectors)


def batches(costs: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Positions grouped by falling cost so that the longest times the size stays within the budget.

    Longest first: if memory runs out, it does at once and not after an hour. A single piece may exceed the budget.
    """
    batch: list[int] = []
    longest = 0
    for row in sorted(range(len(costs)), key=lambda row: -costs[row]):
        if batch and longest * (len(batch) + 1) > budget:
            yield batch
            batch = []
        if not batch:
            longest = max(costs[row], 1)
        batch.append(row)
    if batch:
        yield batch


def halving(
    forward: Callable[[Sequence[P]], np.ndarray], pieces: Sequence[P], names: Sequence[str]
) -> np.ndarray:
    """`forward` over the pieces; on out-of-memory over their halves; `InputError` naming one that never fits."""
    try:
        return forward(pieces)
    except (RuntimeError, MemoryError) as error:
        from .devices import is_out_of_memory  # here, since contracts do not import torch

        if not is_out_of_memory(error):
            raise
        if len(pieces) == 1:
            raise InputError(f"item {names[0]!r} alone does not fit into memory; lower max_tokens") from None
    log.warning("out of memory with a batch of %d: going on with halves", len(pieces))
    middle = len(pieces) // 2
    parts = [(pieces[:middle], names[:middle]), (pieces[middle:], names[middle:])]
    return np.concatenate([halving(forward, part, ids) for part, ids in parts])
