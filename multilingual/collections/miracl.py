"""MIRACL (Zhang et al., TACL 2023): Wikipedia passages in 18 languages, queries in the same language."""

from __future__ import annotations

from typing import Literal

from ...errors import check_known
from ...items import Item
from ...runs import read_qrels
from ..languages import parse_language
from .base import MissingPart
from .files import read_table
from .published import PublishedCollection
from .records import Record, Rows, read_json_lines

# Passages as the project's README has them; it has none for German and Yoruba, which came later.
PASSAGES = dict(
    ar=2_061_414, bn=297_265, de=None, en=32_893_221, es=10_373_953, fa=2_207_172, fi=1_883_509, fr=14_636_953,
    hi=506_264, id=1_446_315, ja=6_953_614, ko=1_486_752, ru=9_543_918, sw=131_924, te=518_079, th=542_166,
    yo=None, zh=4_934_368,
)  # fmt: skip


class Miracl(PublishedCollection):
    """`miracl[:DIR]?lang=zh[&split=dev]`: the files of miracl/miracl and miracl/miracl-corpus, side by side.

    Documents `{"docid", "title", "text"}` in miracl-corpus-v1.0-LANG/docs-N.jsonl.gz; topics `qid TAB query` and
    TREC qrels in miracl-v1.0-LANG. The test splits have no judgements.
    """

    usage = "write miracl:DIR?lang=zh, where DIR holds miracl-v1.0-zh and miracl-corpus-v1.0-zh"
    repositories = ("miracl/miracl", "miracl/miracl-corpus")

    def __init__(
        self, where: str, *, lang: str, split: Literal["train", "dev", "test-a", "test-b"] = "dev",
        sample: bool = False, skip_bad: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(where, sample=sample, skip_bad=skip_bad)
        self._code = parse_language(lang)
        self._lang = next((each for each in PASSAGES if parse_language(each) == self._code), lang)
        check_known(self._lang, PASSAGES, "language of MIRACL")
        self._split = split
        self.name = f"miracl-{self._lang}-{split}"
        self.langs = frozenset([self._code])
        if passages := PASSAGES[self._lang]:
            self.published = {self._code: passages}

    def document_rows(self) -> Rows:
        folder = f"miracl-corpus-v1.0-{self._lang}"
        return read_json_lines(*self.files.get_all(f"{folder}/docs-*.jsonl.gz", f"{folder}/docs-*.jsonl"))

    def read_document(self, record: Record) -> Item:
        text, meta = record.join_texts("title", "text"), record.read_texts("title")
        return Item(record.read_id("docid"), text, None, self._code, meta)

    def query_rows(self) -> Rows:
        name = f"topics.miracl-v1.0-{self._lang}-{self._split}.tsv"
        path = self.files.get_one(f"miracl-v1.0-{self._lang}/topics/{name}", name)
        return read_table(path, ("id", "text"))

    def read_query(self, row: Record) -> Item:
        return Item(row.read_id(), row["text"], None, self._code)

    def published_qrels(self) -> dict[str, dict[str, int]]:
        if self._split.startswith("test"):
            raise MissingPart(f"the judgements of {self.name} were never published")
        name = f"qrels.miracl-v1.0-{self._lang}-{self._split}.tsv"
        return read_qrels(self.files.get_one(f"miracl-v1.0-{self._lang}/qrels/{name}", name))[0]
