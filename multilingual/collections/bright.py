"""BRIGHT (Su et al., ICLR 2025): English questions whose documents take reasoning to find."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from ...errors import InputError
from ...items import Item
from .files import DatasetFiles, read_parquet
from .published import PublishedCollection
from .records import read_id, read_text

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

    def __init__(
        self, where: str, *, domain: Domain, long: bool = False, sample: bool = False, skip_bad: bool = False
    ) -> None:
        self._domain, self._long = domain, long
        files = DatasetFiles(where, ("xlangai/BRIGHT",), usage=self.usage)
        name = f"bright-{domain}" + ("-long" if long else "")
        super().__init__(name, files, frozenset(["eng"]), sample=sample, skip_bad=skip_bad)

    def _doc_rows(self) -> Iterator[tuple[str, dict[str, Any]]]:
        folder = "long_documents" if self._long else "documents"
        return read_parquet(self.files.all(f"{folder}/{self._domain}-*-of-*.parquet"))

    def _document(self, row: Any) -> Item | None:
        id, text = read_id(row, "id"), read_text(row, "content")
        return Item(id, text, None, "eng") if text and text.strip() else None

    def _query_rows(self) -> Iterator[tuple[str, dict[str, Any]]]:
        return read_parquet(self.files.all(f"examples/{self._domain}-*-of-*.parquet"))

    def _query(self, row: Any) -> Item:
        text = read_text(row, "query")
        if not text or not text.strip():
            raise InputError(f"question {row.get('id')!r} has no query")
        excluded = [id for id in _ids(row, "excluded_ids") if id != "N/A"]
        return Item(read_id(row, "id"), text, None, "eng", {"excluded_ids": excluded} if excluded else {})

    def _judged(self) -> dict[str, dict[str, int]]:
        key = "gold_ids_long" if self._long else "gold_ids"
        judged: dict[str, dict[str, int]] = {}
        for _, row in self._query_rows():
            if gold := _ids(row, key):
                judged[read_id(row, "id")] = dict.fromkeys(gold, 1)
        return judged


def _ids(row: dict[str, Any], key: str) -> list[str]:
    return [str(id) for id in row.get(key) or []]
