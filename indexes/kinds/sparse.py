"""The kind `sparse` (SPLADE, PromptReps): weights of terms, searched exactly through inverted postings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import scipy.sparse

from ...encoders.base import Encoder, check_finite
from ...errors import InputError
from ...items import Item, Role, Sparse
from ...runs import Rankings
from ..encoding import encode_batches, select_readable
from ..storage.card import Recall, Space
from ..storage.rows import make_lists, read_lists
from ..storage.storage import Storage
from ..storage.tables import Tables
from .base import MASKS, Kind, SpaceQueries
from .postings import Postings, Rows
from .recall import load_spaces


class SparseKind(Kind):
    """Weights of terms instead of vectors; mode `dense` means search by these weights.

    The weights of each window of items are committed with its rows (`add` resumes as with every kind, and a kill
    loses the window under way). From them `add` makes the postings when it is done, memory-mapped files that are
    searched exactly: scores are inner products in float32, equal ones are ordered by id, and documents that share no
    term with the query are no hits. One encoder an index. There is no language correction: weights of terms have no
    mean that stands in the way.
    """

    holds = "sparse"
    needs_folder = True
    writes = False

    def __init__(self, storage: Storage, device: str = "auto", detail: str = "") -> None:
        super().__init__(storage, device, detail)
        self._postings: Postings | None = None
        self._mask = lru_cache(MASKS)(_find_matching)

    def build(self, ann: str) -> Recall:
        """Open the postings; `ann` is `auto` or `none`, as search is exact."""
        return load_spaces(self, ann, "postings", self._open)

    def fields(self, space: Space) -> list[pa.Field]:
        """The terms, and their weights."""
        terms, weights = space.column, f"w_{space.fingerprint}"
        return [pa.field(terms, pa.list_(pa.int32())), pa.field(weights, pa.list_(pa.float32()))]

    def columns(self, space: Space, encoder: Encoder, items: Sequence[Item]) -> list[pa.Array]:
        readable, held = select_readable(space.spec, items)
        weights = self.encode(encoder, readable, "document")
        terms = pa.array(weights.indices, pa.int32())
        return make_lists(np.diff(weights.indptr), held, terms, pa.array(weights.data, pa.float32()))

    def encode(self, encoder: Encoder, items: Sequence[Item], role: Role) -> scipy.sparse.csr_matrix:
        """Weights float32 [n, vocabulary] without zeros; `InputError` if some are negative or not finite."""
        spec = encoder.spec
        blocks = [scipy.sparse.csr_matrix((0, spec.dim), dtype=np.float32)]
        for batch in encode_batches(encoder, items, role, Sparse):
            weights = scipy.sparse.csr_matrix(batch.vectors, dtype=np.float32)
            check_finite(batch.ids, np.asarray(weights.sum(axis=1)), spec.name, spec.dtype)
            if weights.nnz and weights.data.min() < 0:
                raise InputError(f"{spec.name} gave weights below 0, which an index of terms does not rank by")
            weights.eliminate_zeros()
            blocks.append(weights)
        found = scipy.sparse.vstack(blocks, format="csr")
        found.sort_indices()
        return found

    def read(self, space: Space, ids: Sequence[str]) -> scipy.sparse.csr_matrix:
        tables = self.storage.tables
        names = ["id", *(field.name for field in self.fields(space))]
        read = [
            self._read_batch(space, batch)
            for batch in tables.scan_ids(tables.documents, names, list(dict.fromkeys(ids)))
        ]
        rows = {id: row for row, id in enumerate(id for listed, _ in read for id in listed)}
        return scipy.sparse.vstack([matrix for _, matrix in read], format="csr")[[rows[id] for id in ids]]

    def scan(self, space: Space) -> Iterator[Rows]:
        names = [field.name for field in self.fields(space)]
        for batch in self.storage.tables.scan(["id", *names], f"{space.column} IS NOT NULL"):
            yield self._read_batch(space, batch)

    def pool(
        self, space: Space, vectors: Sequence[Any], owners: np.ndarray, weights: np.ndarray, count: int
    ) -> scipy.sparse.csr_matrix:
        """Their sums by weight; terms whose sum is not above 0 are left out, as in Rocchio's feedback."""
        placed = (weights.astype(np.float32), (owners, np.arange(len(owners))))
        summed = scipy.sparse.csr_matrix(placed, (count, len(owners))) @ scipy.sparse.vstack(vectors, format="csr")
        summed.data = np.maximum(summed.data, 0)
        summed.eliminate_zeros()
        return summed

    def nearest(self, asked: SpaceQueries, k: int, condition: str | None, exact: bool) -> Rankings:
        postings = self._open(asked.space)
        return postings.nearest(asked.vectors, k, self._mask(postings, self.storage.tables, condition))

    def discard(self) -> None:
        self._postings = None
        self._mask.cache_clear()
        super().discard()

    def refresh(self) -> None:
        """The postings again, from the weights that are stored."""
        for space in self.storage.card.spaces:
            rows = self.scan(space)
            if self.storage.folder is None:
                self._postings = Postings.of(rows, space.spec.dim)
            else:
                folder = self.storage.folder / self.storage.name_file(_name_folder(space))
                self._postings = Postings.write(folder, rows, space.spec.dim)
            space.counts = self.storage.tables.count_read(space)

    def _read_batch(self, space: Space, batch: pa.RecordBatch) -> Rows:
        (starts, terms), (_, weights) = (read_lists(batch.column(field.name)) for field in self.fields(space))
        shape = (len(batch), space.spec.dim)
        matrix = scipy.sparse.csr_matrix((weights.to_numpy(), terms.to_numpy(), starts), shape)
        return batch.column("id").to_pylist(), matrix

    def _open(self, space: Space) -> Postings:
        if self._postings is None:
            assert self.storage.folder is not None
            folder = self.storage.folder / self.storage.find_file(_name_folder(space))
            self._postings = Postings.open(folder, space.spec.dim)
            if len(self._postings) != space.count:
                raise InputError(f"{self.storage.path} has changed since it was opened: open it again")
        return self._postings


def _name_folder(space: Space) -> str:
    return f"postings_{space.fingerprint}"


def _find_matching(postings: Postings, tables: Tables, condition: str | None) -> np.ndarray | None:
    """The documents of the postings that match an SQL condition, as a mask; None without one."""
    return None if condition is None else postings.mask(tables.list_ids(condition))
