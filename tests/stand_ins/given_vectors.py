"""Items with vectors that are given and not encoded, in an index of any kind, with filters and queries."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from crosslens.encoders.base import EncoderSpec, unit
from crosslens.indexes.base import Index
from crosslens.indexes.registry import create_index, open_index
from crosslens.indexes.storage.filters import Where
from crosslens.items import Dense, Item

DIM = 32
COUNT = 2000
LANGS = ("eng", "zho", "fas", "rus")
SPEC = EncoderSpec("fake:given", "1", ("text",), DIM)
ITEMS = [
    Item(f"d{row}", f"text {row}", lang="swa" if row % 40 == 0 else LANGS[row % 4], meta={"year": row % 100})
    for row in range(COUNT)
]


def clustered(count: int, seed: int = 0) -> np.ndarray:
    """Vectors around 40 centres, as embeddings are, and not at random in all directions."""
    random = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(40, DIM))
    return unit(centres[random.integers(0, 40, count)] + 0.7 * random.normal(size=(count, DIM)))


VECTORS = clustered(COUNT)


class Given:
    """An encoder whose queries' vectors are made beforehand."""

    spec = SPEC

    def encode(self, items: Iterable[Item], role: str) -> Iterator[Dense]:
        for item in items:
            seed = int("".join(each for each in item.id if each.isdigit()))
            yield Dense([item.id], clustered(1, 1000 + seed))


FILTERS: list[Where | None] = [
    None,
    {"lang": "swa"},
    {"lang": ["swa", "eng"], "year": 20},
    {"lang": "swa", "year": [1, 2]},
]
QUERIES = [Item(f"q{number}", "query", lang="eng") for number in range(30)]


def filled(kind: str, path: str | Path = "memory://", grace: float | None = None) -> Index:
    index = create_index(path, kind=kind, lexical=False, grace=grace)
    index.add_vectors(ITEMS, VECTORS, SPEC)
    return index


def opened(path: Path) -> Index:
    return open_index(path, encoders=Given())
