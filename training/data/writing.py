"""The files of a synthetic collection as they grow: documents, topics and judgements, and what the card counts."""

from __future__ import annotations

import os
import shutil
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import IO

from ...errors import InputError
from ...files import make_directory
from ...items import Item, SeenIds
from ...multilingual.collections.export import ItemWriter
from ...multilingual.collections.records import to_json_line
from .base import Draft, Making
from .checks import Checks, Duplicates
from .confirm import RoundTrip, Verdict

FILES = ("docs.jsonl", "topics.jsonl", "qrels.txt")


class Writing:
    """A directory that a collection is written into, from its beginning; what is left of an earlier one is removed.

    Drafts come with their documents, windows of them at once, and go through `checks`, the round trip, the verdict and
    the look for duplicates, in this order. What is left out is counted in `dropped` by reason and the query's language.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        shutil.rmtree(root, ignore_errors=True)
        make_directory(root)
        self._items = ItemWriter(root, beir=False)
        try:
            self._out: dict[str, IO[str]] = {
                name: (root / name).open("w", encoding="utf-8", newline="\n") for name in FILES
            }
        except OSError as error:
            raise InputError(f"cannot write {root}: {error.strerror}") from None
        self._duplicates = Duplicates()
        self._judged = SeenIds()
        self.documents = self.drafted = self.shared = 0
        self.kept: Counter[str] = Counter()
        self.styles: Counter[str] = Counter()
        self.grades: Counter[int] = Counter()
        self.dropped: defaultdict[str, Counter[str]] = defaultdict(Counter)

    @property
    def judged(self) -> int:
        """How many documents have a query."""
        return len(self._judged)

    def add(
        self,
        drafted: Sequence[tuple[Item, list[Draft]]],
        checks: Checks,
        round_trip: RoundTrip | None,
        verdict: Verdict | None,
        making: Making,
    ) -> None:
        """Check the drafts of documents, and write what passes."""
        rows = [(document, draft) for document, drafts in drafted for draft in drafts]
        self.documents += len(drafted)
        self.drafted += len(rows)
        passed = []
        for document, draft in rows:
            if fault := checks.find_fault(document, draft):
                self._drop(fault, draft)
            else:
                passed.append((document, draft, Item("query", draft.text, lang=draft.lang)))
        ranks: list[int | None] = [None] * len(passed)
        if round_trip is not None:
            found = round_trip.find_ranks([(query, document) for document, _, query in passed], making)
            for (_, draft, _), rank in zip(passed, found, strict=True):
                if rank is None:
                    self._drop("not_found", draft)
            passed = [each for each, rank in zip(passed, found, strict=True) if rank is not None]
            ranks = [rank for rank in found if rank is not None]
        scores: list[float | None] = [None] * len(passed)
        if verdict is not None:
            scores = [*verdict.score([(query, document) for document, _, query in passed], making)]
        numbers: Counter[str] = Counter()
        shared: set[tuple[str, str]] = set()
        for (document, draft, _), rank, score in zip(passed, ranks, scores, strict=True):
            if verdict is not None and score is not None and score < verdict.threshold:
                self._drop("below_threshold", draft)
                continue
            grade = 1 + (rank == 1) + (score is not None)
            topic = f"{document.id}~{numbers[document.id] + 1}"
            known = self._duplicates.find(document.id, draft.text)
            if known is None:
                numbers[document.id] += 1
                self._duplicates.add(topic, draft.text)
                self._write_topic(topic, draft, document, rank, score)
                self._judge(topic, document, grade)
                continue
            self._drop("duplicate", draft)
            if known and known.rpartition("~")[0] != document.id and (known, document.id) not in shared:
                shared.add((known, document.id))  # it is a query of both
                self.shared += 1
                self._judge(known, document, grade)

    def add_others(self, documents: Iterable[Item]) -> None:
        """Write the documents that have no query, so that the collection is searched as a whole."""
        for document in documents:
            if document.id not in self._judged:
                self._write("docs.jsonl", self._items.make_line(document, "document"))

    def close(self) -> None:
        """Close the files; all of them is on the disk."""
        try:
            for file in self._out.values():
                if not file.closed:
                    file.flush()
                    os.fsync(file.fileno())
                    file.close()
        except OSError as error:
            raise InputError(f"cannot write {self.root}: {error.strerror}") from None

    def _drop(self, reason: str, draft: Draft) -> None:
        self.dropped[reason][draft.lang or ""] += 1

    def _write_topic(self, topic: str, draft: Draft, document: Item, rank: int | None, score: float | None) -> None:
        record = {
            "id": topic, "text": draft.text, "lang": draft.lang, "document": document.id, "style": draft.style,
            "rank": rank, "score": None if score is None else round(score, 4),
        }  # fmt: skip
        self._write(
            "topics.jsonl", to_json_line(topic, {key: each for key, each in record.items() if each is not None})
        )
        self.kept[draft.lang or ""] += 1
        self.styles[draft.style] += 1

    def _judge(self, topic: str, document: Item, grade: int) -> None:
        self._write("qrels.txt", f"{topic} {document.lang or 0} {document.id} {grade}\n")
        self.grades[grade] += 1
        if not self._judged.add(document.id):
            self._write("docs.jsonl", self._items.make_line(document, "document"))

    def _write(self, name: str, line: str) -> None:
        try:
            self._out[name].write(line)
        except OSError as error:
            raise InputError(f"cannot write {self.root / name}: {error.strerror}") from None
