"""What kinds of one vector a document share: how these are stored, and exact search."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pyarrow as pa

from ...encoders.base import Encoder, unit
from ...errors import InputError
from ...items import Item, Role
from ...runs import Rankings
from ..encoding import encode_dense, select_readable
from ..joint import join_vectors, list_wholes
from ..storage.card import Ann, Space
from ..storage.place import DATABASE
from ..storage.rows import make_halves
from ..storage.storage import Storage
from .base import Kind, SpaceQueries
from .loaded import BestHits, LoadedSpace, load_parts, measure_free_memory

if TYPE_CHECKING:
    from .searcher import FlatSearcher

SHARE = 4  # a space is held in memory if it takes no more than one part in so many of what is free
FEW = 4  # queries; fewer, as the first of a process, cost less than holding what they are compared with
# Bytes of vectors that are read at a time where they are not held: for few queries what stays in a cache.
PART, SMALL_PART = 128 << 20, 8 << 20


class DenseKind(Kind):
    """One vector a document and space, of several encoders with known moments; kinds differ in approximate search.

    Exact search is the same for all: the vectors of a space, raw or corrected, are read into memory as float32, if that
    takes no more than a quarter of what is free, and searched there. Larger spaces are read again for each batch of
    queries, a part at a time. So is any at the first search, if that is for less than 4 queries: a process that ends
    with it does without memory for all. Equal vectors have equal scores to the last bit, in each way.
    """

    holds = "dense"
    several = True
    loads_at_once: ClassVar[bool] = False  # at the first search, whatever it is for and however much that takes

    def __init__(self, storage: Storage, device: str = "auto", detail: str = "") -> None:
        super().__init__(storage, device, detail)
        self._loaded: dict[tuple[str, bool], LoadedSpace[FlatSearcher] | None] = {}
        self._searched: set[tuple[str, bool]] = set()
        self._loading = threading.Lock()

    def fields(self, space: Space) -> list[pa.Field]:
        names = [space.column, space.whole] if self.storage.card.share < 1 else [space.column]
        return [pa.field(name, pa.list_(pa.float16(), space.spec.dim)) for name in names]

    def columns(self, space: Space, encoder: Encoder, items: Sequence[Item]) -> list[pa.Array]:
        """Vectors of items; where passages count together with whole documents, the sums of both, and the wholes'."""
        readable, held = select_readable(space.spec, items)
        wholes, of = list_wholes(space.spec, readable)
        encoded = encode_dense(encoder, [*readable, *wholes], "document")
        vectors = np.full((2, len(items), space.spec.dim), np.nan, np.float32)
        vectors[0, held] = encoded[: len(readable)]
        if (share := self.storage.card.share) == 1:
            return [make_halves(vectors[0], held)]
        joint = np.flatnonzero(held)[of >= 0]
        vectors[1, joint] = encoded[len(readable) :][of[of >= 0]]
        sums = join_vectors(vectors[0], vectors[1], share)
        return [make_halves(sums, held), make_halves(vectors[1], np.isin(np.arange(len(items)), joint))]

    def encode(self, encoder: Encoder, items: Sequence[Item], role: Role) -> np.ndarray:
        return encode_dense(encoder, items, role)

    def read(self, space: Space, ids: Sequence[str]) -> np.ndarray:
        rows = {id: row for row, id in enumerate(dict.fromkeys(ids))}
        return self.vectors(space, list(rows), corrected=False)[[rows[id] for id in ids]]

    def scan(self, space: Space) -> Iterator[tuple[Sequence[str], np.ndarray]]:
        return ((ids, vectors) for ids, _, _, vectors in self.storage.tables.blocks(space, False))

    def pool(
        self, space: Space, vectors: Sequence[Any], owners: np.ndarray, weights: np.ndarray, count: int
    ) -> np.ndarray:
        """Their means by weight, at length 1 where the space's vectors have it; float32 [count, dim].

        The weighted sum is divided by the sum of the weights' absolute values, so that it keeps its sign.
        """
        total = np.zeros((count, space.spec.dim), np.float32)
        np.add.at(total, owners, np.concatenate(vectors) * weights[:, None].astype(np.float32))
        sums = np.bincount(owners, np.abs(weights), minlength=count)
        means: np.ndarray = total / sums[:, None].astype(np.float32)
        if space.spec.normalized:
            several = np.bincount(owners, minlength=count) > 1  # a single one has its length
            means[several] = unit(means[several])
        return means

    def vectors(self, space: Space, ids: Sequence[str], corrected: bool) -> np.ndarray:
        """The stored vectors of `ids`, as encoded or corrected, float32 [n, dim]; nan where there is none."""
        if (loaded := self._loaded.get((space.fingerprint, corrected))) is None:
            # A few, which are not worth loading all for.
            name = space.corrected if corrected else space.column
            return self.storage.tables.read_vectors(name, ids, space.spec.dim)
        rows = np.array([loaded.rows.get(id, -1) for id in ids], np.int64)
        found = np.full((len(ids), space.spec.dim), np.nan, np.float32)
        found[rows >= 0] = loaded.searcher.vectors[rows[rows >= 0]]
        return found

    def nearest(self, asked: SpaceQueries, k: int, condition: str | None, exact: bool) -> Rankings:
        if (plan := choose_plan(asked, exact)) is not None:
            return self.search_approximately(asked, k, condition, plan)
        if (loaded := self._load_for(asked)) is not None:
            return loaded.rank(asked.vectors, k, condition)
        return self.search_parts(asked, k, condition)

    def nearest_by_language(
        self, asked: SpaceQueries, k: int, condition: str | None, langs: Mapping[str | None, str], exact: bool
    ) -> dict[str | None, Rankings]:
        if choose_plan(asked, exact) is not None:
            return super().nearest_by_language(asked, k, condition, langs, exact)
        if (loaded := self._load_for(asked)) is not None:
            return loaded.rank_languages(asked.vectors, k, condition, langs)
        best = {lang: BestHits(len(asked.vectors), k) for lang in langs}
        for part in self._read_parts(asked, condition):
            for lang, mask in part.split(None, langs).items():
                best[lang].add(part.ids, part.searcher.nearest(asked.vectors, k, mask))
        return {lang: each.rank() for lang, each in best.items()}

    def search_approximately(self, asked: SpaceQueries, k: int, condition: str | None, plan: Ann) -> Rankings:
        """`nearest` by what `build` has made; exact where a kind makes nothing."""
        return self.nearest(asked, k, condition, exact=True)

    def search_parts(self, asked: SpaceQueries, k: int, condition: str | None) -> Rankings:
        """Exact search that holds only a part of the vectors at a time, and none of them after it."""
        best = BestHits(len(asked.vectors), k)
        for part in self._read_parts(asked, condition):
            best.add(part.ids, part.searcher.nearest(asked.vectors, k))
        return best.rank()

    def _read_parts(self, asked: SpaceQueries, condition: str | None) -> Iterator[LoadedSpace[FlatSearcher]]:
        size = SMALL_PART if len(asked) < FEW else PART
        return load_parts(self.storage.tables, asked.space, asked.corrected, self.device, condition, size)

    def discard(self) -> None:
        self._loaded.clear()
        self._searched.clear()
        super().discard()

    def _load_for(self, asked: SpaceQueries) -> LoadedSpace[FlatSearcher] | None:
        """The vectors in memory, for what is asked and what follows; None where that is to do without."""
        key = (asked.space.fingerprint, asked.corrected)
        if len(asked) < FEW and not (self.loads_at_once or key in self._searched):
            self._searched.add(key)
            return None
        return self.load(asked.space, asked.corrected)

    def load(self, space: Space, corrected: bool) -> LoadedSpace[FlatSearcher] | None:
        """The vectors of a space in memory, raw or corrected: these are two sets; None where they do not fit."""
        key = (space.fingerprint, corrected)
        with self._loading:
            if key not in self._loaded:
                loaded = None
                if self.fits(space):
                    (loaded,) = load_parts(self.storage.tables, space, corrected, self.device)
                    if len(loaded.ids) != space.count:
                        raise InputError(f"{self.storage.path} has changed since it was opened: open it again")
                self._loaded[key] = loaded
            return self._loaded[key]

    def fits(self, space: Space) -> bool:
        """Whether the vectors of a space may be held in memory: not those of a database, which searches them itself."""
        if self.loads_at_once:
            return True
        size = 4 * space.count * space.spec.dim
        return not self.storage.tables.where.startswith(DATABASE) and size <= measure_free_memory() // SHARE


def choose_plan(asked: SpaceQueries, exact: bool) -> Ann | None:
    """The approximate index that serves a search; None for exact search."""
    return asked.space.ann if asked.corrected == asked.space.multilingual and not exact else None
