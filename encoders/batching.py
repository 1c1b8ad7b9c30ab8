"""The encoding engine: windows read ahead, length-sorted batches under a budget, OOM halved, rows put in order."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import pairwise, takewhile
from queue import SimpleQueue
from threading import Event, Thread
from time import perf_counter
from typing import Any, TypeVar

import numpy as np

from ..errors import InputError
from ..items import Batch, Dense, Item, Multi, Sparse, split_by_weight, windows
from .base import EncoderSpec, check_finite, check_modalities

P = TypeVar("P")
R = TypeVar("R")
T = TypeVar("T")
Terms = tuple[np.ndarray, np.ndarray]  # of one item, rising: int32 [terms]; and their weights: float32 [terms]
Row = Any  # float32 [dim]; float32 [tokens, dim]; or `Terms`
log = logging.getLogger("crosslens")

WINDOW = 1024  # items a window: enough that sorting by length leaves almost no padding
PATIENCE = 5.0  # seconds that closing waits for a source of items which gives none


@dataclass
class Budget:
    """The most that a batch may cost; falls for the rest of a stream when one runs out of memory."""

    most: int

    def shrink(self, most: int) -> None:
        """Memory ran out with more than that."""
        self.most = min(self.most, most)

    def learn(self, tokens: int, padded: int, seconds: float) -> None:
        """What a batch held, filled up to its longest, and took; a plain budget stays what it is."""


def encode_windows(
    items: Iterable[Item],
    spec: EncoderSpec,
    *,
    prepare: Callable[[Sequence[Item]], Sequence[Any]],
    cost: Callable[[Any], int],
    forward: Callable[[Any], Iterable[Row]],
    budget: int | Budget,
    window: int = WINDOW,
    weight: Callable[[Item], int] | None = None,
    collate: Callable[[Sequence[Any]], Any] | None = None,
) -> Iterator[Any]:
    """Encode items window by window; one batch of the spec's kind a window, in the order of the input.

    `prepare` makes the model's inputs for a window (tokenises, decodes), in a thread, while the model works on the
    window before; `cost` says how long one is (tokens); `forward` gives the rows of a batch. A batch holds at most
    `budget` padded tokens. `weight` is as in `prepare_windows`. `collate` is for what is too large to be made for a
    whole window: it makes of a batch what `forward` is given, in a thread, a batch ahead.
    """
    limit = budget if isinstance(budget, Budget) else Budget(budget)
    with closing(prepare_windows(items, spec, prepare, window, weight)) as ready:
        for group, prepared in ready:
            ids = [item.id for item in group]
            rows: list[Row] = [None] * len(group)
            costs = [cost(each) for each in prepared]
            for places, made in compute_batches(prepared, costs, ids, forward, limit, collate):
                for place, row in zip(places, made, strict=True):
                    rows[place] = row
            check_finite(ids, map(take_floats, rows), spec.name, spec.dtype)
            yield join_rows(ids, rows, spec)


def prepare_windows(
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

    def make(stop: Event) -> Iterator[tuple[list[Item], R]]:
        source = takewhile(lambda _: not stop.is_set(), items)
        for group in split_by_weight(source, window, weight) if weight else windows(source, window):
            if stop.is_set():
                return
            check_modalities(group, spec)
            yield group, prepare(group)

    few = isinstance(items, Sequence) and len(items) <= window  # a query need not wait for a thread
    yield from make(Event()) if few else read_ahead(make)


def read_ahead(make: Callable[[Event], Iterator[T]]) -> Generator[T]:
    """The elements of `make(stop)`, made by one thread: the next while the caller works on the last, and no more.

    Errors come out where they belong, as they are. Closing sets `stop`, waits for the element in the making, and
    closes the iterator.
    """
    wanted: SimpleQueue[bool] = SimpleQueue()
    answers: SimpleQueue[tuple[list[T], BaseException | None]] = SimpleQueue()
    stop = Event()
    source = make(stop)

    def read() -> None:
        while wanted.get():
            try:
                answers.put(([next(source)], None))
            except BaseException as error:  # StopIteration, too, is for the caller
                answers.put(([], error))
                return

    reader = Thread(target=read, name="crosslens-ahead", daemon=True)
    reader.start()
    try:
        wanted.put(True)
        while True:
            answer, error = answers.get()
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            wanted.put(True)
            yield answer.pop()
    finally:
        error = None  # which holds this frame
        stop.set()
        wanted.put(False)
        # A source that is blocked is not waited for: it finds `stop` set with its next item.
        reader.join(PATIENCE)
        if not reader.is_alive() and isinstance(source, Generator):
            source.close()


def compute_batches(
    inputs: Sequence[P],
    costs: Sequence[int],
    names: Sequence[str],
    forward: Callable[[Any], R],
    budget: Budget,
    collate: Callable[[Sequence[P]], Any] | None = None,
) -> Iterator[tuple[list[int], R]]:
    """Batches of positions in `inputs`, longest first, each with what `forward` gives for it.

    A batch that runs out of memory is halved, and so is the budget, for this window and those to come. `InputError`
    names an input that never fits. `collate` is as in `encode_windows`.
    """

    def pick(places: list[int]) -> Any:
        batch = [inputs[place] for place in places]
        return collate(batch) if collate else batch

    def plan(stop: Event) -> Generator[tuple[list[int], Any]]:
        for places in plan_batches(costs, budget):
            try:
                batch = pick(places)
            except (RuntimeError, MemoryError) as error:
                # No room for it beside the batch that is computed now: it is made again after that.
                if not _is_out_of_memory(error):
                    raise
                batch = None
            yield places, batch

    many = collate is not None and sum(costs) > budget.most
    with closing(read_ahead(plan) if many else plan(Event())) as jobs:
        for places, batch in jobs:
            parts = [places]
            while parts:
                places = parts.pop()
                spent = len(places) * max(1, *(costs[place] for place in places))
                if len(places) == 1 or spent <= budget.most:  # which may have fallen since the batch was made
                    started = perf_counter()
                    try:
                        made = forward(pick(places) if batch is None else batch)
                    except (RuntimeError, MemoryError) as error:
                        _require_parts(error, [names[place] for place in places])
                        budget.shrink(spent // 2)
                    else:
                        budget.learn(sum(costs[place] for place in places), spent, perf_counter() - started)
                        yield places, made
                        continue
                batch = None  # what is made of the halves
                middle = len(places) // 2
                parts += [places[middle:], places[:middle]]


def plan_batches(costs: Sequence[int], budget: int | Budget) -> Iterator[list[int]]:
    """Positions grouped by falling cost so that the longest times the size stays within the budget.

    Longest first: if memory runs out, it does at once and not after an hour. A single input may exceed the budget.
    """
    limit = budget if isinstance(budget, Budget) else Budget(budget)
    batch: list[int] = []
    longest = 0
    for place in sorted(range(len(costs)), key=lambda place: -costs[place]):
        if batch and longest * (len(batch) + 1) > limit.most:
            yield batch
            batch = []
        if not batch:
            longest = max(costs[place], 1)
        batch.append(place)
    if batch:
        yield batch


def _require_parts(error: BaseException, names: Sequence[str]) -> None:
    """Returns if the items ran out of memory together; `InputError` if one did alone; another error is raised again."""
    if not _is_out_of_memory(error):
        raise error
    if len(names) == 1:
        raise InputError(f"item {names[0]!r} alone does not fit into memory; lower max_tokens") from None
    log.warning("out of memory with a batch of %d: going on with halves", len(names))


def _is_out_of_memory(error: BaseException) -> bool:
    from ..checkpoints.devices import is_out_of_memory  # here, since contracts do not import torch

    return is_out_of_memory(error)


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
    return np.asarray(row[1] if isinstance(row, tuple) else row)


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
