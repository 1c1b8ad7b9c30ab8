"""Queries as a search needs them: what is encoded in the place of each, and the words that full text looks for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np

from ..items import Item, Modality, Role
from .base import Mode
from .encoding import SpaceEncoders
from .kinds.base import Kind, SpaceQueries
from .statistics import SpaceStatistics
from .storage.card import Space
from .storage.filters import Where

Probes = Sequence[tuple[Item, Role]]
ROLES: tuple[Role, ...] = ("query", "document")


@dataclass(frozen=True)
class ProbedQuery:
    """A query and its probes (`Run.probes`), which are what is searched for; without any it is its own."""

    query: Item
    probes: Probes

    @classmethod
    def of(cls, queries: Sequence[Item], probes: Mapping[str, Probes]) -> list[Self]:
        return [cls(query, probes.get(query.id) or ((query, "query"),)) for query in queries]

    @property
    def modalities(self) -> frozenset[Modality]:
        """What the probes hold."""
        return frozenset(each for item, _ in self.probes for each in item.modalities)

    @property
    def words(self) -> Item:
        """The words of all probes as one query, in their language if they have one in common."""
        if len(self.probes) == 1 and self.probes[0][0] is self.query:
            return self.query
        langs = {item.lang or self.query.lang for item, _ in self.probes}
        text = "\n".join(item.text for item, _ in self.probes if item.text)
        return Item(self.query.id, text, lang=langs.pop() if len(langs) == 1 else None)


@dataclass(frozen=True)
class PreparedQueries:
    """A batch of queries, encoded for each space, and how to search for them, any number of times."""

    queries: Sequence[ProbedQuery]
    mode: Mode
    where: Where | None
    exact: bool
    spaces: Sequence[SpaceQueries]

    def select(self, rows: Sequence[int]) -> Self:
        """Some of the queries of the batch."""
        return replace(
            self, queries=[self.queries[row] for row in rows], spaces=[each.select(rows) for each in self.spaces]
        )


def encode_queries(
    queries: Sequence[ProbedQuery],
    space: Space,
    kind: Kind,
    encoders: SpaceEncoders,
    statistics: SpaceStatistics | None,
) -> SpaceQueries:
    """The queries that a space can read, as its vectors; less the mean of their language if there are `statistics`.

    Probes are encoded in their roles, and those of one query pooled as the kind does it.
    """
    read = set(space.spec.modalities)
    probes = [
        (row, item, role) for row, query in enumerate(queries) for item, role in query.probes if item.modalities & read
    ]
    rows = sorted({row for row, _, _ in probes})
    blocks: list[Any] = []
    owners: list[int] = []
    for role in ROLES:
        if items := [item for _, item, wanted in probes if wanted == role]:
            vectors = kind.encode(encoders.get(space), items, role)
            if statistics is not None:
                vectors = statistics.correct(space, vectors, items, role)
            blocks.append(vectors)
            owners += [row for row, _, wanted in probes if wanted == role]
    if len(blocks) == 1 and owners == rows:  # one probe a query
        pooled = blocks[0]
    else:
        pooled = kind.pool(space, blocks, np.searchsorted(rows, owners), len(rows)) if rows else []
    return SpaceQueries(space, rows, pooled, statistics is not None)
