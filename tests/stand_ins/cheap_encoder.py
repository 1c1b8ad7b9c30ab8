"""An encoder that costs nothing, and as many documents as a test wants."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator

import numpy as np
from crosslens.encoders.base import EncoderSpec, unit
from crosslens.items import Dense, Item


class Cheap:
    """One direction a text, by its digest."""

    def __init__(self, dim: int = 16) -> None:
        self.spec = EncoderSpec("fake:cheap", "1", ("text",), dim)

    def encode(self, items: Iterable[Item], role: str) -> Iterator[Dense]:
        for item in items:
            seed = int.from_bytes(hashlib.blake2b((item.text or "").encode(), digest_size=8).digest(), "big")
            random = np.random.default_rng(seed)
            yield Dense([item.id], unit(random.standard_normal((1, self.spec.dim))))


def documents(count: int = 3000) -> list[Item]:
    return [Item(f"d{n}", f"text number {n}", lang=("eng", "zho", "fas")[n % 3]) for n in range(count)]
