"""What kinds of dense vectors have in common: a column of float16 vectors a space."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from ...encoders.base import Encoder, unit
from ...items import Item, Role
from ..encoding import encode_dense, select_readable
from ..storage.card import Space
from ..storage.rows import make_halves
from .base import Kind


class DenseKind(Kind):
    """One vector a document and space, of several encoders, whose moments are known; kinds differ in how they search."""

    holds = "dense"
    several = True

    def fields(self, space: Space) -> list[pa.Field]:
        return [pa.field(space.column, pa.list_(pa.float16(), space.spec.dim))]

    def columns(self, space: Space, encoder: Encoder, items: Sequence[Item]) -> list[pa.Array]:
        readable, held = select_readable(space.spec, items)
        vectors = np.zeros((len(items), space.spec.dim), np.float32)
        vectors[held] = encode_dense(encoder, readable, "document")
        return [make_halves(vectors, held)]

    def encode(self, encoder: Encoder, items: Sequence[Item], role: Role) -> np.ndarray:
        return encode_dense(encoder, items, role)

    def pool(self, space: Space, vectors: Sequence[Any], owners: np.ndarray, count: int) -> np.ndarray:
        """Their means, at length 1 where the space's vectors have it; float32 [count, dim]."""
        total = np.zeros((count, space.spec.dim), np.float32)
        np.add.at(total, owners, np.concatenate(vectors))
        numbers = np.bincount(owners, minlength=count)
        means: np.ndarray = total / numbers[:, None].astype(np.float32)
        if space.spec.normalized:
            several = numbers > 1  # a single one has its length
            means[several] = unit(means[several])
        return means

    def vectors(self, space: Space, ids: Sequence[str], corrected: bool) -> np.ndarray:
        """The stored vectors of `ids`, as encoded or corrected, float32 [n, dim]; nan where there is none."""
        name = space.corrected if corrected else space.column
        return self.storage.tables.read_vectors(name, ids, space.spec.dim)
