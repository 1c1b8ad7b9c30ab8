"""What every adapter shares: streaming with unique ids, queries by language, and counts held against published ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

from ...errors import InputError
from ...items import Item
from ...runs import Qrels, read_qrels
from .base import CollectionCounts, MissingPart, check_collection
from .files import DatasetFiles
from .records import ItemReader
from .topics import Source, select_language


class PublishedCollection:
    """A `Collection` over a publisher's files; a family says how documents, queries and judgements are found there.

    `sample` takes a part of the collection for what it is: counts are not held against the published ones, and
    judgements of documents that it lacks are left out (as the organisers' filter scripts do).
    """

    usage: ClassVar[str] = ""  # how to name such a collection, for error lines
    name: str
    langs: frozenset[str]
    published: Mapping[str, int]  # documents by language, where the publisher's own figure is known

    def __init__(
        self, name: str, files: DatasetFiles, langs: frozenset[str], *, sample: bool, skip_bad: bool
    ) -> None:
        self.name = name
        self.files = files
        self.langs = langs
        self.published = {}
        self.sample = sample
        self._reader = ItemReader(skip_bad)
        self._held: set[str] | None = None

    @property
    def skipped(self) -> int:
        """How many bad rows the latest passes left out."""
        return self._reader.skipped

    @property
    def problems(self) -> list[str]:
        """What was wrong with the first of them."""
        return self._reader.problems

    def docs(self) -> Iterator[Item]:
        """The documents, streamed in the order of the files."""
        return self._reader.items("documents", self._doc_rows(), self._document)

    def queries(
        self, *, fields: str | None = None, lang: str | None = None, source: Source | None = None
    ) -> list[Item]:
        """The queries; `InputError` for `fields` or `source`, which these queries do not have."""
        if fields or source:
            raise InputError(
                f"the queries of {self.name} are plain texts: they have no fields and one source"
            )
        found = self._reader.items("queries", self._query_rows(), self._query)
        return select_language(lang, found, f"{self.name} has no queries")

    def qrels(self) -> Qrels:
        """The judgements; of a sample only those of its documents, which are read through once for it."""
        judged = self._judged()
        if not self.sample:
            return judged
        if self._held is None:
            wanted = {doc for grades in judged.values() for doc in grades}
            self._held = {item.id for item in self.docs() if item.id in wanted}
        kept = {
            topic: {doc: grade for doc, grade in grades.items() if doc in self._held}
            for topic, grades in judged.items()
        }
        return {topic: grades for topic, grades in kept.items() if grades}

    def check(self) -> CollectionCounts:
        """Read everything once and count it.

        `InputError` on counts of documents other than the published ones (both numbers), and as `checked`.
        """
        try:
            topics = self.queries()
        except MissingPart:
            topics = []
        try:
            qrels = self.qrels()
        except MissingPart:
            qrels = {}
        published = {} if self.sample else self.published
        counts = check_collection(self.docs(), topics, qrels, self.name, published)
        return CollectionCounts(**{**vars(counts), "skipped": self.skipped})

    def _judged(self) -> dict[str, dict[str, int]]:
        return read_qrels(self._qrels_file())[0]

    def _qrels_file(self) -> Path:
        raise NotImplementedError

    def _doc_rows(self) -> Iterator[tuple[str, Any]]:
        raise NotImplementedError

    def _query_rows(self) -> Iterator[tuple[str, Any]]:
        raise NotImplementedError

    def _document(self, row: Any) -> Item | None:
        raise NotImplementedError

    def _query(self, row: Any) -> Item | None:
        raise NotImplementedError


def check_count(where: str, found: int, expected: int, what: str) -> None:
    """`InputError` with both numbers unless as many were found as were published."""
    if found != expected:
        raise InputError(
            f"{where} has {found:,} {what}, but {expected:,} were published: "
            "complete the files, or add sample=true to use what is there"
        )
