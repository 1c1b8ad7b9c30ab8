"""Before and after: the base and what was trained, on the same questions, and whether one is better."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ...errors import InputError
from ...evaluation.evaluate import evaluate
from ...evaluation.table import Table
from ...multilingual.collections.base import Collection
from ...pipeline import Progress
from ...systems.indexing import index_collection
from ..data.judged import select_judged

BEFORE, AFTER = "before", "after"
MEASURES = ("nDCG@20", "R@100")
DEPTH = 100
Verdict = Literal["better", "no different", "worse"]


@dataclass(frozen=True)
class Compared:
    """The two on a collection's queries, all together and by language of the documents, with a paired test."""

    collection: str
    documents: int
    table: Table

    @property
    def verdict(self) -> Verdict:
        """By nDCG@20 over all queries: a difference with a p of 0.05 or more is none."""
        found = self.table.comparison(AFTER, MEASURES[0])
        if found is None or not found.significant:
            return "no different"
        return "better" if found.difference > 0 else "worse"

    def to_json(self) -> dict[str, Any]:
        return {
            "collection": self.collection, "documents": self.documents, "verdict": self.verdict,
            "table": self.table.to_json(),
        }  # fmt: skip

    def __str__(self) -> str:
        found, table = self.table.comparison(AFTER, MEASURES[0]), self.table
        means = [table.mean(each, MEASURES[0]) for each in (BEFORE, AFTER)]
        by = "; ".join(
            f"{group} {table.mean(BEFORE, MEASURES[0], group):.3f} to {table.mean(AFTER, MEASURES[0], group):.3f}"
            for group in table.groups[1:]
        )
        p = f", p {found.corrected:.3f}" if found is not None and found.corrected == found.corrected else ""
        return (
            f"{self.collection} ({table.counts['all']} queries): {MEASURES[0]} {means[0]:.3f} before, {means[1]:.3f} "
            f"after{p}: {self.verdict}" + (f" ({by})" if by else "")
        )


def compare(
    collection: Collection,
    documents: int,
    specs: Mapping[str, str],
    folder: Path,
    *,
    seed: int,
    progress: Progress,
    **how: Any,
) -> Compared:
    """Search a collection's `documents` documents with each of the encoders, `before` and `after`, and measure both.

    As `search` does: by vectors, exactly, with the correction of languages where there are several. The indexes stay in
    `folder`.
    """
    queries, judged = select_judged(collection)
    if not queries:
        raise InputError(f"{collection.name} has no judged query to compare on")
    runs = {}
    for name, spec in specs.items():
        index = index_collection(
            collection, folder / name, [spec], documents=documents, lexical=False, sync=True, progress=progress, **how
        ).index
        runs[name] = index.search(queries, DEPTH, mode="dense", exact=True)
    several = len(index.langs) > 1
    table = evaluate(
        runs, judged, MEASURES, per="doc_lang" if several else None, baseline=BEFORE, test="randomisation", seed=seed
    )
    return Compared(collection.name, documents, table)
