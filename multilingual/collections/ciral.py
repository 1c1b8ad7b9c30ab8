"""CIRAL (Adeyemi et al., SIGIR 2024): English questions, news passages in four African languages."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from ...errors import InputError, unknown_name
from ...items import Item
from ..languages import parse_language
from .files import DatasetFiles, parse_row, read_all_lines, read_tsv
from .published import PublishedCollection
from .records import join_title, read_id, read_text

NAMES = {"hau": ("hausa", "ha"), "som": ("somali", "so"), "swa": ("swahili", "sw"), "yor": ("yoruba", "yo")}
# Passages as the project's README has them.
PASSAGES = {"hau": 715_355, "som": 827_552, "swa": 949_013, "yor": 82_095}
Split = Literal["dev", "test-a", "test-b"]


class Ciral(PublishedCollection):
    """`ciral[:DIR]?lang=hausa[&split=test-a]`: the files of CIRAL/ciral and CIRAL/ciral-corpus, side by side.

    Documents `{"docid", "title", "text", "url"}` in passages-v1.0/LANG_passages.jsonl, with `translated` their
    English machine translations; topics `qid TAB query` and TREC qrels in ciral-LANG. `pools` takes test set A's
    pooled judgements instead of the shallow ones.
    """

    usage = "write ciral:DIR?lang=hausa, where DIR holds ciral-hausa and passages-v1.0"

    def __init__(
        self, where: str, *, lang: str, split: Split = "test-a", pools: bool = False, translated: bool = False,
        sample: bool = False, skip_bad: bool = False,
    ) -> None:  # fmt: skip
        if (code := parse_language(lang)) not in NAMES:
            raise unknown_name(lang, tuple(language for language, _ in NAMES.values()), "language of CIRAL")
        if pools and split != "test-a":
            raise InputError(f"CIRAL has pooled judgements for split=test-a only, not {split}")
        self._language, self._short = NAMES[code]
        self._split, self._pools, self._translated = split, pools, translated
        self._code = "eng" if translated else code
        files = DatasetFiles(where, ("CIRAL/ciral", "CIRAL/ciral-corpus"), usage=self.usage)
        name = f"ciral-{self._short}-{split}" + ("-translated" if translated else "")
        super().__init__(name, files, frozenset([self._code]), sample=sample, skip_bad=skip_bad)
        self.published = {self._code: PASSAGES[code]}

    def _doc_rows(self) -> Iterator[tuple[str, bytes]]:
        folder = "translated-passages-v1.0" if self._translated else "passages-v1.0"
        return read_all_lines(self.files.all(f"{folder}/{self._language}_passages.jsonl"))

    def _document(self, row: Any) -> Item:
        record = parse_row(row)
        meta = {key: value for key in ("title", "url") if (value := read_text(record, key))}
        text = join_title(meta.get("title"), read_text(record, "text"))
        return Item(read_id(record, "docid"), text, None, self._code, meta)

    def _query_rows(self) -> Iterator[tuple[str, dict[str, Any]]]:
        name = f"ciral-{self._language}/topics/topics.ciral-v1.0-{self._short}-{self._split}.tsv"
        return read_tsv(self.files.one(name, Path(name).name), ("id", "text"))

    def _query(self, row: Any) -> Item:
        return Item(read_id(row, "id"), row["text"], None, "eng")

    def _qrels_file(self) -> Path:
        pools = "-pools" if self._pools else ""
        name = f"ciral-{self._language}/qrels/qrels.ciral-v1.0-{self._short}-{self._split}{pools}.tsv"
        return self.files.one(name, Path(name).name)
