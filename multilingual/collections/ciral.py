"""CIRAL (Adeyemi et al., SIGIR 2024): English questions, news passages in four African languages."""

from __future__ import annotations

from typing import Literal

from ...errors import InputError, unknown_name
from ...items import Item
from ...runs import read_qrels
from ..languages import parse_language
from .files import read_table
from .published import PublishedCollection
from .records import Record, Rows, read_json_lines

NAMES = {"hau": ("hausa", "ha"), "som": ("somali", "so"), "swa": ("swahili", "sw"), "yor": ("yoruba", "yo")}
# Passages as the project's README has them.
PASSAGES = {"hau": 715_355, "som": 827_552, "swa": 949_013, "yor": 82_095}


class Ciral(PublishedCollection):
    """`ciral[:DIR]?lang=hausa[&split=test-a]`: the files of CIRAL/ciral and CIRAL/ciral-corpus, side by side.

    Documents `{"docid", "title", "text", "url"}` in passages-v1.0/LANG_passages.jsonl, with `translated` their
    English machine translations; topics `qid TAB query` and TREC qrels in ciral-LANG. `pools` takes test set A's
    pooled judgements instead of the shallow ones.
    """

    usage = "write ciral:DIR?lang=hausa, where DIR holds ciral-hausa and passages-v1.0"
    repositories = ("CIRAL/ciral", "CIRAL/ciral-corpus")

    def __init__(
        self, where: str, *, lang: str, split: Literal["dev", "test-a", "test-b"] = "test-a",
        pools: bool = False, translated: bool = False, sample: bool = False, skip_bad: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(where, sample=sample, skip_bad=skip_bad)
        if (code := parse_language(lang)) not in NAMES:
            raise unknown_name(lang, tuple(language for language, _ in NAMES.values()), "language of CIRAL")
        if pools and split != "test-a":
            raise InputError(f"CIRAL has pooled judgements for split=test-a only, not {split}")
        self._language, self._short = NAMES[code]
        self._split, self._pools, self._translated = split, pools, translated
        self._code = "eng" if translated else code
        self.name = f"ciral-{self._short}-{split}" + ("-translated" if translated else "")
        self.langs = frozenset([self._code])
        self.published = {self._code: PASSAGES[code]}

    def document_rows(self) -> Rows:
        folder = "translated-passages-v1.0" if self._translated else "passages-v1.0"
        return read_json_lines(*self.files.get_all(f"{folder}/{self._language}_passages.jsonl"))

    def read_document(self, record: Record) -> Item:
        text, meta = record.join_texts("title", "text"), record.read_texts("title", "url")
        return Item(record.read_id("docid"), text, None, self._code, meta)

    def query_rows(self) -> Rows:
        name = f"topics.ciral-v1.0-{self._short}-{self._split}.tsv"
        path = self.files.get_one(f"ciral-{self._language}/topics/{name}", name)
        return read_table(path, ("id", "text"))

    def read_query(self, row: Record) -> Item:
        return Item(row.read_id(), row["text"], None, "eng")

    def published_qrels(self) -> dict[str, dict[str, int]]:
        pools = "-pools" if self._pools else ""
        name = f"qrels.ciral-v1.0-{self._short}-{self._split}{pools}.tsv"
        return read_qrels(self.files.get_one(f"ciral-{self._language}/qrels/{name}", name))[0]
