"""The sorters by name, and what a name from elsewhere stands for."""

from __future__ import annotations

from collections.abc import Callable

from ...specs import Spec, find_factory
from .plackett import Plackett
from .sorters import AllPairs, Bubblesort, Full, Heapsort, Pointwise, Sorter, Tournament, TourRank, Window

SORTERS: dict[str, type] = {
    kind.__name__.lower(): kind
    for kind in (Pointwise, AllPairs, Heapsort, Bubblesort, Window, Full, Tournament, TourRank, Plackett)
}


def find_sorter(name: str) -> Callable[..., Sorter]:
    """What makes a sorter of its options: one of these, an installed package's, or `py:MODULE:NAME`.

    Other packages add sorters by entry points of `crosslens.sorters`. `InputError` lists the known names.
    """
    if name in SORTERS:
        return SORTERS[name]
    kind: Callable[..., Sorter]
    kind, _ = find_factory(Spec.parse(name), "sorters", {}, "sorter", more=tuple(SORTERS))
    return kind


def name_sorter(sort: Sorter) -> str:
    """A sorter's name: that of its class in small letters, as in `SORTERS`, or of its function as it is."""
    return getattr(sort, "__name__", None) or type(sort).__name__.lower()
