"""How fast this machine has been: what experiments measured, kept so that a dry run can say how long one will take."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from statistics import mean
from typing import Any, Self

from ...encoders.cache.store import locate_vector_cache
from ...errors import InputError
from ...files import make_directory, read_json, write_json
from ...items import Item
from ...multilingual.judges.messages import TokenEstimate
from ...multilingual.reranking.plan import list_rerankers
from ...runs import Run
from ...systems.system import System

log = logging.getLogger("crosslens")

SAMPLE = 1000  # documents from whose length that of all is estimated
KEPT = 20  # of the measurements of a rate, the last ones


@dataclass
class Rates:
    """Seconds a unit by what is done: a token for `index ENCODERS`, a question for `judge SPEC`, a query for `search`.

    Measured on one device; `path` is where they are kept between experiments.
    """

    path: Path
    measured: dict[str, list[float]] = field(default_factory=dict)

    @classmethod
    def of_machine(cls, device: str) -> Self:
        """Those of this machine's cache; none where there are none, or they cannot be read."""
        path = locate_vector_cache() / f"rates-{device.replace(':', '-')}.json"
        try:
            stored = read_json(path) if path.exists() else {}
            return cls(path, {str(key): [float(each) for each in values] for key, values in stored.items()})
        except (InputError, ValueError, TypeError, AttributeError):
            return cls(path)

    def add_results(self, out: Path, tokens: float) -> None:
        """Add what stands in the results of an earlier run: whole lines, and indexes of documents of so many tokens."""
        for path in sorted(out.glob("*/*/manifest.json")):
            cell = read_object(path)
            queries = cell.get("queries")
            if isinstance(queries, int) and isinstance(cell.get("seconds"), float):
                self.note(name_line(str(cell.get("pipeline"))), cell["seconds"], queries)
        note_indexes(self, [read_object(path) for path in sorted(out.glob("indexes/*.json"))], tokens)

    def note(self, what: str, seconds: float, units: float) -> None:
        """Add a measurement; what took no time or did nothing measures nothing."""
        if seconds > 0 and units > 0:
            self.measured[what] = [*self.measured.get(what, ()), seconds / units][-KEPT:]

    def estimate(self, what: str, units: float) -> float | None:
        """Seconds for so many units; None where that has not been measured."""
        found = self.measured.get(what)
        return mean(found) * units if found else None

    def save(self) -> None:
        """Keep them; where the cache cannot be written, they are lost with a line that says so."""
        try:
            make_directory(self.path.parent)
            write_json(self.path, self.measured)
        except InputError as error:
            log.warning("what was measured is not kept: %s", error)


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file; an empty one where it is none, or damaged."""
    try:
        found = read_json(path)
    except InputError:
        return {}
    return found if isinstance(found, dict) else {}


def name_line(pipeline: str) -> str:
    """What a whole system is measured as, a query at a time."""
    return f"line {pipeline}"


def name_indexing(encoders: Iterable[str]) -> str:
    """What an index with these encoders is measured as."""
    return f"index {' '.join(encoders)}".strip()


def name_judges(system: System) -> list[str]:
    """What the rerankers of a system are measured as, in their order: prompt, sorter and model, without options."""
    specs = (part.spec for part in system.parts if part.method is not None)
    return [f"judge {written.partition('?')[0]}" for spec in specs for written in list_rerankers(spec)]


def mean_tokens(items: Iterable[Item]) -> float:
    """The mean length of the first items, in tokens as `TokenEstimate` counts them; 0 without any."""
    estimate = TokenEstimate()
    return mean([estimate.count(item.text or "") for item in islice(items, SAMPLE)] or [0])


def note_system(rates: Rates, system: System, run: Run, reused: Collection[str]) -> None:
    """Measure what a system took for a run: its judge, if it has a single one, and all the rest as its search.

    Not what was taken from earlier results, by the names of their stages.
    """
    fresh = [record for record in run.manifest.records if record.stage not in reused]
    judged = [record for record in fresh if record.counts.get("calls")]
    judges = name_judges(system)
    if len(judges) == 1:
        calls = sum(record.counts["calls"] for record in judged)
        rates.note(judges[0], sum(record.seconds for record in judged), calls)
    if len(fresh) == len(run.manifest.records):
        others = sum(record.seconds for record in fresh if not record.counts.get("calls"))
        rates.note(name_search(system), others, len(run))


def name_search(system: System) -> str:
    """What the part of a system without judges is measured as."""
    return "search " + " ".join(part.spec for part in system.parts if part.method is None)


def note_indexes(rates: Rates, notes: Iterable[Mapping[str, object]], tokens: float) -> None:
    """Measure what indexes took, given the mean tokens of a document; not those that were taken from a cache."""
    for note in notes:
        documents, seconds, encoders = (note.get(key) for key in ("added", "seconds", "encoders"))
        fresh = not note.get("resumed") and not note.get("cached")
        if fresh and isinstance(documents, int) and isinstance(seconds, float) and isinstance(encoders, list):
            rates.note(name_indexing(map(str, encoders)), seconds, documents * max(tokens, 1.0))
