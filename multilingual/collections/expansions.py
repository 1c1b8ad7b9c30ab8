"""Expansions of documents: queries that each may answer, which full text is to find it by (doc2query)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self

from ...errors import InputError, list_few
from ...files import find_fault
from ...indexes.storage.rows import EXPANSIONS
from ...items import Item
from ...rows.fields import FileRow
from .records import read_json_lines

SEPARATOR = "\n"


@dataclass
class Expansions:
    """What is added to documents for full text alone: by their ids, texts by language ("" for the document's own).

    Nogueira et al. 2019, Document Expansion by Query Prediction, arXiv:1904.08375. The text of a document, and what
    encoders read, stay as they are. `used` are the ids of the documents that were expanded.
    """

    texts: Mapping[str, Mapping[str, str]]
    used: set[str] = field(default_factory=set)

    @classmethod
    def read(cls, path: str | Path) -> Self:
        """From JSON lines `id, text` and perhaps `lang`, a line a query; or from a collection with topics and qrels.

        Of a collection, as `crosslens synthesize` writes it, each document gets the topics that it is relevant for.
        `InputError` names file and line of what cannot be read.
        """
        path = Path(path)
        found: dict[str, dict[str, list[str]]] = {}
        for id, lang, text in _read_collection(path) if path.is_dir() else _read_lines(path):
            found.setdefault(id, {}).setdefault(lang, []).append(" ".join(text.split()))
        if not found:
            raise InputError(f"{path} expands no document: it has no queries for any")
        return cls({id: {lang: SEPARATOR.join(texts) for lang, texts in by.items()} for id, by in found.items()})

    def check(self, items: Iterable[Item], where: str) -> None:
        """`InputError` where none of a collection's documents has an expansion; it is read up to the first that has."""
        if all(item.id not in self.texts for item in items):
            raise InputError(
                f"{where} has none of the documents that the expansions are for ({list_few(self.texts)}): give those "
                f"that were made for it"
            )

    def expand(self, items: Iterable[Item]) -> Iterator[Item]:
        """The documents, those that have an expansion with it; `InputError` for one that brings such a field."""
        for item in items:
            if EXPANSIONS in item.meta:
                raise InputError(f"document {item.id!r} has a field {EXPANSIONS} of its own: rename it")
            if (texts := self.texts.get(item.id)) is not None:
                self.used.add(item.id)
                item = replace(item, meta={**item.meta, EXPANSIONS: dict(texts)})
            yield item


def _read_lines(path: Path) -> Iterator[tuple[str, str, str]]:
    """Document, language and query of each line."""
    if fault := find_fault(path):
        raise InputError(f"cannot read the expansions {path}: {fault}")
    for place, line in read_json_lines(path):
        try:
            row = FileRow.parse(line)
            id = row.read_id()
            yield id, row.read_lang() or "", row.require_text("text", "the expansion of", id)
        except InputError as error:
            raise InputError(f"{place}: {error}") from None


def _read_collection(path: Path) -> Iterator[tuple[str, str, str]]:
    """Document, language and query of each judgement above 0."""
    from .registry import load_collection

    collection = load_collection(path)
    queries = {query.id: query for query in collection.queries()}
    for id, grades in collection.qrels().items():
        query = queries.get(id)
        for doc, grade in grades.items():
            if query is not None and query.text and grade > 0:
                yield doc, query.lang or "", query.text
