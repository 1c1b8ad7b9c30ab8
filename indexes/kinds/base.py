"""The contract of kinds: how the vectors of an index are stored, searched and built."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, Self

import numpy as np
import pyarrow as pa

from ...encoders.base import Encoder, EncoderSpec
from ...errors import InputError, check_known
from ...items import Item, Role
from ...runs import Rankings
from ..storage.card import Recall, Space
from ..storage.filters import join_conditions
from ..storage.resume import ItemState
from ..storage.rows import make_rows
from ..storage.storage import Storage

# Filters whose rows are remembered for each space: so many, and more as long as their masks take so many bytes.
MASKS, MASKED = 16, 32 << 20


@dataclass(frozen=True)
class SpaceQueries:
    """The queries that a space can read: their rows in the batch, and their vectors, as its kind encodes them.

    `corrected` says that the mean of their language was subtracted, so that they meet corrected documents.
    """

    space: Space
    rows: Sequence[int]
    vectors: Any
    corrected: bool = False

    def __len__(self) -> int:
        return len(self.rows)

    def select(self, rows: Sequence[int]) -> Self:
        """Those of some rows of the batch, counted within these from 0."""
        places = {row: place for place, row in enumerate(rows)}
        kept = [at for at, row in enumerate(self.rows) if row in places]
        held = self.vectors
        vectors = [held[at] for at in kept] if isinstance(held, list) else held[kept]
        return replace(self, rows=[places[self.rows[at]] for at in kept], vectors=vectors)

    def split(self, size: int) -> Iterator[Self]:
        """So many at a time, still with their rows in the whole batch."""
        for at in range(0, len(self), size):
            yield replace(self, rows=self.rows[at : at + size], vectors=self.vectors[at : at + size])


class Kind(ABC):
    """One way to store and search vectors; `indexes.registry` says which there are.

    An index has one, over the same storage: `detail` is what follows the colon in its name (`faiss:HNSW32`). What it
    keeps in memory is that of the index as it was opened, and of its own `refresh`.
    """

    holds: ClassVar[Literal["dense", "multi", "sparse"]]  # the kind of vectors
    several: ClassVar[bool] = False  # whether it holds those of several encoders
    needs_folder: ClassVar[bool] = False  # whether it has files beside its tables, to be mapped into memory
    writes: ClassVar[bool] = True  # whether `build` changes what is stored
    structures: ClassVar[Sequence[str]] = ()  # of approximate search, that `build` can make

    def __init__(self, storage: Storage, device: str = "auto", detail: str = "") -> None:
        self.storage = storage
        self.device = device
        self.detail = detail

    @classmethod
    def check_detail(cls, name: str, detail: str) -> None:
        """`InputError` if the kind `name` cannot have `detail`; asked before an index is made."""
        if detail:
            raise InputError(f"the index kind {name}:{detail}: {name} takes nothing after it")

    @classmethod
    def check_ann(cls, name: str, ann: str) -> None:
        """`InputError` if an index of the kind `name` cannot `build` this; asked before anything is encoded, too."""
        if not cls.structures and ann not in ("auto", "none"):
            raise InputError(
                f"a {name} index searches exactly and has no {ann}: write auto, or make it of another kind"
            )
        check_known(ann, ("auto", "none", *cls.structures), "kind of approximate index")

    def check_spec(self, spec: EncoderSpec) -> None:  # noqa: B027 (most kinds take any)
        """`InputError` if vectors of an encoder cannot be stored; asked before anything is encoded."""

    # Storing

    @abstractmethod
    def fields(self, space: Space) -> list[pa.Field]:
        """The columns that hold the vectors of a space; the first is `space.column`, null without a vector."""

    @abstractmethod
    def columns(self, space: Space, encoder: Encoder, items: Sequence[Item]) -> list[pa.Array]:
        """Those columns for a window of items; `InputError` if what the encoder makes cannot be stored."""

    def rows(
        self, items: Sequence[Item], states: Sequence[ItemState], spaces: Sequence[Space], encoders: Sequence[Encoder]
    ) -> pa.Table:
        """A window of items as rows of the documents table, encoded for each space."""
        vectors: dict[str, pa.Array] = {}
        for space, encoder in zip(spaces, encoders, strict=True):
            names = [field.name for field in self.fields(space)]
            vectors |= zip(names, self.columns(space, encoder, items), strict=True)
        return make_rows(items, states, vectors, self.storage.tables.documents.schema, self.storage.card.analysis)

    def discard(self) -> None:
        """Forget what `build` has made and what is in memory: the rows change. Earlier editions keep their files."""
        columns = [name for space in self.storage.card.spaces for name in (space.column, space.corrected)]
        for space in self.storage.card.spaces:
            space.ann = None
        self.storage.tables.drop_vector_indexes(columns)

    def refresh(self) -> None:  # noqa: B027 (of most kinds nothing follows)
        """Make what follows from the stored vectors of all spaces, and put their counts on the card."""

    # Searching

    @abstractmethod
    def encode(self, encoder: Encoder, items: Sequence[Item], role: Role) -> Any:
        """The vectors of items that the encoder reads: checked, and in a form that has a length and rows."""

    @abstractmethod
    def read(self, space: Space, ids: Sequence[str]) -> Any:
        """The stored vectors of documents that have some, one for each of `ids`, as `encode` gives those of items."""

    @abstractmethod
    def scan(self, space: Space) -> Iterator[tuple[Sequence[str], Any]]:
        """All documents that have vectors: their ids and these, as `read` gives them, a block at a time."""

    @abstractmethod
    def pool(self, space: Space, vectors: Sequence[Any], owners: np.ndarray, weights: np.ndarray, count: int) -> Any:
        """The vectors of `count` queries, of those of their probes.

        `vectors` are blocks as `encode` gives them; of each probe `owners` int [probes] is its query, and `weights`
        float [probes] its weight, of which each query has one above 0.
        """

    @abstractmethod
    def nearest(self, asked: SpaceQueries, k: int, condition: str | None, exact: bool) -> Rankings:
        """For each query the k documents of the highest score, of those that match an SQL `condition`.

        Of those that tie with the k-th it is the ones with the lowest ids, so that what is found depends neither on the
        order in which documents were added nor on what comes after k; approximate search as far as it can.
        """

    def nearest_by_language(
        self, asked: SpaceQueries, k: int, condition: str | None, langs: Mapping[str | None, str], exact: bool
    ) -> dict[str | None, Rankings]:
        """`nearest` in each of several languages, whose conditions `langs` are `filters.split_languages`."""
        return {lang: self.nearest(asked, k, join_conditions(condition, kept), exact) for lang, kept in langs.items()}

    @abstractmethod
    def build(self, ann: str) -> Recall:
        """Make the search structures, or load them, and say what they find; `InputError` for an unknown `ann`."""
