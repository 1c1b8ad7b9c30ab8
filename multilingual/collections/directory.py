"""A directory of JSON lines as a collection: NeuCLIR's or HC4's documents and topics, or flat ones."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

from ...errors import InputError
from ...items import Item
from ...runs import Qrels, read_qrels
from ..languages import parse_language
from .base import CollectionCounts, FileCollection, MissingPart, check_collection
from .records import FileRow, Rows, find_json_lines, make_item, read_json_lines
from .topics import Source, TopicReader

DOCUMENTS = (".jsonl", ".jsonl.gz")  # how a file of documents ends


class Directory(FileCollection):
    """A directory with `docs.jsonl[.gz]` and, for experiments, `topics.jsonl[.gz]` and `qrels.txt`.

    Documents are NeuCLIR's or HC4's (`id, title, text, url, time` or `date`, `cc_file`), with optional `lang`
    and media: `image`, or another registered modality, is a path relative to the directory that may not leave it. The
    item's text is title, newline, text; all other keys go to `meta`, the title too. Topics are NeuCLIR's, HC4's, or
    flat: `{"id", "text", "image", "lang", ...}`. In place of the directory `root` may be a file of documents, which
    then has no topics and no judgements; its pictures lie beside it.
    """

    def __init__(self, root: Path, *, skip_bad: bool = False) -> None:
        super().__init__(skip_bad=skip_bad)
        self._alone = root.is_file() and root.name.endswith(DOCUMENTS)
        if not root.is_dir() and not self._alone:
            what = f"is a file, and not one of {' or '.join(DOCUMENTS)}" if root.exists() else "does not exist"
            raise InputError(f"the collection {root} {what}; give a directory with docs.jsonl, or `demo`, or `irds:ID`")
        self._where = root.resolve()  # as errors name it
        self.root = self._where.parent if self._alone else self._where
        self.name = self._where.name
        docs = self._where if self._alone else find_json_lines(self.root, "docs")
        if docs is None:
            raise InputError(f"no docs.jsonl or docs.jsonl.gz in {root}; one JSON object a line with id and text")
        self._docs = docs

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
        path = None if self._alone else find_json_lines(self.root, "topics")
        if path is None:
            raise MissingPart(f"the collection {self._where} has no topics.jsonl or topics.jsonl.gz")

        def read(record: FileRow) -> Item | None:
            return topics.read(record) if "topics" in record else self._read_flat(record, topics)

        return topics.select(self.read_items("topics", read_json_lines(path), read), f"{path}: no topics")

    def qrels(self) -> Qrels:
        """The judgements of `qrels.txt`: query id -> document id -> grade."""
        return read_qrels(self._qrels_path())[0]

    def judged_langs(self) -> Mapping[str, str]:
        """The language of judged documents, where column 2 of the qrels has it (NIST's NeuCLIR file)."""
        return {doc: parse_language(lang) for doc, lang in read_qrels(self._qrels_path())[1].items()}

    def check(self) -> CollectionCounts:
        """Read everything once and count it; `InputError` on no documents, or judgements of unknown ids."""
        return check_collection(self, str(self._where))

    def _qrels_path(self) -> Path:
        path = self.root / "qrels.txt"
        if self._alone or not path.exists():
            raise MissingPart(f"the collection {self._where} has no qrels.txt")
        return path

    def _read_flat(self, record: FileRow, topics: TopicReader) -> Item:
        id = record.read_id()
        if topics.source not in (None, "original"):
            raise InputError(f"topic {id!r} has no {topics.source} translation: it is not in NeuCLIR's form")
        parts: list[str | None] = [record.require_text(key, "topic", id) for key in topics.fields]
        text = "\n".join(part for part in parts or [record.read_text("text")] if part) or None
        media = record.read_media(self.root)
        return make_item("topic", id, text, media, record.read_lang(), record.read_meta())
