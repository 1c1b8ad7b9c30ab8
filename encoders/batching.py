"""The encoding engine: windows read ahead by a thread, length-sorted batches under a budget, order restored, OOM halved."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from queue import SimpleQueue
from threading import Event, Thread
from typing import Any, TypeVar

import numpy as np

from ..errors import InputError
from ..items import Dense, Item, windows
from .base import EncoderSpec, check_finite, check_modalities

P = TypeVar("P")
R = TypeVar("R")
T = TypeVar("T")
log = logging.getLogger("crosslens")

WINDOW = 1024  # items a window: enough that sorting by length leaves almost no padding
PATIENCE = 5.0  # seconds that closing waits for a source of items which gives none


@dataclass
class Budget:
    """The most that a batch may cost; falls for the rest of a stream when one runs out of memory."""

    most: int


def stream(
    items: Iterable[Item],
    spec: EncoderSpec,
    *,
    prepare: Callable[[Sequence[Item]], Sequence[P]],
    cost: Callable[[P], int],
    forward: Callable[[Any], np.ndarray],
    budget: int,
    window: int = WINDOW,
    weight: Callable[[Item], int] | None = None,
    collate: Callable[[Sequence[P]], Any] | None = None,
) -> Iterator[Dense]:
    """Encode items window by window; one `Dense` a window, in the order of the input.

    `prepare` makes the model's inputs for a window (tokenises, decodes), in a thread, while the model works on the
    window before; `cost` says how long one is (tokens); `forward` encodes a batch to float [n, dim]. A batch holds
    at most `budget` padded tokens. `weight` is as in `prepared`. `collate` is for what is too large to be made for a whole window: it makes of a
    batch what `forward` is given, in a thread, a batch ahead.
    """
    limit = Budget(budget)
    with closing(prepared(items, spec, prepare, window, weight)) as ready:
        for group, pieces in ready:
            ids = [item.id for item in group]
            vectors = np.empty((len(group), spec.dim), dtype=np.float32)
            for rows, found in computed(
                pieces, [cost(piece) for piece in pieces], ids, forward, limit, collate
            ):
                vectors[rows] = found
            check_finite(ids, vectors, spec.name, spec.dtype)
            yield Dense(ids, vectors)


def prepared(
    items: Iterable[Item],
    spec: EncoderSpec,
    prepare: Callable[[Sequence[Item]], R],
    window: int = WINDOW,
    weight: Callable[[Item], int] | None = None,
) -> Generator[tuple[list[Item], R]]:
    """Windows of items, and what `prepare` makes of each: one is read and made ahead, in a thread.

    A window has `window` items, or ends with the item that brings the sum of their `weight` there. `InputError`
    naming an item that `spec` cannot read.
    """

    def made(stop: Event) -> Iterator[tuple[list[Item], R]]:
        read = _until(stop, items)
        for group in weighed(read, window, weight) if weight else windows(read, window):
            if stop.is_set():
                return
            for item in group:
                check_modalities(item, spec)
            yield group, prepare(group)

    if isinstance(items, Sequence) and len(items) <= window:  # a query need not wait for a thread
        yield from made(Event())
    else:
        yield from ahead(made)


def ahead(make: Callable[[Event], Iterator[T]]) -> Generator[T]:
    """The elements of `make(stop)`, made by one thread: the next while the caller works on the last, and no more.

    Errors come out where they belong, as they are. Closing sets `stop`, waits for the element in the making, and
    closes the iterator.
    """
    asked: SimpleQueue[bool] = SimpleQueue()
    answers: SimpleQueue[tuple[list[T], BaseException | None]] = SimpleQueue()
    stop = Event()
    source = make(stop)

    def read() -> None:
        while asked.get():
            try:
                answers.put(([next(source)], None))
            except BaseException as error:  # StopIteration, too, is for the caller
                answers.put(([], error))
                return

    reader = Thread(target=read, name="crosslens-ahead", daemon=True)
    reader.start()
    try:
        asked.put(True)
        while True:
            answer, error = answers.get()
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            asked.put(True)
            yield answer.pop()
    finally:
        error = None  # which holds this frame
        stop.set()
        asked.put(False)
        # A source that is blocked is not waited for: it finds `stop` set with its next item.
        reader.join(PATIENCE)
        if not reader.is_alive() and isinstance(source, Generator):
            source.close()


def weighed(items: Iterable[Item], most: int, weight: Callable[[Item], int]) -> Iterator[list[Item]]:
    """Consecutive lists of items, each ended by the item that brings the sum of weights to `most`."""
    group: list[Item] = []
    held = 0
    for item in items:
        group.append(item)
        held += weight(item)
        if held >= most:
            yield group
            group, held = [], 0
    if group:
        yield group


def _until(stop: Event, items: Iterable[T]) -> Iterator[T]:
    for item in items:
        if stop.is_set():
            return
        yield item


def computed(
    pieces: Sequence[P],
    costs: Sequence[int],
    names: Sequence[str],
    forward: Callable[[Any], R],
    budget: Budget,
    collate: Callable[[Sequence[P]], Any] | None = None,
) -> Iterator[tuple[list[int], R]]:
    """Batches of positions in `pieces`, longest first, each with what `forward` gives for it.

    A batch that runs out of memory is halved, and so is the budget, for this window and those to come. `InputError`
    names a piece that never fits. `collate` is as in `stream`.
    """

    def given(rows: list[int]) -> Any:
        batch = [pieces[row] for row in rows]
        return collate(batch) if collate else batch

    def planned(stop: Event) -> Generator[tuple[list[int], Any]]:
        for rows in batches(costs, budget):
            yield rows, given(rows)

    def fitting(rows: list[int], inputs: Any) -> Iterator[tuple[list[int], R]]:
        spent = len(rows) * max(1, *(costs[row] for row in rows))
        if len(rows) == 1 or spent <= budget.most:  # which may have fallen since the batch was made
            try:
                found = forward(inputs)
            except (RuntimeError, MemoryError) as error:
                _must_halve(error, [names[row] for row in rows])
                budget.most = min(budget.most, spent // 2)
            else:
                yield rows, found
                return
        del inputs
        middle = len(rows) // 2
        for part in (rows[:middle], rows[middle:]):
            yield from fitting(part, given(part))

    many = collate is not None and sum(costs) > budget.most
    plan = ahead(planned) if many else planned(Event())
    with closing(plan) as jobs:
        for rows, inputs in jobs:
            yield from fitting(rows, inputs)


def batches(costs: Sequence[int], budget: int | Budget) -> Iterator[list[int]]:
    """Positions grouped by falling cost so that the longest times the size stays within the budget.

    Longest first: if memory runs out, it does at once and not after an hour. A single piece may exceed the budget.
    """
    limit = budget if isinstance(budget, Budget) else Budget(budget)
    batch: list[int] = []
    longest = 0
    for row in sorted(range(len(costs)), key=lambda row: -costs[row]):
        if batch and longest * (len(batch) + 1) > limit.most:
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
        _must_halve(error, names)
    middle = len(pieces) // 2
    parts = [(pieces[:middle], names[:middle]), (pieces[middle:], names[middle:])]
    return np.concatenate([halving(forward, part, ids) for part, ids in parts])


def _must_halve(error: BaseException, names: Sequence[str]) -> None:
    """Returns if the items ran out of memory together; `InputError` if one did alone; another error is raised again."""
    from ..checkpoints.devices import is_out_of_memory  # here, since contracts do not import torch

    if not is_out_of_memory(error):
        raise error
    if len(names) == 1:
        raise InputError(f"item {names[0]!r} alone does not fit into memory; lower max_tokens") from None
    log.warning("out of memory with a batch of %d: going on with halves", len(names))
