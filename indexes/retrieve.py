"""First-stage retrieval from an index as a pipeline stage."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from ..pipeline import Stage
from ..runs import Run
from .base import Index, Mode, check_k
from .storage.filters import Where


@dataclass(frozen=True)
class Retrieve(Stage):
    """`index.search` with fixed settings: replaces the hits of the run that it is given."""

    index: Index
    mode: Mode = "dense"
    k: int = 100
    where: Where | None = None
    exact: bool = False
    correct: bool = True

    def __post_init__(self) -> None:
        check_k(self.k)

    def ready(self) -> None:
        if self.mode != "lexical":
            self.index.ready()

    def apply(self, run: Run, count: Counter[str]) -> Run:
        count["queries"] += len(run)
        return self.index.search(
            run, self.k, where=self.where, exact=self.exact, mode=self.mode, correct=self.correct
        )

    @property
    def docs(self) -> Index:
        """Where the documents of its hits are found."""
        return self.index

    @property
    def models(self) -> Mapping[str, str]:
        return {} if self.mode == "lexical" else {spec.name: spec.revision for spec in self.index.specs}

    def __str__(self) -> str:
        if self.mode == "lexical":
            from .storage.fulltext import K1, B

            return f"lexical (BM25, k1={K1}, b={B})"
        return self.mode if self.correct else f"{self.mode} (uncorrected)"
