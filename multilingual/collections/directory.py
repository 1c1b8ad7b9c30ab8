"""Directories of JSON lines as collections: NeuCLIR's or HC4's documents and topics, flat ones, or BEIR's layout."""

from __future__ import annotations

from collections.abc import Container, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from ...errors import InputError, check_known
from ...items import Item
from ...rows.fields import FileRow, make_item
from ...runs import Qrels, read_qrels
from ..languages import parse_language
from .base import CollectionCounts, FileCollection, MissingPart, check_collection
from .published import PublishedCollection, Reading
from .records import Rows, find_json_lines, find_packed, read_json_lines
from .topics import Source, TopicReader


class Directory(FileCollection):
    """`directory:DIR`, or just DIR: `docs.jsonl[.gz]` and, for experiments, `topics.jsonl[.gz]` and `qrels.txt[.gz]`.

    Documents are NeuCLIR's or HC4's (`id, title, text, url, time` or `date`, `cc_file`), with optional `lang`
    and media: `image`, or another registered modality, is a path relative to the directory that may not leave it. The
    item's text is title, newline, text; all other keys go to `meta`, the title too. Topics are NeuCLIR's, HC4's, or
    flat: `{"id", "text", "image", "lang", ...}`.
    """

    usage = "write directory:DIR, where DIR holds docs.jsonl"
    taken = "a directory with docs.jsonl"

    def __init__(self, where: str | Path, *, skip_bad: bool = False) -> None:
        super().__init__(skip_bad=skip_bad)
        root = Path(where)
        if not root.is_dir():
            what = "is a file" if root.exists() else "does not exist"
            raise InputError(f"the directory {root} {what}: {self.usage}")
        self.root = root.resolve()
        self.name = self.root.name
        docs = find_json_lines(self.root, "docs")
        if docs is None:
            raise InputError(f"no docs.jsonl or docs.jsonl.gz in {root}; one JSON object a line with id and text")
        self._docs = docs

    @staticmethod
    def recognises(path: Path) -> bool:
        return path.is_dir() and find_json_lines(path, "docs") is not None

    @cached_property
    def langs(self) -> frozenset[str]:
        """The languages that documents declare; reads the whole file once."""
        return frozenset(item.lang for item in self.docs() if item.lang)

    def document_rows(self) -> Rows:
        return read_json_lines(self._docs)

    def read_document(self, record: FileRow) -> Item:
        text = record.join_texts("title", "text")
        meta = record.read_meta()
        if "time" not in meta and "date" in meta:
            meta["time"] = meta.pop("date")
        media = record.read_media(self.root)
        return make_item("document", record.read_id(), text, media, record.read_lang(), meta)

    def queries(
        self, *, fields: str | None = None, lang: str | None = None, source: Source | None = None
    ) -> list[Item]:
        """The topics as queries.

        `fields` joins title, description and narrative with `+` (of NeuCLIR topics title+description unless
        given; flat topics have their text). `lang` picks the wording in that language, the original before a
        human before a machine translation unless `source` says which; topics that are not meant for that
        language (it is not among their `languages_with_qrels`) are left out. Flat topics are left out by
        their `lang`. HC4 keeps a narrative per document language: the query language's is used, else all; of
        its four grades only the valuable. `InputError` names a topic without the field, or without a wording
        that it should have.
        """
        topics = TopicReader(fields, lang, source)
        path = find_json_lines(self.root, "topics")
        if path is None:
            raise MissingPart(f"the collection {self.root} has no topics.jsonl or topics.jsonl.gz")

        def read(record: FileRow) -> Item | None:
            return topics.read(record) if "topics" in record else self._read_flat(record, topics)

        return topics.select(self.read_items("topics", read_json_lines(path), read), f"{path}: no topics")

    def qrels(self) -> Qrels:
        """The judgements of `qrels.txt` or `qrels.txt.gz`: query id -> document id -> grade."""
        return read_qrels(self._qrels_path())[0]

    def judged_langs(self) -> Mapping[str, str]:
        """The language of judged documents, where column 2 of the qrels has it (NIST's NeuCLIR file)."""
        return {doc: parse_language(lang) for doc, lang in read_qrels(self._qrels_path())[1].items()}

    def check(self) -> CollectionCounts:
        """Read everything once and count it; `InputError` on no documents, or judgements of unknown ids."""
        return check_collection(self, str(self.root))

    def _qrels_path(self) -> Path:
        path = find_packed(self.root, "qrels.txt")
        if path is None:
            raise MissingPart(f"the collection {self.root} has no qrels.txt")
        return path

    def _read_flat(self, record: FileRow, topics: TopicReader) -> Item:
        id = record.read_id()
        if topics.source not in (None, "original"):
            raise InputError(f"topic {id!r} has no {topics.source} translation: it is not in NeuCLIR's form")
        parts: list[str | None] = [record.require_text(key, "topic", id) for key in topics.fields]
        text = "\n".join(part for part in parts or [record.read_text("text")] if part) or None
        media = record.read_media(self.root)
        return make_item("topic", id, text, media, record.read_lang(), record.read_meta())


