"""An index of token vectors (late interaction): LanceDB proposes candidates, exact MaxSim decides."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from ..encoders.base import Encoder, EncoderSpec
from ..errors import InputError, unknown_name
from ..items import Batch, Item, Multi, Role
from . import ann
from .base import Recall, Where
from .card import Ann, Space
from .encoding import Made
from .lance import TOGETHER, Found, LanceIndex
from .maxsim import Tokens, best, maxsim, token_vectors
from .table import as_read, failing, rows, where_sql

# Token vectors from which `auto` makes an approximate index: one pass over fewer takes about a second.
AUTO_FROM = 2_000_000
KINDS = ("IVF_RQ", "IVF_FLAT", "IVF_PQ")
READ = 128  # documents a block: some 30 MB of page images' vectors
CUTOFFS = ann.CUTOFFS
FEWEST = 256  # token vectors that an approximate index needs
QUERIES = 50
QUERY_TOKENS = 32  # of a query that is made to measure recall
# Probes, and candidates beyond 2 k, from the least to the most work.
PLANS = ((20, 100), (20, 200), (40, 400), (80, 800), (160, 1600))


class LateIndex(LanceIndex):
    """A `LanceIndex` with many vectors a document; mode `dense` means search by MaxSim.

    Scores are exact MaxSim, float32, over the stored float16 vectors: the sum over the query's m vectors of the best
    inner product each finds in the document, in -m..m for vectors of length 1. They compare within a query, not
    across queries of different m. Without an approximate index every document is scored, a block at a time. With one,
    LanceDB proposes candidates by the tokens' neighbours (documents beyond them are not found), and MaxSim orders
    them. One encoder an index; texts and pages stand in one list as MaxSim has them, and there is no language
    correction. Full text, filters, resuming and documents are those of every index.
    """

    holds = "multi"
    several = False

    def add_vectors(self, items: Sequence[Item], vectors: Any, spec: EncoderSpec) -> int:
        """`add` with vectors made elsewhere: float [tokens_i, dim] for each item, in the same order."""
        return self.add(items, _Made(spec, items, vectors))

    def build(self, ann: str = "auto") -> Recall:
        """An approximate index of the token vectors, with the recall of its candidates measured against exact search.

        `ann` is `none`, `IVF_RQ`, `IVF_FLAT`, `IVF_PQ`, or `auto`: none below 2,000,000 token vectors, and IVF_RQ from
        there, if the dimension is a multiple of 8 (the others are slower than exact search, measured on 560,000
        vectors). Probes and candidates are raised until 0.97 of the exact 10 best are found; what is then found at 10
        and 100 is returned, and kept with the index. Queries are stored documents' vectors with noise. Many queries
        at once are about as fast with `exact`, which reads the vectors once for all.
        """
        started = time.perf_counter()
        if ann not in ("auto", "none", *KINDS):
            raise unknown_name(ann, ("auto", "none", *KINDS), "kind of approximate index")
        self._require_complete()
        plan = None
        with self._writing():
            for space in self.card.spaces:
                space.ann = None
                _drop(self, space)
                chosen = ann
                if ann == "auto":
                    chosen = "none" if self._tokens(space) < AUTO_FROM or space.spec.dim % 8 else "IVF_RQ"
                if chosen != "none" and space.counts:
                    plan = space.ann = self._built(space, chosen)
            self._save()
        seconds = round(time.perf_counter() - started, 3)
        if plan is None:
            return Recall("flat", 0, dict.fromkeys(CUTOFFS, 1.0), seconds)
        return Recall(plan.kind, plan.queries, plan.recall, seconds)

    # What a LanceIndex does otherwise

    def _dense(
        self, queries: Sequence[Item], k: int, where: Where | None, exact: bool, correct: bool
    ) -> dict[str, list[tuple[str, float]]]:
        hits: dict[str, list[tuple[str, float]]] = {query.id: [] for query in queries}
        condition = where_sql(where, self.card.keys)
        for space in self.card.spaces:
            plan = None if exact else space.ann
            for start in range(0, len(queries), TOGETHER):
                asked = dict(token_vectors(self._encoder(space), queries[start : start + TOGETHER], "query"))
                vectors = list(asked.values())
                if plan is None:
                    found = self._scanned(space, vectors, k, condition)
                else:
                    found = [self._proposed(space, each, k, condition, plan) for each in vectors]
                hits.update(zip(asked, found, strict=True))
        return hits

    def _add_space(self, space: Space) -> None:
        if space.column not in self._tables.documents.schema.names:
            kind = pa.list_(pa.list_(pa.float16(), space.spec.dim))
            with failing("write", self.path):
                self._tables.documents.add_columns([pa.field(space.column, kind)])

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
            at = schema.get_field_index(space.column)
            block = block.set_column(at, schema.field(at), halves(encoder, items))
        return block

    def _refresh_spaces(self) -> None:
        for space in self.card.spaces:
            space.ann = None
            counts: Counter[str] = Counter()
            for batch in self._tables.columns(["modality"], f"{space.column} IS NOT NULL"):
                counts.update(as_read(each, space) for each in batch.column("modality").to_pylist())
            space.counts = dict(counts)

    # Inside

    def _scanned(
        self, space: Space, queries: Sequence[np.ndarray], k: int, condition: str | None
    ) -> list[list[tuple[str, float]]]:
        """The k best of all documents for each query, in one pass over them."""
        return _best(self._blocks(space, condition), queries, k, self._device)

    def _proposed(
        self, space: Space, query: np.ndarray, k: int, condition: str | None, plan: Ann
    ) -> list[tuple[str, float]]:
        """The k best of the documents that LanceDB proposes."""
        with failing("read", self.path):
            search = self._tables.documents.search(query, vector_column_name=space.column)
            search = search.distance_type("cosine").limit(2 * k + plan.refine)
            search = search.nprobes(plan.filtered_probes if condition else plan.probes)
            search = search.select(["id", "_distance", space.column])
            found = (search.where(condition) if condition else search).to_batches(READ)
            return _best((_tokens(batch, space) for batch in found), [query], k, self._device)[0]

    def _blocks(self, space: Space, condition: str | None = None) -> Iterator[tuple[list[str], Tokens]]:
        """Ids and vectors of all documents that have some, a block at a time in the order of the table."""
        held = f"{space.column} IS NOT NULL" + (f" AND ({condition})" if condition else "")
        with failing("read", self.path):
            search = self._tables.documents.search().select(["id", space.column]).where(held).limit(None)
            for batch in search.to_batches(READ):
                if len(batch):
                    yield _tokens(batch, space)

    def _tokens(self, space: Space) -> int:
        """How many token vectors there are."""
        count = f"coalesce(array_length({space.column}), 0)"
        with failing("read", self.path):
            search = self._tables.documents.search().select({"n": count}).limit(None)
            return sum(sum(batch.column("n").to_pylist()) for batch in search.to_batches())

    def _built(self, space: Space, kind: str) -> Ann:
        started = time.perf_counter()
        if (count := self._tokens(space)) < FEWEST:
            raise InputError(
                f"{count} token vectors are too few for {kind} ({FEWEST} are needed): build with ann none"
            )
        with failing("write", self.path):
            config = ann.KINDS[kind](distance_type="cosine")
            self._tables.documents.create_index(space.column, config=config, replace=True)
        queries = self._perturbed(space)
        truth: Found = self._scanned(space, queries, max(CUTOFFS), None)
        plan = Ann(kind, 0, 0, 0)
        for probes, candidates in PLANS:
            plan = Ann(kind, probes, 4 * probes, candidates, queries=len(queries))
            for cutoff in CUTOFFS:
                found = [self._proposed(space, query, cutoff, None, plan) for query in queries]
                plan.recall[cutoff] = ann.recall(found, truth, cutoff)
            if plan.recall[CUTOFFS[0]] >= ann.ENOUGH:
                break
        plan.seconds = round(time.perf_counter() - started, 3)
        return plan

    def _perturbed(self, space: Space) -> list[np.ndarray]:
        """Up to 50 queries from evenly spaced documents: 32 of a document's vectors, with noise that is always the same."""
        count = sum(space.counts.values())
        wanted = set(np.linspace(0, count - 1, min(count, QUERIES)).astype(int).tolist())
        random = np.random.default_rng(0)
        queries: list[np.ndarray] = []
        row = 0
        for names, tokens in self._blocks(space):
            for each in range(len(names)):
                if row + each in wanted:
                    vectors = tokens.document(each).astype(np.float32)
                    vectors = vectors[np.linspace(0, len(vectors) - 1, QUERY_TOKENS).astype(int)]
                    noise = random.standard_normal(vectors.shape).astype(np.float32)
                    noisy = vectors + ann.NOISE * noise / np.sqrt(space.spec.dim)
                    queries.append(noisy / np.linalg.norm(noisy, axis=1, keepdims=True))
            row += len(names)
        return queries


