"""Items to vectors for an index: finite, in order, and one for each item that an encoder reads."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from ..encoders.base import Encoder, EncoderSpec, check_finite
from ..errors import InputError
from ..items import Batch, Dense, Item, Role


class Made:
    """An encoder's stand-in for vectors that were made elsewhere: hands them out by id."""

    def __init__(self, spec: EncoderSpec, items: Sequence[Item], vectors: np.ndarray) -> None:
        if vectors.shape != (len(items), spec.dim):
            raise InputError(
                f"{len(items)} items of dim {spec.dim} cannot have vectors of shape {vectors.shape}"
            )
        self.spec = spec
        self._vectors = vectors
        self._rows = {item.id: row for row, item in enumerate(items)}

    def encode(self, items: Iterable[Item], role: Role) -> Iterator[Batch]:
        ids = [item.id for item in items]
        yield Dense(ids, np.asarray(self._vectors[[self._rows[id] for id in ids]], np.float32))


def listed(encoders: Encoder | Sequence[Encoder]) -> list[Encoder]:
    return list(encoders) if isinstance(encoders, Sequence) else [encoders]


def encoded(
    encoder: Encoder, items: Sequence[Item], role: Role = "document"
) -> tuple[np.ndarray, np.ndarray]:
    """Vectors float32 [n, dim], and the mask of the items that the encoder reads; the other rows are zero.

    `InputError` if the encoder gives vectors that are not finite (as float16, too), or not one an item in
    order.
    """
    spec = encoder.spec
    held = np.array([bool(item.modalities & set(spec.modalities)) for item in items], dtype=bool)
    vectors = np.zeros((len(items), spec.dim), np.float32)
    expected = [item.id for item, mine in zip(items, held, strict=True) if mine]
    ids: list[str] = []
    blocks: list[np.ndarray] = []
    if expected:
        for batch in encoder.encode((item for item, mine in zip(items, held, strict=True) if mine), role):
            if not isinstance(batch, Dense):
                raise InputError(f"{spec.name} is not a dense encoder")
            check_finite(batch.ids, batch.vectors, spec.name, spec.dtype)
            ids += batch.ids
            blocks.append(batch.vectors)
        if ids != expected:
            raise InputError(
                f"{spec.name} gave {len(ids)} vectors for {len(expected)} items, or in another order"
            )
        vectors[held] = np.concatenate(blocks)
        if np.abs(vectors).max(initial=0) > np.finfo(np.float16).max:
            raise InputError(f"{spec.name} gave vectors that do not fit into float16")
    return vectors, held
