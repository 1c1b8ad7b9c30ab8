"""What the standard shapes need of an engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from ...encoders.base import Encoder, EncoderSpec
from ...items import Item, Role


class Embedded(Protocol):
    """Vectors float32 [n, dim] of as many items, the encoder's name and spec, and how many tokens were read."""

    vectors: np.ndarray
    tokens: int
    model: str
    spec: EncoderSpec


class Scored(Protocol):
    """A score of each document, in 0..1 and as the model gave it; higher is better."""

    scores: list[float]
    raw: list[float]
    tokens: int
    model: str


class Engine(Protocol):
    """Encoders and rerankers by the names that clients give; None is the first."""

    encoders: Mapping[str, Any]
    rerankers: Mapping[str, Any]

    def choose_encoder(self, model: str | None) -> tuple[str, Encoder]: ...

    async def embed(self, model: str | None, items: Sequence[Item], role: Role) -> Embedded: ...

    async def score(self, model: str | None, query: Item, documents: Sequence[Item]) -> Scored: ...
