"""What an experiment found: for each collection a table, for each system what it cost; the memory in use is watched."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ...multilingual.collections.base import CollectionCounts
from ...runs import Run
from ..table import Table
from .examples import ShownQuery


@dataclass(frozen=True)
class Cost:
    """What a system took for all queries of a collection, as its stages recorded it when they were computed.

    `seconds` is wall time of its stages, search and reranking, without the making of indexes; `tokens` are those that
    its judges and translators read and wrote, `calls` the questions they answered; `peak_bytes` is the largest
    resident memory of the process while it ran, None where the system does not count it or nothing was computed.
    """

    seconds: float
    tokens: int = 0
    calls: int = 0
    peak_bytes: int | None = None

    @classmethod
    def of_run(cls, run: Run) -> Cost:
        """What the stages behind a run took together."""
        records, total = run.manifest.records, run.manifest.total
        return cls(
            seconds=round(sum(record.seconds for record in records), 3),
            tokens=int(total("prompt_tokens") + total("generated_tokens")),
            calls=int(total("calls")),
            peak_bytes=max((int(record.counts.get("peak_bytes", 0)) for record in records), default=0) or None,
        )


@dataclass(frozen=True)
class Outcome:
    """One system on one collection: where its run lies (relative to the results), and which stages were reused."""

    system: str
    pipeline: str
    folder: str
    cost: Cost
    queries: int
    reused: tuple[str, ...] = ()


@dataclass(frozen=True)
class Part:
    """One collection: its counts, the table over its systems, and an outcome for each of them, in that order.

    `counts.langs` maps languages to documents; `query_langs` to queries. `indexes` describes each index:
    its directory, documents, encoders, seconds, bytes. `examples` are some queries with their first hits.
    """

    collection: str
    counts: CollectionCounts
    query_langs: Mapping[str, int]
    table: Table
    outcomes: Mapping[str, Outcome]
    indexes: tuple[Mapping[str, Any], ...] = ()
    examples: tuple[ShownQuery, ...] = ()


@dataclass(frozen=True)
class Results:
    """All of it; `plan` is the experiment as it was understood, `provenance` versions, commit, machine and date."""

    name: str
    plan: Mapping[str, Any]
    parts: tuple[Part, ...]
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, object]:
        """A dict for JSON: every mean, p-value, interval and query's value, and what each system cost."""
        return {
            "name": self.name,
            "plan": dict(self.plan),
            "provenance": dict(self.provenance),
            "collections": [
                {
                    "name": part.collection,
                    "counts": part.counts.to_json(),
                    "query_langs": dict(part.query_langs),
                    "indexes": [dict(index) for index in part.indexes],
                    "systems": {name: asdict(outcome) for name, outcome in part.outcomes.items()},
                    "table": part.table.to_json(per_query=True),
                }
                for part in self.parts
            ],
        }


@contextmanager
def watch_memory() -> Iterator[Callable[[], int | None]]:
    """Yields a callable that gives the largest resident memory, in bytes, since the block was entered.

    None where the system cannot start the count again (Linux can): a peak since the start of the process would blame
    one system for what another needed.
    """
    counting = False
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # proc(5): resets the peak resident set size
        counting = True
    yield lambda: _read_peak() if counting else None


def _read_peak() -> int | None:
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(found[1]) * 1024 if found else None
