"""What flows in: one `Item` for queries and documents, text and image; encoders turn items into batches."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

import numpy as np

if TYPE_CHECKING:
    import PIL.Image
    import scipy.sparse

Modality = Literal["text", "image"]
Role = Literal["query", "document"]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Item:
    """A query or a document: text, an image, or both; `lang` is an ISO 639-3 code as NeuCLIR writes it.

    `image` is a path, encoded bytes or a PIL image, and is opened when it is encoded, never before.
    """

    id: str
    text: str | None = None
    image: Path | bytes | PIL.Image.Image | None = None
    lang: str | None = None
    meta: Mapping[str, object] = field(default_factory=dict)

    @property
    def modalities(self) -> frozenset[Modality]:
        """What the item holds; blank text does not count."""
        held: list[Modality] = []
        if self.text is not None and self.text.strip():
            held.append("text")
        if self.image is not None:
            held.append("image")
        return frozenset(held)

    def content_hash(self) -> str:
        """32 hex digits over text, image and language: equal content gives equal vectors."""
        digest = hashlib.blake2b(digest_size=16)
        for part in (self.text, self.lang):
            digest.update(b"\0" if part is None else b"\1" + part.encode("utf-8", "surrogatepass"))
        if isinstance(self.image, Path):
            # A path stands for its content until the file changes; reading a million photos would not be a resume.
            stat = self.image.stat() if self.image.exists() else None
            digest.update(f"{self.image}|{stat and (stat.st_size, stat.st_mtime_ns)}".encode())
        elif isinstance(self.image, bytes):
            digest.update(self.image)
        elif self.image is not None:
            digest.update(f"{self.image.mode}{self.image.size}".encode() + self.image.tobytes())
        return digest.hexdigest()


@dataclass(frozen=True, slots=True)
class Dense:
    """One vector an item: `vectors` is float32 [n, dim]."""

    ids: Sequence[str]
    vectors: np.ndarray


@dataclass(frozen=True, slots=True)
class Multi:
    """Many vectors an item (late interaction): `vectors[i]` is float32 [tokens_i, dim]."""

    ids: Sequence[str]
    vectors: Sequence[np.ndarray]


@dataclass(frozen=True, slots=True)
class Sparse:
    """Weighted terms an item: `vectors` is a CSR matrix, float32 [n, vocabulary]."""

    ids: Sequence[str]
    vectors: scipy.sparse.csr_matrix


Batch = Dense | Multi | Sparse


def windows(stream: Iterable[T], size: int) -> Iterator[list[T]]:
    """Consecutive lists of at most `size` elements; the stream is read no further ahead than that."""
    window: list[T] = []
    for element in stream:
        window.append(element)
        if len(window) == size:
            yield window
            window = []
    if window:
        yield window
