"""Encoders that need no model: the indexes in `before-rebuild.tar.xz` were made with them, and are searched with them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import scipy.sparse
from crosslens.encoders.base import EncoderSpec
from crosslens.items import Batch, Dense, Item, Multi, Role, Sparse

WORD = re.compile(r"\w+")
DIM = 8


def word_vector(word: str) -> np.ndarray:
    """A unit vector float32 [8] that a word always has."""
    digest = hashlib.blake2b(word.casefold().encode(), digest_size=DIM).digest()
    vector = np.frombuffer(digest, np.uint8).astype(np.float32) - 127.5
    return vector / np.linalg.norm(vector)


def words(item: Item) -> list[str]:
    """The words of an item's text; of a picture the digest of its bytes is the only one."""
    if item.text:
        return WORD.findall(item.text)
    return [hashlib.blake2b(item.image, digest_size=4).hexdigest() if isinstance(item.image, bytes) else "picture"]


class Toy:
    """Base of the toys: one batch for all items."""

    def __init__(self, kind: str, modalities: tuple[str, ...] = ("text",)) -> None:
        dim = 64 if kind == "sparse" else DIM
        self.spec = EncoderSpec(
            f"toy:{kind}", "1", modalities, dim, kind=kind, max_tokens=64,
            metric="dot" if kind == "sparse" else "cosine", normalized=kind != "sparse",
        )  # fmt: skip

    def encode(self, items: Iterable[Item], role: Role) -> Iterator[Batch]:
        listed = list(items)
        ids = [item.id for item in listed]
        if self.spec.kind == "dense":
            sums = np.stack([np.sum([word_vector(word) for word in words(item)], axis=0) for item in listed])
            yield Dense(ids, (sums / np.linalg.norm(sums, axis=1, keepdims=True)).astype(np.float32))
        elif self.spec.kind == "multi":
            yield Multi(ids, [np.stack([word_vector(word) for word in words(item)]) for item in listed])
        else:
            matrix = scipy.sparse.lil_matrix((len(listed), self.spec.dim), dtype=np.float32)
            for row, item in enumerate(listed):
                for word in words(item):
                    matrix[row, int(hashlib.blake2b(word.casefold().encode(), digest_size=1).hexdigest(), 16) % 64] += 1
            yield Sparse(ids, matrix.tocsr())

    def token_spans(self, texts: Sequence[str]) -> list[np.ndarray]:
        return [np.array([match.span() for match in WORD.finditer(text)], np.int64).reshape(-1, 2) for text in texts]

    def room(self, role: Role = "document") -> int:
        return self.spec.max_tokens
