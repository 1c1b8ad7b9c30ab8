"""A tokenizer that threads may share: one reads ahead while another is asked where the tokens of a text are."""

from __future__ import annotations

from collections.abc import Callable
from threading import RLock
from typing import Any


class OneAtATime:
    """A function that one thread at a time is in."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self._lock = RLock()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        with self._lock:
            return self.function(*args, **kwargs)

    def __reduce__(self) -> tuple[type[OneAtATime], tuple[Callable[..., Any]]]:
        return OneAtATime, (self.function,)  # a lock is not copied


def shareable(made: Any) -> Any:
    """What was given, a tokenizer or what has one, made safe: fast tokenizers keep a call's truncation and padding.

    Without this, texts tokenised by two threads are cut to each other's length (seen in tokenizers 0.23).
    """
    tokenizer = getattr(made, "tokenizer", made)
    encode = getattr(tokenizer, "_encode_plus", None)
    if encode is not None and not isinstance(encode, OneAtATime):
        tokenizer._encode_plus = OneAtATime(encode)
    return made
