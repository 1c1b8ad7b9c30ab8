"""The kind `lance`: exact search in memory, or LanceDB's by an index whose recall was measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ...errors import InputError
from ...items import windows
from ...runs import Rankings
from ..storage.card import Ann, Recall, Space
from ..storage.filters import write_sql
from ..storage.place import translate_errors
from ..ties import search_past_ties
from .base import SpaceQueries
from .dense import FEW, DenseKind
from .recall import CUTOFFS, DEPTH, build_spaces, choose_filter, double_up, perturb_vectors, tune_plan

# Kinds of approximate index, and their classes in `lancedb.index`.
STRUCTURES = {"IVF_FLAT": "IvfFlat", "IVF_RQ": "IvfRq", "IVF_PQ": "IvfPq", "IVF_HNSW_SQ": "HnswSq"}
FEWEST = 256  # vectors that an approximate index needs
PROBES = 20
REFINE = 10
BATCH = 64  # queries asked of LanceDB at a time


class LanceKind(DenseKind):
    """For serving, filters and growth: LanceDB searches what is large, on disk.

    `auto_from` is the number of vectors from which `build("auto")` makes an approximate index.
    """

    structures = tuple(STRUCTURES)
    auto_from = 50_000  # below, exact search is as fast

    def search_approximately(self, asked: SpaceQueries, k: int, condition: str | None, plan: Ann) -> Rankings:
        return self.search_column(asked, k, condition, plan)

    def search_parts(self, asked: SpaceQueries, k: int, condition: str | None) -> Rankings:
        if len(asked) < FEW and not self.fits(asked.space):
            return self.search_column(asked, k, condition, None)
        return super().search_parts(asked, k, condition)

    def search_column(self, asked: SpaceQueries, k: int, condition: str | None, plan: Ann | None) -> Rankings:
        """LanceDB's search, approximate by `plan`, exact without: for each vector k ids and inner products."""

        def ask(rows: Sequence[int], depth: int) -> Rankings:
            return [
                hits
                for part in windows(rows, BATCH)
                for hits in self._ask(asked, asked.vectors[part], depth, condition, plan)
            ]

        return search_past_ties(ask, len(asked.vectors), k)

    def _ask(
        self, asked: SpaceQueries, vectors: np.ndarray, k: int, condition: str | None, plan: Ann | None
    ) -> Rankings:
        """What LanceDB finds for a few of the vectors, best first."""
        space, tables = asked.space, self.storage.tables
        name = space.corrected if asked.corrected else space.column
        found: Rankings = [[] for _ in vectors]
        with translate_errors("read", tables.where):
            query = tables.table_of(name).search(list(vectors), vector_column_name=name).limit(k)
            query = query.select(["id", "_distance", *(["query_index"] if len(vectors) > 1 else [])])
            query = query.where(condition) if condition else query
            if plan is None:
                query = query.distance_type("dot").bypass_vector_index()
            else:
                query = query.distance_type(self._metric(asked))
                query = query.nprobes(plan.filtered_probes if condition else plan.probes)
                query = query.refine_factor(plan.refine)
                if plan.kind == "IVF_HNSW_SQ":
                    query = query.ef(max(200, 2 * k * plan.refine))
            hits = query.to_arrow()
            hits.validate(full=True)
        rows = hits["query_index"].to_pylist() if len(vectors) > 1 else [0] * len(hits)
        for row, doc, distance in zip(rows, hits["id"].to_pylist(), hits["_distance"].to_pylist(), strict=True):
            found[row].append((doc, 1.0 - distance))
        for each in found:
            each.sort(key=lambda hit: -hit[1])
        return found

    def build(self, ann: str) -> Recall:
        """An approximate index for each space, with recall measured against exact search.

        `ann` is `none`, `IVF_FLAT`, `IVF_RQ`, `IVF_PQ`, `IVF_HNSW_SQ`, or `auto`: none below 50,000 vectors, and from
        there IVF_RQ (IVF_FLAT for dimensions that are no multiple of 8). Queries use as many probes as were measured
        to find 0.95 of the exact 10 best, and as many as it takes under a language filter. Serves the default search,
        language-corrected where the space is multilingual; `correct=False` there stays exact.
        """
        self.check_ann("lance", ann)

        def choose(space: Space) -> str:
            return "none" if space.count < self.auto_from else "IVF_FLAT" if space.spec.dim % 8 else "IVF_RQ"

        return build_spaces(self, ann, choose, self._make)

    def _make(self, space: Space, structure: str) -> Ann:
        tables, corrected = self.storage.tables, space.multilingual
        if space.count < FEWEST:
            raise InputError(
                f"{space.count} vectors are too few for {structure} ({FEWEST} are needed): build with ann none"
            )
        queries = perturb_vectors(tables, space, corrected)
        asked = SpaceQueries(space, range(len(queries)), queries, corrected)
        config = configure_structure(structure, self._metric(asked))
        tables.index_vectors(space.corrected if corrected else space.column, config)
        # LanceDB makes fewer partitions than this, so that the last step asks every one of them.
        steps = double_up(PROBES, max(PROBES, int(np.sqrt(space.count)) + 1))

        def tune(condition: str | None, plans: Sequence[Ann]) -> Ann:
            truth = self.search_parts(asked, DEPTH, condition)
            return tune_plan(plans, lambda plan, k: self.search_column(asked, k, condition, plan), truth)

        # Codes of few bits need more candidates.
        most = REFINE * 5 if structure in ("IVF_RQ", "IVF_PQ") else REFINE
        pairs = [(PROBES, REFINE)] * (most > REFINE) + [(probes, most) for probes in steps]
        plan = tune(None, [Ann(structure, probes, min(steps[-1], 4 * probes), refine) for probes, refine in pairs])
        plan.queries = len(queries)
        if (chosen := choose_filter(self.storage.card)) is not None:
            lang, plan.kept = chosen
            more = [replace(plan, filtered_probes=probes) for probes in double_up(plan.filtered_probes, steps[-1])]
            filtered = tune(write_sql({"lang": lang}, (), [lang]), more)
            plan.filtered_probes, plan.filtered = filtered.filtered_probes, filtered.recall[CUTOFFS[0]]
        return plan

    def _metric(self, asked: SpaceQueries) -> str:
        # Cosine where vectors have length 1: with `dot`, LanceDB 0.40 misses a few even when it probes all partitions.
        scaled = self.storage.card.share == 1 and (asked.corrected or asked.space.spec.normalized)
        return "cosine" if scaled else "dot"


def configure_structure(structure: str, metric: str) -> Any:
    """What LanceDB is given to make an approximate index of that kind."""
    import lancedb.index

    return getattr(lancedb.index, STRUCTURES[structure])(distance_type=metric)
