"""The driver of reranking: the pending comparisons of all live queries go to the judge as one batch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from ...runs import Hit
from .sorters import Ask, Sorting

QueryGroup = tuple[str, tuple[Hit, ...]]  # a query's id and the hits that are compared for it


def drive(
    sortings: Iterable[tuple[str, Sorting]],
    answer: Callable[[Sequence[QueryGroup]], Sequence[np.ndarray]],
    appetite: int,
) -> Iterator[tuple[str, Sequence[Hit]]]:
    """Run the sortings of many queries side by side; yields each query's order as soon as it is there.

    Each round hands everything that all live queries ask to `answer` in one call. New queries are taken up while a
    round holds fewer than `appetite` comparisons, so that it is full and finished queries still come out on the way.
    """
    waiting = iter(sortings)
    live: dict[str, tuple[Sorting, Ask]] = {}
    while True:
        size = sum(len(ask.groups) for _, ask in live.values())
        while size < appetite and (following := next(waiting, None)) is not None:
            query, sorting = following
            try:
                ask = next(sorting)
            except StopIteration as stop:
                yield query, stop.value
            else:
                live[query] = sorting, ask
                size += len(ask.groups)
        if not live:
            return
        asked = [(query, group) for query, (_, ask) in live.items() for group in ask.groups]
        replies = iter(answer(asked))
        for query, (sorting, ask) in list(live.items()):
            try:
                live[query] = sorting, sorting.send([next(replies) for _ in ask.groups])
            except StopIteration as stop:
                del live[query]
                yield query, stop.value
