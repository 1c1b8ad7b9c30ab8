"""The kind `late` (late interaction): many vectors a document; LanceDB proposes candidates, exact MaxSim decides."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from ...encoders.base import Encoder
from ...errors import InputError
from ...items import Item, Role
from ...runs import Rankings
from ..encoding import check_halves, select_readable
from ..maxsim import TokenVectors, encode_tokens, score_maxsim
from ..storage.card import Ann, Recall, Space
from ..storage.place import translate_errors
from ..storage.rows import make_lists, read_lists
from ..ties import search_past_ties
from .base import Kind, SpaceQueries
from .lance import FEWEST, configure_structure
from .recall import DEPTH, NOISE, build_spaces, pick_evenly, tune_plan

# Token vectors from which `auto` makes an approximate index: one pass over fewer takes about a second.
AUTO_FROM = 2_000_000
KINDS = ("IVF_RQ", "IVF_FLAT", "IVF_PQ")
READ = 128  # documents a block: some 30 MB of page images' vectors
QUERIES = 50
QUERY_TOKENS = 32  # of a query that is made to measure recall
# Probes, and candidates beyond 2 k, from the least to the most work.
PLANS = ((20, 100), (20, 200), (40, 400), (80, 800), (160, 1600))

Block = tuple[list[str], TokenVectors]  # ids, and their vectors


class LateKind(Kind):
    """Many vectors a document; mode `dense` means search by MaxSim.

    Scores are exact MaxSim, float32, over the stored float16 vectors: the sum over the query's m vectors of the best
    inner product each finds in the document, in -m..m for vectors of length 1. They compare within a query, not
    across queries of different m. Without an approximate index every document is scored, a block at a time. With one,
    LanceDB proposes candidates by the tokens' neighbours (documents beyond them are not found), and MaxSim orders
    them. One encoder an index; texts and pages stand in one list as MaxSim has them, and there is no language
    correction.
    """

    holds = "multi"
    structures = tuple(KINDS)

    def fields(self, space: Space) -> list[pa.Field]:
        return [pa.field(space.column, pa.list_(pa.list_(pa.float16(), space.spec.dim)))]

    def columns(self, space: Space, encoder: Encoder, items: Sequence[Item]) -> list[pa.Array]:
        readable, held = select_readable(space.spec, items)
        parts = [np.zeros((0, space.spec.dim), np.float16)]
        for name, vectors in encode_tokens(encoder, readable, "document"):
            check_halves(vectors, encoder.spec.name, name)
            parts.append(vectors.astype(np.float16))
        flat = pa.array(np.concatenate(parts).reshape(-1))
        vectors_ = pa.FixedSizeListArray.from_arrays(flat, space.spec.dim)
        return make_lists([len(part) for part in parts[1:]], held, vectors_)

    def encode(self, encoder: Encoder, items: Sequence[Item], role: Role) -> list[np.ndarray]:
        return [vectors for _, vectors in encode_tokens(encoder, items, role)]

    def read(self, space: Space, ids: Sequence[str]) -> list[np.ndarray]:
        tables = self.storage.tables
        found: dict[str, np.ndarray] = {}
        for batch in tables.scan_ids(tables.documents, ["id", space.column], list(dict.fromkeys(ids))):
            names, tokens = _read_tokens(batch, space)
            found |= {name: tokens.document(row).astype(np.float32) for row, name in enumerate(names)}
        return [found[id] for id in ids]

    def scan(self, space: Space) -> Iterator[tuple[Sequence[str], list[np.ndarray]]]:
        for ids, tokens in self._read_blocks(space):
            yield ids, [tokens.document(row).astype(np.float32) for row in range(len(ids))]

    def pool(
        self, space: Space, vectors: Sequence[Any], owners: np.ndarray, weights: np.ndarray, count: int
    ) -> list[np.ndarray]:
        """The vectors of all probes together, at the length of their weights: MaxSim then adds up by weight.

        Those of weights below 0 are left out: there is nothing that they would be the best match of.
        """
        probes = [each for block in vectors for each in block]
        found = []
        for row in range(count):
            mine = np.flatnonzero((owners == row) & (weights > 0))
            found.append(np.concatenate([probes[at] * np.float32(weights[at]) for at in mine]))
        return found

    def nearest(self, asked: SpaceQueries, k: int, condition: str | None, exact: bool) -> Rankings:
        if exact or asked.space.ann is None:
            return self._rank(self._read_blocks(asked.space, condition), asked.vectors, k)
        return self.search_column(asked, k, condition, asked.space.ann)

    def search_column(self, asked: SpaceQueries, k: int, condition: str | None, plan: Ann) -> Rankings:
        """For each query the k best of the documents that are proposed."""

        def ask(rows: Sequence[int], depth: int) -> Rankings:
            queries = [asked.vectors[row] for row in rows]
            return [
                self._rank(self.propose(asked.space, each, depth, condition, plan), [each], depth)[0]
                for each in queries
            ]

        return search_past_ties(ask, len(asked.vectors), k)

    def propose(self, space: Space, query: np.ndarray, k: int, condition: str | None, plan: Ann) -> Iterator[Block]:
        """Documents near some of a query's tokens, by LanceDB's approximate index: candidates for MaxSim."""
        with translate_errors("read", self.storage.path):
            search = self.storage.tables.documents.search(query, vector_column_name=space.column)
            search = search.distance_type("cosine").limit(2 * k + plan.refine)
            search = search.nprobes(plan.filtered_probes if condition else plan.probes)
            search = search.select(["id", "_distance", space.column])
            for batch in (search.where(condition) if condition else search).to_batches(READ):
                yield _read_tokens(batch, space)

    def build(self, ann: str) -> Recall:
        """An approximate index of the token vectors, with the recall of its candidates measured against exact search.

        `ann` is `none`, `IVF_RQ`, `IVF_FLAT`, `IVF_PQ`, or `auto`: none below 2,000,000 token vectors, and IVF_RQ from
        there, if the dimension is a multiple of 8 (the others are slower than exact search, measured on 560,000
        vectors). Probes and candidates are raised until 0.97 of the exact 10 best are found; what is then found at 10
        and 100 is returned, and kept with the index. Queries are stored documents' vectors with noise. Many queries
        at once are about as fast with `exact`, which reads the vectors once for all.
        """
        self.check_ann("late", ann)

        def choose(space: Space) -> str:
            return "none" if self._count_tokens(space) < AUTO_FROM or space.spec.dim % 8 else "IVF_RQ"

        return build_spaces(self, ann, choose, self._make)

    def refresh(self) -> None:
        """How many documents have vectors."""
        for space in self.storage.card.spaces:
            space.counts = self.storage.tables.count_read(space)

    def _rank(self, blocks: Iterable[Block], queries: Sequence[np.ndarray], k: int) -> Rankings:
        """The k documents of highest MaxSim for each query."""
        found: Rankings = [[] for _ in queries]
        for names, tokens in blocks:
            for row, scores in enumerate(score_maxsim(queries, tokens, self.device)):
                floor = found[row][-1][1] if len(found[row]) == k else -np.inf
                places = np.flatnonzero(scores >= floor)
                if len(places):
                    better = [*found[row], *((names[place], float(scores[place])) for place in places)]
                    found[row] = sorted(better, key=lambda hit: (-hit[1], hit[0]))[:k]
        return found

    def _read_blocks(self, space: Space, condition: str | None = None) -> Iterator[Block]:
        """Ids and vectors of all documents that have some, a block at a time in the order of the table."""
        held = f"{space.column} IS NOT NULL" + (f" AND ({condition})" if condition else "")
        for batch in self.storage.tables.scan(["id", space.column], held, READ):
            if len(batch):
                yield _read_tokens(batch, space)

    def _count_tokens(self, space: Space) -> int:
        """How many token vectors there are."""
        counts = {"n": f"coalesce(array_length({space.column}), 0)"}
        return sum(sum(batch.column("n").to_pylist()) for batch in self.storage.tables.scan(counts))

    def _make(self, space: Space, structure: str) -> Ann:
        if (count := self._count_tokens(space)) < FEWEST:
            raise InputError(
                f"{count} token vectors are too few for {structure} ({FEWEST} are needed): build with ann none"
            )
        self.storage.tables.index_vectors(space.column, configure_structure(structure, "cosine"))
        queries = self._perturb_documents(space)
        asked = SpaceQueries(space, range(len(queries)), queries)
        truth = self._rank(self._read_blocks(space), queries, DEPTH)
        plans = [Ann(structure, probes, 4 * probes, more, queries=len(queries)) for probes, more in PLANS]
        return tune_plan(plans, lambda plan, k: self.search_column(asked, k, None, plan), truth)

    def _perturb_documents(self, space: Space) -> list[np.ndarray]:
        """Up to 50 queries from evenly spaced documents: 32 of a document's vectors, with always the same noise."""
        random = np.random.default_rng(0)
        queries: list[np.ndarray] = []
        documents = (tokens.document(row) for _, tokens in self._read_blocks(space) for row in range(len(tokens)))
        for document in pick_evenly(documents, space.count, QUERIES):
            vectors = document[np.linspace(0, len(document) - 1, QUERY_TOKENS).astype(int)].astype(np.float32)
            noise = random.standard_normal(vectors.shape).astype(np.float32)
            noisy = vectors + NOISE * noise / np.sqrt(space.spec.dim)
            queries.append(noisy / np.linalg.norm(noisy, axis=1, keepdims=True))
        return queries


def _read_tokens(batch: pa.RecordBatch, space: Space) -> Block:
    offsets, lists = read_lists(batch.column(space.column))
    vectors = lists.flatten().to_numpy(zero_copy_only=False).reshape(-1, space.spec.dim)
    return batch.column("id").to_pylist(), TokenVectors(vectors, offsets)