class _Made(Made):
    """An encoder's stand-in for token vectors that were made elsewhere: hands them out by id."""

    def __init__(self, spec: EncoderSpec, items: Sequence[Item], vectors: Sequence[np.ndarray]) -> None:
        if len(items) != len(vectors):
            raise InputError(f"{len(items)} items cannot have the vectors of {len(vectors)}")
        self.spec = spec
        self._held = dict(zip([item.id for item in items], vectors, strict=True))

    def encode(self, items: Iterable[Item], role: Role) -> Iterator[Batch]:
        ids = [item.id for item in items]
        yield Multi(ids, [np.asarray(self._held[id], np.float32) for id in ids])


def halves(encoder: Encoder, items: Sequence[Item]) -> pa.Array:
    """The items' vectors as a column of float16, null for items that the encoder does not read.

    `InputError` if they are not one lot an item in order, or do not fit into float16.
    """
    spec = encoder.spec
    held = np.array([bool(item.modalities & set(spec.modalities)) for item in items], dtype=bool)
    mine = [item for item, read in zip(items, held, strict=True) if read]
    ids: list[str] = []
    parts = [np.zeros((0, spec.dim), np.float16)]
    for name, vectors in token_vectors(encoder, iter(mine), "document") if mine else ():
        if np.abs(vectors).max() > np.finfo(np.float16).max:
            raise InputError(f"{spec.name} gave vectors for {name!r} that do not fit into float16")
        ids.append(name)
        parts.append(vectors.astype(np.float16))
    if ids != [item.id for item in mine]:
        raise InputError(f"{spec.name} gave {len(ids)} vectors for {len(mine)} items, or in another order")
    lengths = np.zeros(len(items), np.int64)
    lengths[held] = [len(part) for part in parts[1:]]
    offsets = pa.array(np.append(0, np.cumsum(lengths)), pa.int32(), mask=np.append(~held, False))
    flat = pa.array(np.concatenate(parts).reshape(-1))
    return pa.ListArray.from_arrays(offsets, pa.FixedSizeListArray.from_arrays(flat, spec.dim))


