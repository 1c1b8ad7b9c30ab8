"""BRIGHT (Su et al., ICLR 2025): English questions whose documents take reasoning to find."""

from __future__ import annotations

from typing import Literal

from ...items import Item
from .files import read_parquet
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
        self._domain, self._long = domain, long

    def document_rows(self) -> Rows:
        return self._read("long_documents" if self._long else "documents")

    def read_document(self, row: FileRow) -> Item | None:
        id, text = row.read_id(), row.join_texts("content")
        return Item(id, text, None, "eng") if text else None

    def query_rows(self) -> Rows:
        return self._read("examples")

    def read_query(self, row: FileRow) -> Item:
        id = row.read_id()
        excluded = [each for each in _read_ids(row, "excluded_ids") if each != "N/A"]
        meta = {"excluded_ids": excluded} if excluded else {}
        return Item(id, row.require_text("query", "question", id), None, "eng", meta)

    def published_qrels(self) -> dict[str, dict[str, int]]:
        key = "gold_ids_long" if self._long else "gold_ids"
        judged = {row.read_id(): dict.fromkeys(_read_ids(row, key), 1) for _, row in self.query_rows()}
        return {id: grades for id, grades in judged.items() if grades}

    def _read(self, folder: str) -> Rows:
        return read_parquet(self.files.get_all(f"{folder}/{self._domain}-*-of-*.parquet"))


def _read_ids(row: FileRow, key: str) -> list[str]:
    return [str(id) for id in row.get(key) or []]
