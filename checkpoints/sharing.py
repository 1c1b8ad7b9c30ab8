"""What several hold is loaded once: as long as one of them is in use, it is shared."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
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