def _tokens(batch: pa.RecordBatch, space: Space) -> tuple[list[str], Tokens]:
    lists = batch.column(space.column)
    offsets = lists.offsets.to_numpy().astype(np.int64)
    inside = lists.values.slice(offsets[0], offsets[-1] - offsets[0])  # a block is a part of a larger array
    vectors = inside.flatten().to_numpy(zero_copy_only=False).reshape(-1, space.spec.dim)
    return batch.column("id").to_pylist(), Tokens(vectors, offsets - offsets[0])


def _best(
    blocks: Iterable[tuple[list[str], Tokens]], queries: Sequence[np.ndarray], k: int, device: str
) -> list[list[tuple[str, float]]]:
    """The k documents of highest MaxSim for each query."""
    found: list[list[tuple[str, float]]] = [[] for _ in queries]
    for names, tokens in blocks:
        for row, scores in enumerate(maxsim(queries, tokens, device)):
            floor = found[row][-1][1] if len(found[row]) == k else -np.inf
            places = np.flatnonzero(scores >= floor)
            if len(places):
                more = [(names[place], float(scores[place])) for place in places]
                found[row] = best([*found[row], *more], k)
    return found


def _drop(index: LateIndex, space: Space) -> None:
    """Remove the approximate index of a space."""
    table = index._tables.documents
    with failing("write", index.path):
        for each in table.list_indices():
            if space.column in each.columns:
                table.drop_index(each.name)
