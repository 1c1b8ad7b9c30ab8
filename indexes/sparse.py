"""An index of sparse vectors (SPLADE, PromptReps): weights of terms, searched exactly through inverted postings."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import scipy.sparse

from ..encoders.base import Encoder, EncoderSpec, check_finite
from ..errors import InputError
from ..items import Batch, Item, Role, Sparse
from .ann import CUTOFFS
from .base import Recall, Where
from .card import Card, Space
from .encoding import Made
from .lance import TOGETHER, LanceIndex
from .postings import Postings, Rows
from .table import as_read, failing, rows, where_sql

MASKS = 16  # filters whose documents are remembered


class SparseIndex(LanceIndex):
    """A `LanceIndex` of weights of terms instead of vectors; mode `dense` means search by these weights.

    The weights of each window of items are committed with its rows (`add` resumes as every index does, and a kill
    loses the window under way). From them `add` makes the postings anew when it is done, memory-mapped files that
    are searched exactly: scores are inner products in float32, equal ones are ordered by id, and documents that
    share no term with the query are no hits. One encoder an index; full text, filters and documents are the same as
    elsewhere. There is no language correction: weights of terms have no mean that stands in the way.
    """

    holds = "sparse"
    several = False
    needs_folder = True

    def __init__(self, path: str | Path, card: Card, **settings: Any) -> None:
        super().__init__(path, card, **settings)
        self._opened: Postings | None = None
        self._masks: dict[str, np.ndarray] = {}

    def add_vectors(self, items: Sequence[Item], vectors: Any, spec: EncoderSpec) -> int:
        """`add` with weights made elsewhere: a sparse matrix [n, vocabulary], a row an item in the same order."""
        return self.add(items, _Made(spec, items, scipy.sparse.csr_matrix(vectors, dtype=np.float32)))

    def build(self, ann: str = "auto") -> Recall:
        """Open the postings; `ann` is `auto` or `none`, as search is exact."""
        if ann not in ("auto", "none"):
            raise InputError(f"a sparse index searches exactly and has no {ann}: write auto")
        started = time.perf_counter()
        self._require_complete()
        for space in self.card.spaces:
            self._postings(space)
        return Recall("postings", 0, dict.fromkeys(CUTOFFS, 1.0), round(time.perf_counter() - started, 3))

    # What a LanceIndex does otherwise

    def _dense(
        self, queries: Sequence[Item], k: int, where: Where | None, exact: bool, correct: bool
    ) -> dict[str, list[tuple[str, float]]]:
        hits: dict[str, list[tuple[str, float]]] = {query.id: [] for query in queries}
        for space in self.card.spaces:
            postings = self._postings(space)
            allowed = self._allowed(postings, where)
            for start in range(0, len(queries), TOGETHER):
                part = queries[start : start + TOGETHER]
                weights, held = weighted(self._encoder(space), part, "query")
                found = postings.nearest(weights[np.flatnonzero(held)], k, allowed)
                asked = (query for query, mine in zip(part, held, strict=True) if mine)
                hits.update((query.id, ranking) for query, ranking in zip(asked, found, strict=True))
        return hits

    def _add_space(self, space: Space) -> None:
        schema = self._tables.documents.schema
        kinds = zip(_columns(space), (pa.list_(pa.int32()), pa.list_(pa.float32())), strict=True)
        fields = [pa.field(name, kind) for name, kind in kinds if name not in schema.names]
        if fields:
            with failing("write", self.path):
                self._tables.documents.add_columns(fields)

    def _rows(
        self,
        items: Sequence[Item],
        states: Sequence[tuple[str, str]],
        spaces: Sequence[Space],
        encoders: Sequence[Encoder],
    ) -> pa.Table:
        schema = self._tables.documents.schema
        block = rows(items, [state[0] for state in states], [state[1] for state in states], (), schema)
        for space, encoder in zip(spaces, encoders, strict=True):
            weights, held = weighted(encoder, items, "document")
            offsets = pa.array(weights.indptr, pa.int32(), mask=np.append(~held, False))
            for name, values in zip(_columns(space), (weights.indices, weights.data), strict=True):
                at = schema.get_field_index(name)
                kind = schema.field(at).type
                made = pa.ListArray.from_arrays(offsets, pa.array(values, kind.value_type))
                block = block.set_column(at, schema.field(at), made)
        return block

    def _refresh_spaces(self) -> None:
        self._opened = None
        self._masks.clear()
        for space in self.card.spaces:
            counts: dict[str, int] = {}
            stored = self._stored(space, counts)
            if self._folder is None:
                self._opened = Postings.of(stored, space.spec.dim)
            else:
                self._opened = Postings.write(self._files(space), stored, space.spec.dim)
            space.counts = counts

    # Inside

    def _stored(self, space: Space, counts: dict[str, int]) -> Iterator[Rows]:
        """Ids and weights of all documents that have some, in the order of the table; counts them on the way."""
        terms, weights = _columns(space)
        for batch in self._tables.columns(["id", "modality", terms, weights], f"{terms} IS NOT NULL"):
            for modality in batch.column("modality").to_pylist():
                read = as_read(modality, space)
                counts[read] = counts.get(read, 0) + 1
            lists = batch.column(terms)
            starts = lists.offsets.to_numpy()
            inside = slice(starts[0], starts[-1])  # the values are those of a larger array
            indices = lists.values.to_numpy()[inside]
            data = batch.column(weights).flatten().to_numpy()
            shape = (len(batch), space.spec.dim)
            yield (
                batch.column("id").to_pylist(),
                scipy.sparse.csr_matrix((data, indices, starts - starts[0]), shape),
            )

    def _postings(self, space: Space) -> Postings:
        if self._opened is None:
            self._opened = Postings.open(self._files(space), space.spec.dim)
            if len(self._opened) != sum(space.counts.values()):
                raise InputError(f"{self.path} has changed since it was opened: open it again")
        return self._opened

    def _files(self, space: Space) -> Path:
        assert self._folder is not None
        return self._folder / f"postings_{space.fingerprint}"

    def _allowed(self, postings: Postings, where: Where | None) -> np.ndarray | None:
        """The documents that a filter keeps, as a mask; the latest filters are remembered."""
        condition = where_sql(where, self.card.keys)
        if condition is None:
            return None
        if condition not in self._masks:
            if len(self._masks) >= MASKS:
                del self._masks[next(iter(self._masks))]
            self._masks[condition] = postings.mask(self._tables.matching(condition))
        return self._masks[condition]


class _Made(Made):
    """An encoder's stand-in for weights that were made elsewhere: hands them out by id."""

    def encode(self, items: Iterable[Item], role: Role) -> Iterator[Batch]:
        ids = [item.id for item in items]
        yield Sparse(ids, self._vectors[[self._rows[id] for id in ids]])


