"""What judges said in the reranking benchmarks, kept: answers in a journal, finished methods in a file of results."""

from __future__ import annotations

import hashlib
import json
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from crosslens.commands.console import progress
from crosslens.multilingual.judges.journal import Journal
from crosslens.multilingual.judges.kept import KeptJudge
from crosslens.multilingual.reranking.rerank import Rerank
from crosslens.pipeline import watch
from crosslens.runs import Hit
from kept_lines import read_lines
from rerank_task import Task

FORMAT = 2  # of a result: of earlier ones only the answers in the journal are taken up
Clock = Callable[[], float]  # seconds
Judged = Mapping[str, Sequence[Hit]]  # by query, the candidates in the judge's order, with its scores


class ClockedJournal(Journal):
    """A journal that also keeps how long each answer took by a clock, so that seconds add up over sessions and methods."""

    def __init__(self, path: Path, clock: Clock = time.perf_counter) -> None:
        super().__init__(path)
        self.spent = 0.0  # milliseconds in this session
        self._clock = clock
        self._mark = clock()

    def put(self, key: str, value: Any, counts: Mapping[str, float]) -> None:  # type: ignore[override]
        now = self._clock()
        milliseconds = round(1000 * (now - self._mark), 1)
        self._mark = now
        self.spent += milliseconds
        super().put(key, value, {**counts, "milliseconds": milliseconds})  # type: ignore[dict-item]


@contextmanager
def kept_at(path: Path | None) -> Iterator[Path]:
    """Where the answers are kept: at `path`, or for this run only."""
    with tempfile.TemporaryDirectory() as folder:
        yield path or Path(folder, "journal")


def ask(
    name: str, stage: Rerank, work: Task, journal: Path, clock: Clock = time.perf_counter
) -> tuple[Judged, Counter[str]]:
    """What the judge alone says of the candidates, and what that cost, in this session or in earlier ones.

    An answer that another method was given counts for both: the costs are those of a method by itself.
    """
    count: Counter[str] = Counter()
    candidates = sum(min(stage.depth, len(hits)) for _, hits in work.first)
    with closing(ClockedJournal(journal, clock)) as kept, progress(name) as bar, watch(bar):
        judged = replace(stage, judge=KeptJudge(stage.judge, kept, candidates)).ask(work.first, count)
        count["milliseconds"] += round(kept.spent)
    return judged, count


def identity(stages: Sequence[Rerank], work: Task) -> str:
    """What a result depends on: prompt, sorter, judge and its revision, sizes, queries, and the first stage's hits."""
    parts = [str(FORMAT), *(stage.fingerprint for stage in stages), json.dumps(work.setting, sort_keys=True)]
    for query, hits in work.first:
        parts.append(f"{query.id} {query.content_hash()} {' '.join(hit.id for hit in hits)}")
    parts += [record.fingerprint for record in work.first.manifest.records]
    return hashlib.blake2b("\n".join(parts).encode(), digest_size=12).hexdigest()


def results(path: Path | None) -> dict[str, dict[str, Any]]:
    """The results in a JSON-lines file by their keys."""
    return {entry["key"]: entry for entry in read_lines(path) if "key" in entry}
