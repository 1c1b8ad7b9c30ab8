"""MIRACL (Zhang et al., TACL 2023): Wikipedia passages in 18 languages, queries in the same language."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from ...errors import unknown_name
from ...items import Item
from ..languages import parse_language
from .base import MissingPart
from .files import DatasetFiles, parse_row, read_all_lines, read_tsv
from .published import PublishedCollection
from .records import join_title, read_id, read_text

# Passages as the project's README has them; it has none for German and Yoruba, which came later.
PASSAGES = dict(
    ar=2_061_414, bn=297_265, de=None, en=32_893_221, es=10_373_953, fa=2_207_172, fi=1_883_509, fr=14_636_953,
    hi=506_264, id=1_446_315, ja=6_953_614, ko=1_486_752, ru=9_543_918, sw=131_924, te=518_079, th=542_166,
    yo=None, zh=4_934_368,
)  # fmt: skip
Split = Literal["train", "dev", "test-a", "test-b"]


class Miracl(PublishedCollection):
    """`miracl[:DIR]?lang=zh[&split=dev]`: the files of miracl/miracl and miracl/miracl-corpus, side by side.

    Documents `{"docid", "title", "text"}` in miracl-corpus-v1.0-LANG/docs-N.jsonl.gz; topics `qid TAB query` and
    TREC qrels in miracl-v1.0-LANG. The test splits have no judgements.
    """

    usage = "write miracl:DIR?lang=zh, where DIR holds miracl-v1.0-zh and miracl-corpus-v1.0-zh"

    def __init__(
        self, where: str, *, lang: str, split: Split = "dev", sample: bool = False, skip_bad: bool = False
    ) -> None:
        codes = {parse_language(each): each for each in PASSAGES}
        if (code := parse_language(lang)) not in codes:
            raise unknown_name(lang, tuple(PASSAGES), "language of MIRACL")
        files = DatasetFiles(where, ("miracl/miracl", "miracl/miracl-corpus"), usage=self.usage)
        super().__init__(
            f"miracl-{codes[code]}-{split}", files, frozenset([code]), sample=sample, skip_bad=skip_bad
        )
        self._code, self._lang, self._split = code, codes[code], split
        if passages := PASSAGES[self._lang]:
            self.published = {code: passages}

    def _doc_rows(self) -> Iterator[tuple[str, bytes]]:
        folder = f"miracl-corpus-v1.0-{self._lang}"
        return read_all_lines(self.files.all(f"{folder}/docs-*.jsonl.gz", f"{folder}/docs-*.jsonl"))

    def _document(self, row: Any) -> Item:
        record = parse_row(row)
        title = read_text(record, "title")
        meta = {"title": title} if title else {}
        return Item(
            read_id(record, "docid"), join_title(title, read_text(record, "text")), None, self._code, meta
        )

    def _query_rows(self) -> Iterator[tuple[str, dict[str, Any]]]:
        name = f"miracl-v1.0-{self._lang}/topics/topics.miracl-v1.0-{self._lang}-{self._split}.tsv"
        return read_tsv(self.files.one(name, Path(name).name), ("id", "text"))

    def _query(self, row: Any) -> Item:
        return Item(read_id(row, "id"), row["text"], None, self._code)

    def _qrels_file(self) -> Path:
        if self._split.startswith("test"):
            raise MissingPart(f"the judgements of {self.name} were never published")
        name = f"miracl-v1.0-{self._lang}/qrels/qrels.miracl-v1.0-{self._lang}-{self._split}.tsv"
        return self.files.one(name, Path(name).name)
