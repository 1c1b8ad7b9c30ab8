"""Every kind of index with an encoder for it, and a collection: what `test_indexes*.py` run over.

An encoder gives each word, and the bytes of each picture, a vector of its own; by the kind of index an item has their
sum, all of them, or their weights as terms.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import scipy.sparse
from crosslens.encoders.base import EncoderSpec, unit
from crosslens.indexes.registry import create_index
from crosslens.indexes.storage.card import Windows
from crosslens.items import Batch, Dense, Item, Multi, Sparse
from crosslens.runs import Run

LANGS = ("eng", "zho", "fas", "swa")
TERMS = 4096


class Hashing:
    """A deterministic encoder of a kind of vectors, without a model; `prompted` makes queries other than documents."""

    def __init__(
        self,
        kind: str = "dense",
        name: str = "fake:hashing",
        modalities: tuple[str, ...] = ("text", "image"),
        dim: int = 24,
        prompted: bool = False,
    ) -> None:
        dim = TERMS if kind == "sparse" else dim
        self.spec = EncoderSpec(name, "1", modalities, dim, kind=kind, normalized=kind != "sparse")  # type: ignore[arg-type]
        self.encoded = 0  # documents
        self.prompted = prompted

    def parts(self, item: Item, role: str) -> list[bytes]:
        """What an item consists of, as far as the encoder reads it."""
        parts = [role.encode()] if self.prompted else []
        if "text" in self.spec.modalities:
            parts += [word.encode() for word in (item.text or "").split()]
        if "image" in self.spec.modalities and isinstance(item.image, bytes):
            parts.append(item.image)
        return parts

    def encode(self, items: Iterable[Item], role: str) -> Iterator[Batch]:
        for item in items:
            self.encoded += role == "document"
            yield self.batch(item.id, self.parts(item, role))

    def batch(self, id: str, parts: Sequence[bytes]) -> Batch:
        if self.spec.kind == "sparse":
            terms = [self.seed(part) % TERMS for part in parts]
            rows = np.zeros(len(terms), int)
            return Sparse([id], scipy.sparse.csr_matrix((np.ones(len(terms)), (rows, terms)), (1, TERMS)))
        vectors = np.stack([direction(self.seed(part), self.spec.dim) for part in parts])
        return Multi([id], [vectors]) if self.spec.kind == "multi" else Dense([id], unit(vectors.sum(axis=0))[None])

    def token_spans(self, texts: Sequence[str]) -> list[np.ndarray]:
        spans = [[word.span() for word in re.finditer(r"\S+", text)] for text in texts]
        return [np.array(each, np.int64).reshape(-1, 2) for each in spans]

    def room(self, role: str = "document") -> int:
        return 64

    def seed(self, part: bytes) -> int:
        return digest(part + self.spec.name.encode())


@cache
def digest(part: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(part, digest_size=8).digest(), "big")


@cache
def direction(seed: int, dim: int) -> np.ndarray:
    return unit(np.random.default_rng(seed).standard_normal(dim).astype(np.float32))


@dataclass(frozen=True)
class Case:
    """A kind of index: `name` in `create_index`, and the kind of vectors that it holds."""

    name: str
    holds: str = "dense"
    windows: Windows | None = None

    def create(self, path: str | Path = "memory://", **settings: Any) -> Any:
        return create_index(path, kind=self.name, passages=self.windows, **settings)

    def filled(self, items: Sequence[Item], path: str | Path = "memory://", **settings: Any) -> Any:
        index = self.create(path, **settings)
        assert index.add(items, self.encoder()) == len(index) == len(items)
        return index

    def whole(self) -> Any:
        """An index of `collection()` that tests share, and only search."""
        return _fill_once(self)

    def encoder(self, **settings: Any) -> Hashing:
        return Hashing(self.holds, **settings)

    def vectors(self, batches: Iterable[Batch]) -> list[np.ndarray]:
        """A matrix float32 an item, as the index stores it: with one row, or one a token."""
        found = []
        for batch in batches:
            rows = batch.vectors.toarray() if isinstance(batch, Sparse) else batch.vectors
            found += [np.atleast_2d(np.asarray(row, np.float32)) for row in rows]
        return found

    def scores(self, queries: list[np.ndarray], documents: list[np.ndarray]) -> np.ndarray:
        """Of each document for each query: the sum over a query's vectors of the best of the document's."""
        return np.array([[(one @ other.T).max(axis=1).sum() for other in documents] for one in queries])

    def found(self, query: Item, items: Iterable[Item]) -> set[str]:
        """The ids of the items that search by vectors can find: for weights of terms those that share one."""
        encoder = self.encoder()
        mine = set(encoder.parts(query, "query"))
        return {item.id for item in items if self.holds != "sparse" or mine & set(encoder.parts(item, "document"))}


@cache
def _fill_once(case: Case) -> Any:
    return case.filled(collection())


CASES = {
    "lance": Case("lance"),
    "flat": Case("flat"),
    "faiss": Case("faiss:Flat"),
    "sparse": Case("sparse", "sparse"),
    "late": Case("late", "multi"),
    "passages": Case("lance", windows=Windows(8, 4)),  # documents that are one passage are found as if not split
}


def png(shade: int) -> bytes:
    out = io.BytesIO()
    PIL.Image.new("RGB", (4, 4), (shade, 0, 0)).save(out, "PNG")
    return out.getvalue()


def collection(texts: int = 700, photos: int = 30, langs: tuple[str, ...] = LANGS) -> list[Item]:
    """By itself more texts than fit into one window, with metadata, and photos without a language."""
    random = np.random.default_rng(7)
    words = [f"w{number}" for number in range(150)]
    items = [
        Item(
            f"t{number}",
            " ".join(random.choice(words, 6)),
            lang=langs[number % len(langs)],
            meta={"year": 2000 + number % 5, "source": "a'b" if number % 2 else 'c"d', "tags": [number % 3]},
        )
        for number in range(texts)
    ]
    return items + [Item(f"p{number}", image=png(number)) for number in range(photos)]


QUERIES = [
    Item("words", "w1 w2 w3", lang="eng"),
    Item("one", "w7", lang="swa"),
    Item("photo", image=png(5)),
    Item("both", "w9", png(3), lang="fas"),
]


def same(one: Run, other: Run, queries: Sequence[Item] | None = None) -> None:
    """Both runs have the same documents, at the same scores but for rounding."""
    if queries is not None:
        other = replace(other, queries=tuple(queries))
    assert [query.id for query in one.queries] == [query.id for query in other.queries]
    for query in one.queries:
        found, expected = dict(one[query.id]), dict(other[query.id])
        assert found.keys() == expected.keys()
        for id, score in expected.items():
            assert abs(found[id] - score) < 2e-3
