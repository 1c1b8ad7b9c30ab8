"""Tokenizers: shared by threads, and asked where their tokens are in a text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from threading import RLock
from typing import Any

import numpy as np

from ..errors import InputError

TOKENIZER_FILES = (
    "tokenizer.json",
    "sentencepiece.bpe.model",
    "spiece.model",
    "tokenizer.model",
    "vocab.txt",
    "vocab.json",
)


class OneThreadAtATime:
    """A function that one thread at a time is in."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self._lock = RLock()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        with self._lock:
            return self.function(*args, **kwargs)

    def __reduce__(self) -> tuple[type[OneThreadAtATime], tuple[Callable[..., Any]]]:
        return OneThreadAtATime, (self.function,)  # a lock is not copied


def make_shareable(loaded: Any) -> Any:
    """What was given, a tokenizer or what has one, made safe: fast tokenizers keep a call's truncation and padding.

    One thread reads ahead while another asks where the tokens of a text are. Without this, their texts are cut to
    each other's length (seen in tokenizers 0.23).
    """
    tokenizer = getattr(loaded, "tokenizer", loaded)
    encode = getattr(tokenizer, "_encode_plus", None)
    if encode is not None and not isinstance(encode, OneThreadAtATime):
        tokenizer._encode_plus = OneThreadAtATime(encode)  # noqa: SLF001 - transformers has no public place for it
    return loaded


def locate_tokens(tokenizer: Any, texts: Sequence[str], name: str) -> list[np.ndarray]:
    """The tokens of each text as `encoders.base.Tokenizes` gives them; `name` is the encoder's, for the error."""
    if not tokenizer.is_fast:
        raise InputError(f"{name} has a slow tokenizer, which cannot tell where its tokens are")
    if not texts:
        return []
    found = tokenizer(
        list(texts),
        add_special_tokens=False,
        truncation=False,
        return_offsets_mapping=True,
        verbose=False,  # of texts longer than the model takes
    )
    return [np.array(spans, np.int64).reshape(-1, 2) for spans in found["offset_mapping"]]
