"""BRIGHT (Su et al., ICLR 2025): English questions whose documents take reasoning to find."""

from __future__ import annotations

from typing import Literal

from ...items import Item
from .files import read_rows
from .published import PublishedCollection, Reading
from .records import FileRow, Rows

Domain = Literal[
    "aops", "biology", "earth_science", "economics", "leetcode", "pony", "psychology", "robotics",
    "stackoverflow", "sustainable_living", "theoremqa_questions", "theoremqa_theorems",
]  # fmt: skip


class Bright(PublishedCollection):
    """`bright[:DIR]?domain=biology[&long=true]`: the Parquet files of xlangai/BRIGHT.

    Documents `id, content` in documents/ (or long_documents/), questions `id, query, gold_ids, gold_ids_long,
    excluded_ids, ...` in examples/; what is gold has grade 1. The documents that a question excludes are in its
    `meta["excluded_ids"]`: the benchmark wants them taken out of its ranking.
    """

    usage = "write bright:DIR?domain=biology, where DIR holds documents and examples"
    repositories = ("xlangai/BRIGHT",)

    def __init__(self, where: str, *, reading: Reading, domain: Domain, long: bool = False) -> None:
        super().__init__(where, reading)
        self.name = f"bright-{domain}" + ("-long" if long else "")
        self.langs = frozenset(["eng"])
        self._gold = "gold_ids_long" if long else "gold_ids"
        self.doc_files = (f"{'long_' * long}documents/{domain}-*-of-*.parquet",)
        self.topic_files = (f"examples/{domain}-*-of-*.parquet",)

    def read_document(self, row: FileRow) -> Item | None:
        id, text = row.read_id(), row.join_texts("content")
        return Item(id, text, None, "eng") if text else None

    def query_rows(self) -> Rows:
        return read_rows(self.files.get_all(*self.topic_files))

    def read_query(self, row: FileRow) -> Item:
        id = row.read_id()
        excluded = [each for each in _read_ids(row, "excluded_ids") if each != "N/A"]
        meta = {"excluded_ids": excluded} if excluded else {}
        return Item(id, row.require_text("query", "question", id), None, "eng", meta)

    def published_qrels(self) -> dict[str, dict[str, int]]:
        judged = {row.read_id(): dict.fromkeys(_read_ids(row, self._gold), 1) for _, row in self.query_rows()}
        return {id: grades for id, grades in judged.items() if grades}


def _read_ids(row: FileRow, key: str) -> list[str]:
    return [str(id) for id in row.get(key) or []]
