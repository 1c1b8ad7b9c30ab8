"""What is searched for: the probes of queries, in groups that are searches of their own, encoded and as words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from typing import Self

from ..errors import InputError
from ..items import Item, Modality, check_id, check_text, group_positions
from ..runs import Hit, Probe, Rankings, rank_hits
from .base import Retrieve
from .kinds.base import SpaceQueries
from .storage.fulltext import Words
from .storage.resume import ItemState

HEAVIEST = 1e6  # weight of a probe: far above, float32 has no number for the sums


@dataclass(frozen=True)
class ProbedQuery:
    """A query and one group of its probes (`Run.probes`), which are searched for together; without any it is its own.

    Rows of the index that are `excluded` are not found for it.
    """

    query: Item
    probes: tuple[Probe, ...]
    excluded: Set[str]

    @classmethod
    def list_groups(cls, query: Item, probes: Sequence[Probe], excluded: Set[str]) -> list[Self]:
        """A query with each group of its probes; `InputError` for what cannot be searched for in any index."""
        check_text(query)
        check_id(query.id, "a query")
        probes = tuple(probes) or (Probe(query, "query"),)
        for probe in probes:
            check_text(probe.item)
            if not abs(probe.weight) <= HEAVIEST:
                raise InputError(
                    f"query {query.id!r} has a probe of the weight {probe.weight:g}: give a finite one, of "
                    f"{HEAVIEST:,.0f} at most"
                )
        groups = group_positions(probe.group for probe in probes)
        return [cls(query, tuple(probes[row] for row in rows), excluded) for rows in groups.values()]

    def drop_excluded(self, hits: Iterable[tuple[str, float]], k: int) -> tuple[Hit, ...]:
        """The first k of the hits that are not excluded."""
        return rank_hits(hit for hit in hits if hit[0] not in self.excluded)[:k]

    @property
    def seen(self) -> list[Probe]:
        """The probes that are searched for by their vectors."""
        return [probe for probe in self.probes if probe.only != "words"]

    @property
    def questions(self) -> list[Probe]:
        """Those of them that are encoded as queries."""
        return [probe for probe in self.seen if probe.role == "query"]

    @property
    def read(self) -> list[Probe]:
        """The probes whose words are searched for; not those that lead away, as full text ranks by what is there."""
        return [probe for probe in self.probes if probe.only != "vector" and probe.weight > 0]

    @property
    def words(self) -> tuple[Words, ...]:
        """The words of the probes, by language; those of a probe without a language are in that of the query."""
        read = self.read
        found = []
        for lang, rows in group_positions(probe.item.lang or self.query.lang for probe in read).items():
            texts: dict[float, list[str]] = {}
            for row in rows:
                texts.setdefault(read[row].weight, []).append(read[row].item.text or "")
            joined = (("\n".join(filter(None, parts)), weight) for weight, parts in texts.items())
            found.append(Words(lang, tuple(joined)))
        return tuple(found)


def list_held(probes: Iterable[Probe]) -> frozenset[Modality]:
    """What the probes hold."""
    return frozenset(each for probe in probes for each in probe.item.modalities)


def is_stored(probe: Probe, hashes: Mapping[str, str]) -> bool:
    """Whether a probe is a document as it is stored, by the hashes of those that are."""
    held = hashes.get(probe.item.id) if probe.role == "document" else None
    return held is not None and ItemState.of(probe.item).hash == held


@dataclass(frozen=True)
class PreparedQueries:
    """A batch of queries, encoded for each space, to be searched for by the settings of `stage` any number of times.

    A query with several groups of probes stands in it once for each.
    """

    queries: Sequence[ProbedQuery]
    stage: Retrieve
    spaces: Sequence[SpaceQueries]

    @property
    def spare(self) -> int:
        """How many more rows have to be found so that none is lost to what is excluded."""
        return max((len(each.excluded) for each in self.queries), default=0)

    @property
    def asked(self) -> tuple[Item, ...]:
        """The queries, each once."""
        return tuple({each.query.id: each.query for each in self.queries}.values())

    @property
    def rows(self) -> dict[str, list[int]]:
        """Where each query stands, by its id."""
        return group_positions(each.query.id for each in self.queries)

    def drop_excluded(self, rows: Sequence[int], found: Rankings, k: int) -> Rankings:
        """What was `found` for the queries in some rows, without what each excludes: the first k."""
        if not self.spare:
            return found
        return [list(self.queries[row].drop_excluded(hits, k)) for row, hits in zip(rows, found, strict=True)]

    def keep(self, ids: Set[str]) -> Self:
        """Those of some queries."""
        rows = [row for row, each in enumerate(self.queries) if each.query.id in ids]
        return replace(
            self, queries=[self.queries[row] for row in rows], spaces=[each.select(rows) for each in self.spaces]
        )
