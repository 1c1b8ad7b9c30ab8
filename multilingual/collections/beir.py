"""BEIR's layout (Thakur et al., 2021): corpus.jsonl, queries.jsonl and qrels/SPLIT.tsv."""

from __future__ import annotations

from collections.abc import Container
from typing import Any

from ...errors import InputError, check_known
from ...items import Item
from ..languages import parse_language
from .base import MissingPart
from .files import read_judgements, read_table
from .published import PublishedCollection, Reading
from .records import FileRow, Rows, find_json_lines, make_item, read_json_lines

_KNOWN = frozenset(["lang"])  # in the metadata


class Beir(PublishedCollection):
    """`beir:DIR[?split=test]`, or just DIR: documents `{"_id", "title", "text", "metadata"}`, queries alike.

    BEIR has no language and no pictures: `lang`, `image` and other media (relative to DIR, which they may not leave)
    are read from the metadata, where `export_collection` puts them; `lang` as an option is that of all documents which
    have none. Of the queries, which BEIR keeps for all splits together, only the judged ones of the split are taken.
    Without `split` it is test, or the only one there is.
    """

    usage = "write beir:DIR, where DIR holds corpus.jsonl, queries.jsonl and qrels/test.tsv"
    not_on_hub = "BEIR's files are read from a directory"

    def __init__(self, where: str, *, reading: Reading, split: str | None = None, lang: str | None = None) -> None:
        super().__init__(where, reading)
        self._root = self.files.directory
        self.name = self._root.name
        self._lang = parse_language(lang) if lang else None
        self.langs = frozenset([self._lang] if self._lang else [])
        splits = sorted(path.stem for path in self._root.glob("qrels/*.tsv"))
        if split is not None:
            check_known(split, splits, f"split of {where}")
        elif len(splits) > 1 and "test" not in splits:
            raise InputError(f"{where} has the splits {', '.join(splits)}: say which, beir:{where}?split={splits[0]}")
        self._split = split or ("test" if "test" in splits else next(iter(splits), None))
        self._judged: Container[str] = ()
        corpus = find_json_lines(self._root, "corpus")
        if corpus is None:
            raise InputError(f"no corpus.jsonl or corpus.jsonl.gz in {self._root}")
        self._corpus = corpus

    def document_rows(self) -> Rows:
        return read_json_lines(self._corpus)

    def read_document(self, record: FileRow) -> Item:
        return self._read_item(record, "document", record.join_texts("title", "text"), self._lang)

    def query_rows(self) -> Rows:
        path = find_json_lines(self._root, "queries")
        if path is None:
            raise MissingPart(f"no queries.jsonl or queries.jsonl.gz in {self._root}")
        return read_json_lines(path)

    def read_query(self, record: FileRow) -> Item | None:
        if self._split is not None and record.read_id("_id") not in self._judged:
            return None
        return self._read_item(record, "query", record.read_text("text") or None, None)

    def queries(self, **options: Any) -> list[Item]:
        """The queries that the split judges, or all of them where there are no judgements."""
        self._judged = self.published_qrels().keys() if self._split is not None else ()
        return super().queries(**options)

    def published_qrels(self) -> dict[str, dict[str, int]]:
        if self._split is None:
            raise MissingPart(f"{self._root} has no qrels/*.tsv")
        columns = ("query-id", "corpus-id", "score")
        rows = read_table(self._root / "qrels" / f"{self._split}.tsv", columns, header=True)
        return read_judgements(rows, *columns)

    def _read_item(self, record: FileRow, what: str, text: str | None, lang: str | None) -> Item:
        given = {} if record.get("metadata") is None else record["metadata"]
        if not isinstance(given, dict):
            raise InputError(f"metadata must be an object, not {type(given).__name__}")
        metadata = FileRow(given)
        meta = record.read_texts("title") | metadata.read_meta(_KNOWN)
        media = metadata.read_media(self._root)
        return make_item(what, record.read_id("_id"), text, media, metadata.read_lang() or lang, meta)
