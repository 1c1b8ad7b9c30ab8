"""MIRACL (Zhang et al., TACL 2023): Wikipedia passages in 18 languages, queries in the same language."""

from __future__ import annotations

from typing import Literal

from ..languages import match_language, parse_language
from .base import MissingPart
from .published import PublishedCollection, Reading

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
        self, where: str, *, reading: Reading, lang: str, split: Literal["train", "dev", "test-a", "test-b"] = "dev",
    ) -> None:  # fmt: skip
        super().__init__(where, reading)
        lang = match_language(lang, PASSAGES, "language of MIRACL")
        code = parse_language(lang)
        self.name = f"miracl-{lang}-{split}"
        self.langs = frozenset([code])
        self.query_lang = code
        if passages := PASSAGES[lang]:
            self.published = {code: passages}
        self._judged = not split.startswith("test")
        corpus, topics, qrels = (
            f"miracl-corpus-v1.0-{lang}/docs-*.jsonl",
            f"topics.miracl-v1.0-{lang}-{split}.tsv",
            f"qrels.miracl-v1.0-{lang}-{split}.tsv",
        )
        self.doc_files = (f"{corpus}.gz", corpus)
        self.topic_files = (f"miracl-v1.0-{lang}/topics/{topics}", topics)
        self.qrels_files = (f"miracl-v1.0-{lang}/qrels/{qrels}", qrels)

    def published_qrels(self) -> dict[str, dict[str, int]]:
        if not self._judged:
            raise MissingPart(f"the judgements of {self.name} were never published")
        return super().published_qrels()
