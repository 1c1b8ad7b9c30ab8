"""BEIR's layout (Thakur et al., 2021): corpus.jsonl, queries.jsonl and qrels/SPLIT.tsv."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...errors import InputError, unknown_name
from ...items import Item
from ..languages import parse_language
from .base import MissingPart
from .files import DatasetFiles, read_tsv
from .published import PublishedCollection
from .records import join_title, parse_record, read_id, read_image, read_json_lines, read_text


class Beir(PublishedCollection):
    """`beir:DIR[?split=test]`, or just DIR: documents `{"_id", "title", "text", "metadata"}`, queries alike.

    BEIR has no language and no pictures: `lang` and `image` (relative to DIR, which it may not leave) are read from
    the metadata, where `export` puts them; `lang` as an option is that of all documents which have none. Of the
    queries, which BEIR keeps for all splits together, only the judged ones of the split are taken. Without `split`
    it is test, or the only one there is.
    """

    usage = "write beir:DIR, where DIR holds corpus.jsonl, queries.jsonl and qrels/test.tsv"

    def __init__(
        self, where: str, *, split: str | None = None, lang: str | None = None, sample: bool = False,
        skip_bad: bool = False,
    ) -> None:  # fmt: skip
        if not Path(where).is_dir():
            raise InputError(f"there is no directory {where!r}: {self.usage}")
        self.root = Path(where).resolve()
        files = DatasetFiles(where, usage=self.usage)
        self._lang = parse_language(lang) if lang else None
        langs = frozenset([self._lang] if self._lang else [])
        super().__init__(self.root.name, files, langs, sample=sample, skip_bad=skip_bad)
        splits = sorted(path.stem for path in self.root.glob("qrels/*.tsv"))
        if split is not None and split not in splits:
            raise unknown_name(split, tuple(splits), f"split of {where}")
        if split is None and len(splits) > 1 and "test" not in splits:
            raise InputError(
                f"{where} has the splits {', '.join(splits)}: say which, beir:{where}?split={splits[0]}"
            )
        self._split = split or ("test" if "test" in splits else next(iter(splits), None))
        self._corpus = self._file("corpus")

    def _file(self, stem: str) -> Path:
        for path in (self.root / f"{stem}.jsonl", self.root / f"{stem}.jsonl.gz"):
            if path.is_file():
                return path
        lacking = MissingPart if stem == "queries" else InputError
        raise lacking(f"no {stem}.jsonl or {stem}.jsonl.gz in {self.root}")

    def _doc_rows(self) -> Iterator[tuple[str, bytes]]:
        return read_json_lines(self._corpus)

    def _document(self, row: Any) -> Item:
        item = self._item(parse_record(row))
        if not item.modalities:
            raise InputError(f"document {item.id!r} has neither text nor an image")
        return item

    def _query_rows(self) -> Iterator[tuple[str, bytes]]:
        return read_json_lines(self._file("queries"))

    def _query(self, row: Any) -> Item | None:
        record = parse_record(row)
        if self._split is not None and read_id(record, "_id") not in self._topics:
            return None
        item = self._item(record, query=True)
        if not item.modalities:
            raise InputError(f"query {item.id!r} has neither text nor an image")
        return item

    def queries(self, **options: Any) -> list[Item]:
        """The queries that the split judges, or all of them where there are no judgements."""
        self._topics = self._judged().keys() if self._split is not None else ()
        return super().queries(**options)

    def _judged(self) -> dict[str, dict[str, int]]:
        if self._split is None:
            raise MissingPart(f"{self.root} has no qrels/*.tsv")
        judged: dict[str, dict[str, int]] = {}
        path = self.root / "qrels" / f"{self._split}.tsv"
        for place, row in read_tsv(path, ("query-id", "corpus-id", "score"), header=True):
            try:
                grade = int(row["score"])
            except ValueError:
                raise InputError(f"{place}: the score {row['score']!r} is not a whole number") from None
            judged.setdefault(row["query-id"], {})[row["corpus-id"]] = grade
        return judged

    def _item(self, record: dict[str, Any], query: bool = False) -> Item:
        metadata = {} if record.get("metadata") is None else record["metadata"]
        if not isinstance(metadata, dict):
            raise InputError(f"metadata must be an object, not {type(metadata).__name__}")
        meta = {
            key: value
            for key, value in metadata.items()
            if key not in ("lang", "image") and value is not None
        }
        title = read_text(record, "title")
        if title:
            meta = {"title": title, **meta}
        lang = read_text(metadata, "lang")
        return Item(
            read_id(record, "_id"),
            read_text(record, "text") or None if query else join_title(title, read_text(record, "text")),
            read_image(metadata, "image", self.root),
            parse_language(lang) if lang else None if query else self._lang,
            meta,
        )
