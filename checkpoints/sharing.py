"""What is shared: loaded models by those that hold them, as long as one does, and cores by processes."""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable, Mapping
from itertools import pairwise
from typing import Any, TypeVar
from weakref import WeakValueDictionary

T = TypeVar("T")
_LOADED: WeakValueDictionary[Hashable, Any] = WeakValueDictionary()


def share(key: Hashable, load: Callable[[], T]) -> T:
    """What `load()` made for this key before, if that is still in use, else what it makes now."""
    if (loaded := _LOADED.get(key)) is None:
        loaded = _LOADED[key] = load()
    return loaded


def load_shared(factory: Callable[..., Any], checkpoint: str, options: Mapping[str, object]) -> Any:
    """What `factory(checkpoint, **options)` makes, or what it made before of the same, if that is still in use."""
    key = (factory, checkpoint, tuple(sorted(options.items())))
    return share(key, lambda: factory(checkpoint, **options))


def list_cores() -> list[int]:
    """The numbers of the cores that this process may use."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))


def share_cores(processes: int) -> list[list[int]]:
    """The cores of this process for each of several: neighbours, which share caches, go together."""
    held = list_cores()
    if processes > len(held):  # several GPUs on a small machine
        return [[held[number % len(held)]] for number in range(processes)]
    bounds = [round(number * len(held) / processes) for number in range(processes + 1)]
    return [held[start:end] for start, end in pairwise(bounds)]