class Beir(PublishedCollection):
    """`beir:DIR[?split=test]`, or just DIR: BEIR's layout (Thakur et al., 2021).

    Documents `{"_id", "title", "text", "metadata"}` in corpus.jsonl, queries alike, and qrels/SPLIT.tsv.
    BEIR has no language and no pictures: `lang`, `image` and other media (relative to DIR, which they may not leave)
    are read from the metadata, where `export_collection` puts them; `lang` as an option is that of all documents which
    have none. Of the queries, which BEIR keeps for all splits together, only the judged ones of the split are taken.
    Without `split` it is test, or the only one there is.
    """

    usage = "write beir:DIR, where DIR holds corpus.jsonl, queries.jsonl and qrels/test.tsv"
    not_on_hub = "BEIR's files are read from a directory"
    taken = "a directory with BEIR's corpus.jsonl"

    def __init__(self, where: str, *, reading: Reading, split: str | None = None, lang: str | None = None) -> None:
        super().__init__(where, reading)
        self._root = self.files.directory
        self.name = self._root.name
        self._lang = parse_language(lang) if lang else None
        self.langs = frozenset([self._lang] if self._lang else [])
        splits = sorted({path.name.partition(".tsv")[0] for path in self._root.glob("qrels/*.tsv*")})
        if split is not None:
            check_known(split, splits, f"split of {where}")
        elif len(splits) > 1 and "test" not in splits:
            raise InputError(f"{where} has the splits {', '.join(splits)}: say which, beir:{where}?split={splits[0]}")
        self.split = split or ("test" if "test" in splits else next(iter(splits), None))
        self._judged: Container[str] = ()
        corpus = find_json_lines(self._root, "corpus")
        if corpus is None:
            raise InputError(f"no corpus.jsonl or corpus.jsonl.gz in {self._root}")
        self._corpus = corpus

    @staticmethod
    def recognises(path: Path) -> bool:
        return path.is_dir() and find_json_lines(path, "corpus") is not None

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
        if self.split is not None and record.read_id("_id") not in self._judged:
            return None
        return self._read_item(record, "query", record.read_text("text") or None, None)

    def queries(self, **options: Any) -> list[Item]:
        """The queries that the split judges, or all of them where there are no judgements."""
        self._judged = self.published_qrels().keys() if self.split is not None else ()
        return super().queries(**options)

    def published_qrels(self) -> dict[str, dict[str, int]]:
        if self.split is None:
            raise MissingPart(f"{self._root} has no qrels/*.tsv")
        path = find_packed(self._root / "qrels", f"{self.split}.tsv")
        assert path is not None, "the split is one that was found"
        return read_qrels(path)[0]

    def _read_item(self, record: FileRow, what: str, text: str | None, lang: str | None) -> Item:
        given = {} if record.get("metadata") is None else record["metadata"]
        if not isinstance(given, dict):
            raise InputError(f"metadata must be an object, not {type(given).__name__}")
        metadata = FileRow(given)
        meta = record.read_texts("title") | metadata.read_meta({"lang"})
        media = metadata.read_media(self._root)
        return make_item(what, record.read_id("_id"), text, media, metadata.read_lang() or lang, meta)
