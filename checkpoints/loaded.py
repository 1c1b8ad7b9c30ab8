"""Models that several stages use are loaded once: as long as one of them is in use, it is shared."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from weakref import WeakValueDictionary

_LOADED: WeakValueDictionary[str, Any] = WeakValueDictionary()


def load_shared(factory: Callable[..., Any], checkpoint: str, options: Mapping[str, object]) -> Any:
    """What `factory(checkpoint, **options)` makes, or what it made before of the same, if that is still in use."""
    name = f"{factory.__module__}.{factory.__qualname__} {checkpoint} {sorted(options.items())}"
    loaded = _LOADED.get(name)
    if loaded is None:
        loaded = _LOADED[name] = factory(checkpoint, **options)
    return loaded
