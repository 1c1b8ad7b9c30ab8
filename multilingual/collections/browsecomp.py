"""BrowseComp-Plus (Chen et al., 2025): 830 hard questions over about 100,000 fixed web pages."""

from __future__ import annotations

from typing import Literal

from ...items import Item
from .published import PublishedCollection, Reading
from .records import FileRow


class BrowseCompPlus(PublishedCollection):
    """`browsecomp-plus:DIR[?judged=gold]`: pages with the evidence (default), or with the answer itself, are relevant.

    DIR holds the Parquet files of Tevatron/browsecomp-plus-corpus (`docid, text, url`) and the repository's
    topics-qrels: qrel_evidence.txt, qrel_golds.txt, and queries.tsv (`id TAB query`), which its decrypt_dataset.py
    writes, as the questions are published obfuscated.
    """

    doc_files = ("train-*.parquet",)
    topic_files = ("topics-qrels/queries.tsv",)
    usage = "write browsecomp-plus:DIR, where DIR holds the corpus' Parquet files and topics-qrels"

    def __init__(self, where: str, *, reading: Reading, judged: Literal["evidence", "gold"] = "evidence") -> None:
        super().__init__(where, reading)
        self.name = f"browsecomp-plus-{judged}"
        self.langs = frozenset()  # the pages are in whatever language the web has them; none is given
        self.qrels_files = (f"topics-qrels/qrel_{'golds' if judged == 'gold' else judged}.txt",)

    def read_document(self, row: FileRow) -> Item | None:
        text = row.join_texts("text")
        return Item(row.read_id("docid"), text, None, None, row.read_texts("url")) if text else None
