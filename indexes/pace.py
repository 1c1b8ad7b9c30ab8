"""How many items are encoded and committed at a time, so that a kill loses little of a slow model's work."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator

from .table import Fresh

SECONDS = 60.0  # e5-small takes half of it for a window on two cores


def paced(windows: Iterable[Fresh], seconds: float = SECONDS) -> Iterator[Fresh]:
    """Windows cut into parts of about `seconds` of work at most; those of a fast encoder stay whole.

    What is done between two parts is what the first one takes. A single item comes first, and tells how fast the
    encoder is. Sizes are powers of two, and so mostly the same from run to run: vectors depend a little on what is
    encoded with them.
    """
    size = 1
    for window in windows:
        while len(window.items) > size:
            part, window = _cut(window, size)
            started = time.monotonic()
            yield part
            size = _fitting(size, time.monotonic() - started, seconds)
        started = time.monotonic()
        yield window
        if window.items:
            size = _fitting(len(window.items), time.monotonic() - started, seconds)


def _fitting(items: int, took: float, seconds: float) -> int:
    return 1 << (max(int(items * seconds / max(took, 1e-3)), 1).bit_length() - 1)


def _cut(window: Fresh, size: int) -> tuple[Fresh, Fresh]:
    """The first `size` items to be stored, with what lies before them, and the rest."""
    last = window.items[size - 1]
    end = next(place for place, item in enumerate(window.window) if item is last) + 1
    return (
        window._replace(window=window.window[:end], items=window.items[:size], states=window.states[:size]),
        window._replace(window=window.window[end:], items=window.items[size:], states=window.states[size:]),
    )
