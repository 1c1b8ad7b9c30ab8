"""What collections over publishers' files share: the usual forms of files, samples, and counts held against published ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from ...errors import InputError
from ...items import Item
from ...runs import Qrels, read_qrels
from .base import CollectionCounts, FileCollection, check_collection, check_count
from .files import DatasetFiles, read_rows
from .records import Rows
from .topics import Source, select_language


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How much must be there; options that all families share (`specs.known_options`).

    `sample` takes a part of a collection for what it is: counts are not held against the published ones, and
    judgements of documents that it lacks are left out (as the organisers' filter scripts do). `skip_bad` counts bad
    rows in place of refusing them.
    """

    sample: bool = False
    skip_bad: bool = False


class PublishedCollection(FileCollection):
    """A `Collection` over a publisher's files; a family says how documents, queries and judgements are found there.

    `where` is a directory, a data set on the Hugging Face hub, or empty for the publisher's own `repositories` there.
    A family sets `name` and `langs`. Where it does not say otherwise, documents are rows `docid, title, text, url` of
    `doc_files`, in the only one of the `langs`; queries are rows `id, text` of `topic_files`, in `query_lang`; and
    judgements are a TREC file, `qrels_files`. Each is a tuple of patterns, of which the first wins that finds any. Rows
    are those of `files.read_rows`.
    """

    usage: ClassVar[str] = ""  # how to name such a collection, for error texts
    repositories: ClassVar[tuple[str, ...]] = ()
    not_on_hub: ClassVar[str] = ""  # why only a directory will do, for error texts
    questions: ClassVar[int] = 0  # in the publisher's file, where that figure is known
    langs: frozenset[str]
    doc_files: tuple[str, ...]
    topic_files: tuple[str, ...]
    qrels_files: tuple[str, ...]
    query_lang: str | None = "eng"
    published: Mapping[str, int]  # documents by language, where the publisher's own figure is known

    def __init__(self, where: str, reading: Reading) -> None:
        super().__init__(skip_bad=reading.skip_bad)
        self.files = DatasetFiles(where, self.repositories, usage=self.usage, not_on_hub=self.not_on_hub)
        self.sample = reading.sample
        self.published = {}
        self._sampled: set[str] | None = None

    def queries(
        self, *, fields: str | None = None, lang: str | None = None, source: Source | None = None
    ) -> list[Item]:
        """The queries; `InputError` for `fields` or `source`, which these queries do not have."""
        if fields or source:
            raise InputError(f"the queries of {self.name} are plain texts: they have no fields and one source")
        found = self.read_items("queries", self.query_rows(), self.read_query)
        return select_language(lang, found, f"{self.name} has no queries")

    def qrels(self) -> Qrels:
        """The judgements; of a sample only those of its documents, which are read through once for it."""
        judged = self.published_qrels()
        if not self.sample:
            return judged
        if self._sampled is None:
            wanted = {doc for grades in judged.values() for doc in grades}
            self._sampled = {item.id for item in self.docs() if item.id in wanted}
        kept = {
            topic: {doc: grade for doc, grade in grades.items() if doc in self._sampled}
            for topic, grades in judged.items()
        }
        return {topic: grades for topic, grades in kept.items() if grades}

    def check(self) -> CollectionCounts:
        """Read everything once and count it.

        `InputError` on other numbers of documents or questions than the published ones (both numbers), and as
        `check_collection`.
        """
        if self.questions and not self.sample:
            check_count(self.name, sum(1 for _ in self.query_rows()), self.questions, "questions")
        return check_collection(self, self.name, {} if self.sample else self.published)

    def document_rows(self) -> Rows:
        return read_rows(self.files.get_all(*self.doc_files))

    def read_document(self, row: Any) -> Item | None:
        text, meta = row.join_texts("title", "text"), row.read_texts("title", "url")
        return Item(row.read_id("docid"), text, None, next(iter(self.langs), None), meta)

    def query_rows(self) -> Rows:
        """The rows of all queries, as `document_rows`."""
        return read_rows([self.files.get_one(*self.topic_files)])

    def read_query(self, row: Any) -> Item | None:
        """The query of a row, as `read_document`."""
        return Item(row.read_id(), row["text"], None, self.query_lang)

    def published_qrels(self) -> dict[str, dict[str, int]]:
        """All judgements; `MissingPart` where there are none."""
        return read_qrels(self.files.get_one(*self.qrels_files))[0]
