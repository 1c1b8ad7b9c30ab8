"""Items to vectors for an index: finite, in order, and one lot for each item that an encoder reads."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import compress
from typing import Any, TypeVar

import numpy as np

from ..encoders.base import Encoder, EncoderSpec, check_finite
from ..encoders.registry import load_encoder
from ..errors import InputError
from ..items import Batch, Dense, Item, Multi, Role, Sparse
from ..pipeline import note_encoded
from .storage.card import Space

B = TypeVar("B", Dense, Multi, Sparse)
KINDS = {Dense: "dense", Multi: "late-interaction", Sparse: "sparse"}


class Precomputed:
    """An encoder's stand-in for vectors that were made elsewhere: hands them out by the ids of the items.

    `vectors` has a row an item, in the order of the items: float [n, dim], a sparse matrix [n, dim], or a sequence of
    float [tokens_i, dim], by the kind of `spec`. `InputError` if their number or shape is another.
    """

    def __init__(self, spec: EncoderSpec, items: Sequence[Item], vectors: Any) -> None:
        if spec.kind == "multi":
            if len(items) != len(vectors):
                raise InputError(f"{len(items)} items cannot have the vectors of {len(vectors)}")
        elif vectors.shape != (len(items), spec.dim):
            raise InputError(f"{len(items)} items of dim {spec.dim} cannot have vectors of shape {vectors.shape}")
        self.spec = spec
        self._vectors = vectors.tocsr() if spec.kind == "sparse" else vectors
        self._rows = {item.id: row for row, item in enumerate(items)}

    def encode(self, items: Iterable[Item], role: Role) -> Iterator[Batch]:
        ids = [item.id for item in items]
        rows = [self._rows[id] for id in ids]
        if self.spec.kind == "multi":
            yield Multi(ids, [np.asarray(self._vectors[row], np.float32) for row in rows])
        elif self.spec.kind == "sparse":
            yield Sparse(ids, self._vectors[rows])
        else:
            yield Dense(ids, np.asarray(self._vectors[rows], np.float32))


class SpaceEncoders:
    """The encoders of an index's spaces: those that were given, and others loaded by their SPEC when first needed."""

    def __init__(self, device: str = "auto", trust_remote_code: bool = False) -> None:
        self.device = device
        self.trust_remote_code = trust_remote_code
        self._held: dict[str, Encoder] = {}

    def give(self, encoder: Encoder) -> None:
        """Use this encoder for its space."""
        self._held[encoder.spec.fingerprint] = encoder

    def find(self, space: Space) -> Encoder | None:
        """The encoder of a space if it is at hand, and encodes whatever it is given."""
        encoder = self._held.get(space.fingerprint)
        return None if isinstance(encoder, Precomputed) else encoder

    def get(self, space: Space) -> Encoder:
        """The encoder of a space; `SpecMismatch` if the one that its SPEC names is another now."""
        if space.fingerprint not in self._held:
            encoder = self.load(space.spec.name)
            encoder.spec.require(space.spec)
            self.give(encoder)
        return self._held[space.fingerprint]

    def load(self, spec: str) -> Encoder:
        """The encoder that a SPEC names, on the device of this index."""
        return load_encoder(spec, device=self.device, trust_remote_code=self.trust_remote_code)


def select_readable(spec: EncoderSpec, items: Sequence[Item]) -> tuple[list[Item], np.ndarray]:
    """The items that hold something which an encoder reads, and their mask, bool [n]."""
    read = set(spec.modalities)
    held = [not read.isdisjoint(item.modalities) for item in items]
    return list(compress(items, held)), np.array(held, dtype=bool)


def encode_batches(encoder: Encoder, items: Sequence[Item], role: Role, kind: type[B]) -> Iterator[B]:
    """What an encoder makes of items that it reads, a batch at a time.

    `InputError` if that is not `kind`, or not of each item in order.
    """
    name = encoder.spec.name
    ids: list[str] = []
    for batch in encoder.encode(iter(items), role) if items else ():
        if not isinstance(batch, kind):
            raise InputError(f"{name} is not a {KINDS[kind]} encoder")
        ids += batch.ids
        note_encoded(len(batch.ids))
        yield batch
    if ids != [item.id for item in items]:
        raise InputError(f"{name} gave {len(ids)} vectors for {len(items)} items, or in another order")


def check_halves(vectors: np.ndarray, name: str, id: str = "") -> None:
    """`InputError` if vectors of the encoder `name` (of the item `id`) do not fit into float16."""
    if np.abs(vectors).max(initial=0) > np.finfo(np.float16).max:
        of = f" for {id!r}" if id else ""
        raise InputError(f"{name} gave vectors{of} that do not fit into float16")


def encode_dense(encoder: Encoder, items: Sequence[Item], role: Role) -> np.ndarray:
    """Vectors float32 [n, dim] of items that the encoder reads.

    `InputError` if they are not finite, do not fit into float16, or are not one an item in order.
    """
    spec = encoder.spec
    blocks = [np.zeros((0, spec.dim), np.float32)]
    for batch in encode_batches(encoder, items, role, Dense):
        check_finite(batch.ids, batch.vectors, spec.name, spec.dtype)
        blocks.append(batch.vectors)
    vectors = np.concatenate(blocks)
    check_halves(vectors, spec.name)
    return vectors
