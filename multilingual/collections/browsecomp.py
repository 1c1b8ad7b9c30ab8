"""BrowseComp-Plus (Chen et al., 2025): 830 hard questions over about 100,000 fixed web pages."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from ...items import Item
from .files import DatasetFiles, read_parquet, read_tsv
from .published import PublishedCollection
from .records import read_id, read_text


class BrowseCompPlus(PublishedCollection):
    """`browsecomp-plus:DIR[?judged=gold]`: pages with the evidence (default), or with the answer itself, are relevant.

    DIR holds the Parquet files of Tevatron/browsecomp-plus-corpus (`docid, text, url`) and the repository's
    topics-qrels: qrel_evidence.txt, qrel_golds.txt, and queries.tsv (`id TAB query`), which its decrypt_dataset.py
    writes, as the questions are published obfuscated.
    """

    usage = "write browsecomp-plus:DIR, where DIR holds the corpus' Parquet files and topics-qrels"

    def __init__(
        self, where: str, *, judged: Literal["evidence", "gold"] = "evidence", sample: bool = False,
        skip_bad: bool = False,
    ) -> None:  # fmt: skip
        self._qrels = {"evidence": "qrel_evidence.txt", "gold": "qrel_golds.txt"}[judged]
        files = DatasetFiles(where, usage=self.usage)
        super().__init__(f"browsecomp-plus-{judged}", files, frozenset(), sample=sample, skip_bad=skip_bad)

    def _doc_rows(self) -> Iterator[tuple[str, dict[str, Any]]]:
        return read_parquet(self.files.all("train-*.parquet"))

    def _document(self, row: Any) -> Item | None:
        # The pages are in whatever language the web has them; none is said.
        text, url = read_text(row, "text"), read_text(row, "url")
        meta = {"url": url} if url else {}
        return Item(read_id(row, "docid"), text, None, None, meta) if text and text.strip() else None

    def _query_rows(self) -> Iterator[tuple[str, dict[str, Any]]]:
        return read_tsv(self.files.one("topics-qrels/queries.tsv"), ("id", "text"))

    def _query(self, row: Any) -> Item:
        return Item(read_id(row, "id"), row["text"], None, "eng")

    def _qrels_file(self) -> Path:
        return self.files.one(f"topics-qrels/{self._qrels}")
