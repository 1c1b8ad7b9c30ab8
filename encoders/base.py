"""The contract between encoders and everything else: `Encoder`, and the `EncoderSpec` that travels with vectors."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeGuard, runtime_checkable

import numpy as np

from ..errors import InputError, SpecMismatch, list_few
from ..items import Batch, Item, Modality, Role, check_text, hash_json
from ..media.modalities import MEDIA


@dataclass(frozen=True)
class EncoderSpec:
    """All that decides what a vector means; stored beside the vectors, and checked before a search.

    `name` is the SPEC that loads the encoder again (`hf:intfloat/multilingual-e5-small`). `revision` is the hub
    commit or the sha256 of the weights. `max_tokens` counts special tokens; `max_pixels` is width times height after
    resizing by crosslens. `dtype` is what the model computed in. Name and dtype are recorded but are not part of the
    space: a checkpoint may move, and a laptop may search in float32 what a GPU encoded in bfloat16 (their cosine is
    above 0.999).
    """

    name: str = field(compare=False)
    revision: str
    modalities: tuple[Modality, ...]
    dim: int
    kind: Literal["dense", "multi", "sparse"] = "dense"
    pooling: str = ""
    query_prompt: str = ""
    document_prompt: str = ""
    special_tokens: str = ""
    max_tokens: int = 0
    max_pixels: int = 0
    normalized: bool = True
    metric: Literal["cosine", "dot"] = "cosine"
    extra: Mapping[str, object] = field(default_factory=dict)
    dtype: str = field(default="float32", compare=False)

    @property
    def space(self) -> dict[str, object]:
        """What decides if vectors may be compared: all fields but the name and the dtype, JSON-able."""
        data = self.to_json()
        return {f.name: data[f.name] for f in dataclasses.fields(self) if f.compare}

    @property
    def fingerprint(self) -> str:
        """12 hex digits; equal for encoders whose vectors may be mixed."""
        return hash_json(self.space)

    def prompt(self, role: Role) -> str:
        """What stands before a text of that role."""
        return self.query_prompt if role == "query" else self.document_prompt

    def to_json(self) -> dict[str, object]:
        """A JSON-able dict that `from_json` reads back."""
        return {**dataclasses.asdict(self), "modalities": list(self.modalities), "extra": dict(self.extra)}

    @classmethod
    def from_json(cls, data: Mapping[str, object]) -> EncoderSpec:
        """`InputError` on a missing or unknown field."""
        known = {f.name for f in dataclasses.fields(cls)}
        if unknown := set(data) - known:
            raise InputError(f"encoder spec with unknown fields {sorted(unknown)}: written by a newer crosslens")
        try:
            return cls(**{**data, "modalities": tuple(data["modalities"])})  # type: ignore[arg-type]
        except (TypeError, KeyError) as error:
            raise InputError(f"encoder spec is incomplete: {error}") from None

    def difference(self, other: EncoderSpec) -> str:
        """What differs from `other`, as `pooling: mean, there cls`; empty if the spaces are the same."""
        mine, theirs = self.space, other.space
        return "; ".join(f"{key}: {mine[key]!r}, there {theirs[key]!r}" for key in mine if mine[key] != theirs[key])

    def require(self, other: EncoderSpec) -> None:
        """`SpecMismatch` naming the difference unless vectors of both may be compared."""
        if difference := self.difference(other):
            raise SpecMismatch(
                f"the encoder {self.name} is not the one that made these vectors, {other.name} ({difference})"
            )


@runtime_checkable
class Encoder(Protocol):
    """Turns a stream of items into a stream of batches.

    `encode` keeps order and ids, reads its input a bounded window ahead, and uses of each item the modalities that
    `spec` lists (two at once are fused into one vector). Raises `InputError` naming the first item that holds
    none of them, and `NotFinite` naming the items whose vectors are not finite.
    """

    spec: EncoderSpec

    def encode(self, items: Iterable[Item], role: Role) -> Iterator[Batch]: ...


@runtime_checkable
class Tokenizes(Protocol):
    """What an encoder of text has, too, if it can say where its tokens are: documents are split by them."""

    spec: EncoderSpec

    def token_spans(self, texts: Sequence[str]) -> list[np.ndarray]:
        """The tokens of each text, int64 [tokens, 2]: first character, and the one after the last.

        In the order of the text, all of it, without the special tokens and the prompt. Tokens that are parts of
        one character share its span. `InputError` if the tokenizer does not say.
        """
        ...

    def room(self, role: Role = "document") -> int:
        """How many tokens of a text `max_tokens` leaves, beside the special tokens and the prompt of `role`."""
        ...


def has_spans(encoder: Encoder) -> TypeGuard[Tokenizes]:
    """Whether the encoder can say where its tokens are."""
    try:
        return isinstance(encoder, Tokenizes) and bool(encoder.token_spans(["a"]))
    except InputError:
        return False


class NotFinite(InputError):
    """A model returned NaN or infinity."""


def check_finite(ids: Iterable[str], rows: Iterable[np.ndarray], name: str, dtype: str) -> None:
    """`NotFinite` naming the first ids whose row, floats of any shape, is not finite."""
    if isinstance(rows, np.ndarray) and np.isfinite(rows).all():
        return
    if bad := [each for each, row in zip(ids, rows, strict=True) if not np.isfinite(row).all()]:
        shown = list_few(bad, 5)
        raise NotFinite(f"{name} in {dtype} gave vectors that are not finite for {shown}; try ?dtype=float32")


def check_modalities(items: Iterable[Item], spec: EncoderSpec) -> None:
    """`InputError` naming the first of `items` that is no item, or holds nothing that the encoder reads."""
    for item in items:
        if not isinstance(item, Item):
            raise InputError(f"an encoder takes a list of Items, as [Item('1', 'a cat')], and no {type(item).__name__}")
        check_text(item)
        if (held := item.modalities).isdisjoint(spec.modalities):
            what = " and ".join(sorted(held)) if held else f"neither {' nor '.join(('text', *MEDIA))}"
            raise InputError(f"item {item.id!r} holds {what}, but {spec.name} encodes {' and '.join(spec.modalities)}")


def unit(vectors: np.ndarray) -> np.ndarray:
    """Rows of [..., dim] scaled to length 1, as float32; a zero row stays zero."""
    vectors = np.asarray(vectors, dtype=np.float32)
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.where(lengths == 0, 1, lengths)


def encode_matrix(encoder: Encoder, items: Iterable[Item], role: Role) -> np.ndarray:
    """All vectors of a dense encoder at once, float32 [n, dim]: for queries and small collections."""
    blocks = []
    for batch in encoder.encode(items, role):
        if not isinstance(batch.vectors, np.ndarray):
            raise InputError(f"{encoder.spec.name} is not a dense encoder")
        blocks.append(batch.vectors)
    return np.concatenate(blocks) if blocks else np.zeros((0, encoder.spec.dim), np.float32)
