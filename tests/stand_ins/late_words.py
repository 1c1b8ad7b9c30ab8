"""A late-interaction encoder of words, a collection and queries for it, and MaxSim by a plain loop."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator

import numpy as np
from crosslens.encoders.base import Encoder, EncoderSpec, unit
from crosslens.items import Item, Multi, Role

LANGS = ("eng", "zho", "fas")
WORDS = [f"w{number}" for number in range(400)]


class Words:
    """A late-interaction encoder: of each word its own random direction, turned a little by the words before it."""

    def __init__(self, modalities: tuple[str, ...] = ("text",), dim: int = 32) -> None:
        self.spec = EncoderSpec("fake:words", "1", modalities, dim, kind="multi")  # type: ignore[arg-type]
        self.encoded: list[str] = []

    def encode(self, items: Iterable[Item], role: Role) -> Iterator[Multi]:
        for item in items:
            self.encoded.append(item.id)
            words = (item.text or "").split()
            yield Multi([item.id], [np.stack([self.direction(word, place) for place, word in enumerate(words)])])

    def direction(self, word: str, place: int) -> np.ndarray:
        seed = int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "big")
        turn = np.random.default_rng(place).standard_normal(self.spec.dim) * 0.2
        return unit(np.random.default_rng(seed).standard_normal(self.spec.dim) + turn)


def collection(count: int) -> list[Item]:
    random = np.random.default_rng(3)
    return [
        Item(
            f"d{row}",
            " ".join(random.choice(WORDS, 1 + row * 7 % 30)),
            lang=LANGS[row % 3],
            meta={"year": 2000 + row % 2},
        )
        for row in range(count)
    ]


QUERIES = [Item("long", "w1 w2 w3 w4 w5 w6 w7 w8", lang="eng"), Item("one", "w17", lang="zho"), Item("two", "w8 w90")]


def matrices(encoder: Encoder, items: Iterable[Item], role: Role = "document") -> list[np.ndarray]:
    return [vectors for batch in encoder.encode(items, role) for vectors in batch.vectors]


def looped(query: np.ndarray, document: np.ndarray) -> float:
    total = 0.0
    for vector in query:
        total += max(float(vector @ other) for other in document)
    return total
