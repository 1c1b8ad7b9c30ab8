"""ViDoRe (Faysse et al., ICLR 2025; versions 2 and 3): pages of documents as pictures, searched with questions."""

from __future__ import annotations

from ...errors import InputError
from ...items import Item
from ..languages import parse_language
from .files import read_judgements, read_parquet
from .published import PublishedCollection, Reading
from .records import FileRow, Rows


class ViDoRe(PublishedCollection):
    """`vidore:vidore/esg_reports_v2` or `vidore:DIR[?text=true]`: one data set, in its BEIR-like Parquet form.

    Folders corpus (`corpus-id, image, doc-id`), queries (`query-id, query, language`) and qrels (`query-id,
    corpus-id, score`), each with SPLIT-*.parquet; version 3 writes the keys with `_` and has each page's `markdown`
    too, which `text` adds to the picture. Pictures are bytes inside the files and decoded only when encoded. The
    question-answering form of version 1 (one table, no folders) is not read: take the data sets named `..._beir`.
    """

    usage = "write vidore:OWNER/NAME or vidore:DIR, where DIR holds corpus, queries and qrels"

    def __init__(self, where: str, *, reading: Reading, split: str = "test", text: bool = False) -> None:
        super().__init__(where, reading)
        self.name = self.files.root.name if self.files.root else where.rpartition("/")[2]
        self.langs = frozenset()
        self._split, self._text = split, text

    def document_rows(self) -> Rows:
        return self._read("corpus")

    def read_document(self, row: FileRow) -> Item:
        image = row.get("image")
        picture = image.get("bytes") if isinstance(image, dict) else None
        if not isinstance(picture, bytes):
            raise InputError(f"page {row.get('corpus_id')!r} has no picture")
        text = row.read_text("markdown") if self._text else None
        meta = {key: row[key] for key in ("doc_id", "page_number_in_doc") if row.get(key) is not None}
        return Item(row.read_id("corpus_id"), text or None, picture, None, meta)

    def query_rows(self) -> Rows:
        return self._read("queries")

    def read_query(self, row: FileRow) -> Item:
        id, lang = row.read_id("query_id"), row.read_text("language")
        text = row.require_text("query", "query", id, "text")
        return Item(id, text, None, parse_language(lang) if lang else None)

    def published_qrels(self) -> dict[str, dict[str, int]]:
        return read_judgements(self._read("qrels"), "query_id", "corpus_id", "score")

    def _read(self, folder: str) -> Rows:
        for place, row in read_parquet(self.files.get_all(f"{folder}/{self._split}-*.parquet"), batch=16):
            yield place, FileRow({key.replace("-", "_"): value for key, value in row.items()})
