"""Who is to know what long work is at: the command line, which says it; libraries only name their steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import TypeVar

T = TypeVar("T")

Listener = Callable[[str], AbstractContextManager[None]]  # is in its block for as long as the step takes

_LISTENER: ContextVar[Listener | None] = ContextVar("listener", default=None)


@contextmanager
def put(variable: ContextVar[T], value: T) -> Iterator[None]:
    """While the block runs, the variable has that value."""
    token = variable.set(value)
    try:
        yield
    finally:
        variable.reset(token)


def listen(listener: Listener) -> AbstractContextManager[None]:
    """While the block runs, `listener` gets the steps that begin in this thread."""
    return put(_LISTENER, listener)


@contextmanager
def step(what: str) -> Iterator[None]:
    """A part of the work that may take long, named for people: `loading offline:e5-small`."""
    listener = _LISTENER.get()
    with listener(what) if listener is not None else nullcontext():
        yield
