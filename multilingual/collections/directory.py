"""A directory of JSON lines as a collection: NeuCLIR's or HC4's documents and topics, or flat ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, get_args

from ...errors import InputError, unknown_name
from ...items import Item
from ...runs import Qrels, read_qrels
from ..languages import parse_language
from .base import CollectionCounts, MissingPart, check_collection
from .records import (
    ItemReader,
    join_title,
    parse_record,
    read_id,
    read_image,
    read_json_lines,
    read_lang,
    read_text,
    require_text,
)
from .topics import Source, parse_fields, read_topic, select_language

DOCUMENTS = (".jsonl", ".jsonl.gz")  # how a file of documents ends
_NOT_META = frozenset(["id", "text", "image", "lang"])


class Directory:
    """A directory with `docs.jsonl[.gz]` and, for experiments, `topics.jsonl[.gz]` and `qrels.txt`.

    Documents are NeuCLIR's or HC4's (`id, title, text, url, time` or `date`, `cc_file`), with optional `lang`
    and `image`, a path relative to the directory that may not leave it. The item's text is title, newline,
    text; all other keys go to `meta`, the title too. Topics are NeuCLIR's, HC4's, or flat: `{"id", "text",
    "image", "lang", ...}`. Files are streamed; of documents already read only a 64-bit hash of the id is
    kept. `InputError` names file and line; with `skip_bad` such lines are counted in `skipped`, and
    `problems` says what was wrong with the first ten. In place of the directory `root` may be a file of documents,
    which then has no topics and no judgements; its pictures lie beside it.
    """

    def __init__(self, root: Path, *, skip_bad: bool = False) -> None:
        alone = root.is_file() and root.name.endswith(DOCUMENTS)
        if not root.is_dir() and not alone:
            what = (
                f"is a file, and not one of {' or '.join(DOCUMENTS)}" if root.exists() else "does not exist"
            )
            raise InputError(
                f"the collection {root} {what}; give a directory with docs.jsonl, or `demo`, or `irds:ID`"
            )
        self.root = root.parent.resolve() if alone else root.resolve()
        self.name = root.resolve().name
        self.skip_bad = skip_bad
        self._alone = alone
        self._reader = ItemReader(skip_bad)
        self._docs = root.resolve() if alone else self._file("docs")
        if self._docs is None:
            raise InputError(
                f"no docs.jsonl or docs.jsonl.gz in {root}; one JSON object a line with id and text"
            )

    @property
    def skipped(self) -> int:
        """How many bad lines the latest passes over documents and topics left out."""
        return self._reader.skipped

    @property
    def problems(self) -> list[str]:
        """What was wrong with the first of them."""
        return self._reader.problems

    @cached_property
    def langs(self) -> frozenset[str]:
        """The languages that documents declare; reads the whole file once."""
        return frozenset(item.lang for item in self.docs() if item.lang)

    def docs(self) -> Iterator[Item]:
        """The documents in the order of the file; `lang` stays None where the file has none."""
        assert self._docs is not None
        return self._items(self._docs, self._document)

    def queries(
        self, *, fields: str | None = None, lang: str | None = None, source: Source | None = None
    ) -> list[Item]:
        """The topics as queries.

        `fields` joins title, description and narrative with `+` (of NeuCLIR topics title+description unless
        said; flat topics have their text). `lang` picks the wording in that language, the original before a
        human before a machine translation unless `source` says which; topics that are not meant for that
        language (it is not among their `languages_with_qrels`) are left out. Flat topics are left out by
        their `lang`. HC4 keeps a narrative per document language: the query language's is used, else all; of
        its four grades only the valuable. `InputError` names a topic without the field, or without a wording
        that it should have.
        """
        wanted = parse_fields(fields)
        if source is not None and source not in get_args(Source):
            raise unknown_name(source, get_args(Source), "source")
        code = None if lang is None else parse_language(lang)
        path = self._file("topics")
        if path is None:
            raise MissingPart(f"the collection {self._where} has no topics.jsonl or topics.jsonl.gz")

        def query(record: dict[str, Any]) -> Item | None:
            if "topics" in record:
                return read_topic(record, wanted, code, source)
            return self._flat(record, wanted, source)

        return select_language(code, self._items(path, query), f"{path}: no topics", source)

    def qrels(self) -> Qrels:
        """The judgements of `qrels.txt`: query id -> document id -> grade."""
        return read_qrels(self._qrels())[0]

    def judged_langs(self) -> Mapping[str, str]:
        """The language of judged documents, where column 2 of the qrels tells it (NIST's NeuCLIR file)."""
        return {doc: parse_language(lang) for doc, lang in read_qrels(self._qrels())[1].items()}

    def check(self) -> CollectionCounts:
        """Read everything once and count it; `InputError` on no documents, or judgements of unknown ids."""
        topics = self.queries() if self._file("topics") else []
        qrels = self.qrels() if not self._alone and (self.root / "qrels.txt").exists() else {}
        counts = check_collection(self.docs(), topics, qrels, str(self._where))
        return CollectionCounts(**{**vars(counts), "skipped": self.skipped})

    def _qrels(self) -> Path:
        path = self.root / "qrels.txt"
        if self._alone or not path.exists():
            raise MissingPart(f"the collection {self._where} has no qrels.txt")
        return path

    @property
    def _where(self) -> Path:
        return self._docs if self._alone and self._docs else self.root

    def _file(self, stem: str) -> Path | None:
        if self._alone:
            return None
        found = [
            path for path in (self.root / f"{stem}.jsonl", self.root / f"{stem}.jsonl.gz") if path.exists()
        ]
        if len(found) > 1:
            raise InputError(f"{self.root} has both {stem}.jsonl and {stem}.jsonl.gz; keep one")
        return found[0] if found else None

    def _items(self, path: Path, read: Callable[[dict[str, Any]], Item | None]) -> Iterator[Item]:
        return self._reader.items(str(path), read_json_lines(path), lambda line: read(parse_record(line)))

    def _document(self, record: dict[str, Any]) -> Item:
        text = join_title(read_text(record, "title"), read_text(record, "text"))
        meta = {key: value for key, value in record.items() if key not in _NOT_META and value is not None}
        if "time" not in meta and "date" in meta:
            meta["time"] = meta.pop("date")
        item = Item(
            read_id(record, "id"), text, read_image(record, "image", self.root), read_lang(record), meta
        )
        if not item.modalities:
            raise InputError(f"document {item.id!r} has neither text nor an image")
        return item

    def _flat(self, record: dict[str, Any], wanted: tuple[str, ...], source: Source | None) -> Item | None:
        id = read_id(record, "id")
        if source not in (None, "original"):
            raise InputError(f"topic {id!r} has no {source} translation: it is not in NeuCLIR's form")
        parts: list[str | None] = [require_text(record, key, key, id) for key in wanted]
        parts = parts or [read_text(record, "text")]
        meta = {key: value for key, value in record.items() if key not in _NOT_META and value is not None}
        text = "\n".join(part for part in parts if part) or None
        item = Item(id, text, read_image(record, "image", self.root), read_lang(record), meta)
        if not item.modalities:
            raise InputError(f"topic {id!r} has neither text nor an image")
        return item
