"""What each stage of a line made of the hits: for people who want to know why a document stands where it does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..items import Queries
from ..pipeline import Stage
from ..runs import Documents, Hit, Run


@dataclass
class Trace:
    """The rankings of a line, in the order in which its stages made them; stages that change no hits are left out."""

    rankings: list[tuple[str, Mapping[str, tuple[Hit, ...]]]] = field(default_factory=list)

    def wrap(self, stage: Stage) -> Stage:
        """The same stage, of which it is kept what it makes."""
        return TracedStage(stage, self)

    def describe(self, query: str, doc: str) -> list[dict[str, Any]]:
        """Each `stage`, with the `rank` and the `score` of a document for a query; None where it was not found."""
        places = []
        for stage, hits in self.rankings:
            found = ((rank, round(hit.score, 6)) for rank, hit in enumerate(hits.get(query, ()), 1) if hit.id == doc)
            rank, score = next(found, (None, None))
            places.append({"stage": stage, "rank": rank, "score": score})
        return places


@dataclass(frozen=True)
class TracedStage(Stage):
    """A stage that notes its rankings in a trace, and does what it did."""

    stands_for: Stage
    trace: Trace = field(compare=False, repr=False)

    def __call__(self, run: Run | Queries) -> Run:
        made = self.stands_for(run)
        if not (isinstance(run, Run) and made.hits is run.hits) and made.hits:
            self.trace.rankings.append((str(self.stands_for), made.hits))
        return made

    @property
    def docs(self) -> Documents | None:
        return self.stands_for.docs

    def describe(self) -> object:
        return self.stands_for.describe()

    def __str__(self) -> str:
        return str(self.stands_for)
