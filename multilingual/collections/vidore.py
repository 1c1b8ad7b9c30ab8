"""ViDoRe (Faysse et al., ICLR 2025; versions 2 and 3): pages of documents as pictures, searched with questions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ...errors import InputError
from ...items import Item
from ..languages import parse_language
from .files import DatasetFiles, read_parquet
from .published import PublishedCollection
from .records import read_id, read_text


class ViDoRe(PublishedCollection):
    """`vidore:vidore/esg_reports_v2` or `vidore:DIR[?text=true]`: one data set, in its BEIR-like Parquet form.

    Folders corpus (`corpus-id, image, doc-id`), queries (`query-id, query, language`) and qrels (`query-id,
    corpus-id, score`), each with SPLIT-*.parquet; version 3 writes the keys with `_` and has each page's `markdown`
    too, which `text` adds to the picture. Pictures are bytes inside the files and decoded only when encoded. The
    question-answering form of version 1 (one table, no folders) is not read: take the data sets named `..._beir`.
    """

    usage = "write vidore:OWNER/NAME or vidore:DIR, where DIR holds corpus, queries and qrels"

    def __init__(
        self,
        where: str,
        *,
        split: str = "test",
        text: bool = False,
        sample: bool = False,
        skip_bad: bool = False,
    ) -> None:
        files = DatasetFiles(where, usage=self.usage)
        self._split, self._text = split, text
        name = files.root.name if files.root else where.rpartition("/")[2]
        super().__init__(name, files, frozenset(), sample=sample, skip_bad=skip_bad)

    def _rows(self, folder: str) -> Iterator[tuple[str, dict[str, Any]]]:
        for place, row in read_parquet(self.files.all(f"{folder}/{self._split}-*.parquet"), batch=16):
            yield place, {key.replace("-", "_"): value for key, value in row.items()}

    def _doc_rows(self) -> Iterator[tuple[str, dict[str, Any]]]:
        return self._rows("corpus")

    def _document(self, row: Any) -> Item:
        image = row.get("image")
        picture = image.get("bytes") if isinstance(image, dict) else None
        if not isinstance(picture, bytes):
            raise InputError(f"page {row.get('corpus_id')!r} has no picture")
        text = read_text(row, "markdown") if self._text else None
        meta = {key: row[key] for key in ("doc_id", "page_number_in_doc") if row.get(key) is not None}
        return Item(read_id(row, "corpus_id"), text or None, picture, None, meta)

    def _query_rows(self) -> Iterator[tuple[str, dict[str, Any]]]:
        return self._rows("queries")

    def _query(self, row: Any) -> Item:
        text, lang = read_text(row, "query"), read_text(row, "language")
        if not text or not text.strip():
            raise InputError(f"query {row.get('query_id')!r} is empty")
        return Item(read_id(row, "query_id"), text, None, parse_language(lang) if lang else None)

    def _judged(self) -> dict[str, dict[str, int]]:
        judged: dict[str, dict[str, int]] = {}
        for place, row in self._rows("qrels"):
            try:
                grade = float(row["score"])
                if not grade.is_integer():
                    raise ValueError
                judged.setdefault(read_id(row, "query_id"), {})[read_id(row, "corpus_id")] = int(grade)
            except (KeyError, TypeError, ValueError) as error:
                reason = str(error) if isinstance(error, InputError) else "the score is not a whole number"
                raise InputError(f"{place}: {reason}") from None
        return judged
