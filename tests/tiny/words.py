"""An encoder whose tokens are words, and documents and queries of words."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from crosslens.encoders.base import EncoderSpec, unit
from crosslens.items import Dense, Item


class Words:
    """An encoder whose tokens are words: the sum of a random direction for each."""

    def __init__(self, name: str = "fake:words", dim: int = 16) -> None:
        self.spec = EncoderSpec(name, "1", ("text", "image"), dim)
        self.encoded: list[str] = []
        self.asked: list[str] = []

    def encode(self, items: Iterable[Item], role: str) -> Iterator[Dense]:
        for item in items:
            (self.encoded if role == "document" else self.asked).append(item.id)
            parts = (item.text or "").split() or ["picture"]
            yield Dense([item.id], unit(np.sum([self.direction(part) for part in parts], axis=0))[None])

    def direction(self, word: str) -> np.ndarray:
        seed = hashlib.blake2b((self.spec.name + word).encode(), digest_size=8).digest()
        return np.random.default_rng(int.from_bytes(seed)).standard_normal(self.spec.dim).astype(np.float32)

    def token_spans(self, texts: Sequence[str]) -> list[np.ndarray]:
        spans = [[word.span() for word in re.finditer(r"\S+", text)] for text in texts]
        return [np.array(each, np.int64).reshape(-1, 2) for each in spans]

    def room(self, role: str = "document") -> int:
        return 20


def collection(count: int = 120, langs: Sequence[str] = ("eng", "zho")) -> list[Item]:
    """Documents of 1 to 40 words."""
    random = np.random.default_rng(3)
    return [
        Item(
            f"d{number}",
            " ".join(f"w{each}" for each in random.integers(0, 80, 1 + number * 7 % 40)),
            lang=langs[number % len(langs)],
            meta={"year": 2000 + number % 4, "title": f"w{number % 80}"},
        )
        for number in range(count)
    ]


QUERIES = [Item(f"q{n}", f"w{n} w{n + 1} w{n + 2}", lang="eng") for n in range(6)]