def weighted(
    encoder: Encoder, items: Sequence[Item], role: Role
) -> tuple[scipy.sparse.csr_matrix, np.ndarray]:
    """Weights float32 [n, vocabulary] without zeros, and the mask of the items that the encoder reads.

    `InputError` if they are negative or not finite, or not one row an item in order.
    """
    spec = encoder.spec
    held = np.array([bool(item.modalities & set(spec.modalities)) for item in items], dtype=bool)
    mine = [item for item, read in zip(items, held, strict=True) if read]
    ids: list[str] = []
    blocks = [scipy.sparse.csr_matrix((0, spec.dim), dtype=np.float32)]
    for batch in encoder.encode(iter(mine), role) if mine else ():
        if not isinstance(batch, Sparse):
            raise InputError(f"{spec.name} is not a sparse encoder")
        weights = scipy.sparse.csr_matrix(batch.vectors, dtype=np.float32)
        sums = np.asarray(weights.sum(axis=1))
        check_finite(batch.ids, sums, spec.name, spec.dtype)
        if weights.nnz and weights.data.min() < 0:
            raise InputError(f"{spec.name} gave weights below 0, which an index of terms does not rank by")
        weights.eliminate_zeros()
        ids += batch.ids
        blocks.append(weights)
    if ids != [item.id for item in mine]:
        raise InputError(f"{spec.name} gave {len(ids)} vectors for {len(mine)} items, or in another order")
    found = scipy.sparse.vstack(blocks, format="csr")
    found.sort_indices()
    if not held.all():  # empty rows for the others
        counts = np.zeros(len(items), found.indptr.dtype)
        counts[held] = np.diff(found.indptr)
        starts = np.append(0, np.cumsum(counts))
        found = scipy.sparse.csr_matrix((found.data, found.indices, starts), (len(items), spec.dim))
    return found, held


def _columns(space: Space) -> tuple[str, str]:
    """The columns of a space's terms and of their weights."""
    return space.column, f"w_{space.fingerprint}"
