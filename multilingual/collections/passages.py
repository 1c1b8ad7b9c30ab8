"""MIRACL and CIRAL: passages in one language as JSON lines, topics `qid TAB query` and TREC qrels beside them."""

from __future__ import annotations

from typing import Literal

from ...errors import InputError, unknown_name
from ..languages import match_language, parse_language
from .base import MissingPart
from .published import PublishedCollection, Reading

# Passages as the projects' READMEs have them; MIRACL's has none for German and Yoruba, which came later.
MIRACL_PASSAGES = dict(
    ar=2_061_414, bn=297_265, de=None, en=32_893_221, es=10_373_953, fa=2_207_172, fi=1_883_509, fr=14_636_953,
    hi=506_264, id=1_446_315, ja=6_953_614, ko=1_486_752, ru=9_543_918, sw=131_924, te=518_079, th=542_166,
    yo=None, zh=4_934_368,
)  # fmt: skip
CIRAL_PASSAGES = {"hau": 715_355, "som": 827_552, "swa": 949_013, "yor": 82_095}
CIRAL_NAMES = {"hau": ("hausa", "ha"), "som": ("somali", "so"), "swa": ("swahili", "sw"), "yor": ("yoruba", "yo")}


class Miracl(PublishedCollection):
    """`miracl[:DIR]?lang=zh[&split=dev]`: Wikipedia in 18 languages, queries in the same (Zhang et al., TACL 2023).

    The files of miracl/miracl and miracl/miracl-corpus, side by side: documents `{"docid", "title", "text"}` in
    miracl-corpus-v1.0-LANG/docs-N.jsonl.gz, topics and qrels in miracl-v1.0-LANG. The test splits have no judgements.
    """

    usage = "write miracl:DIR?lang=zh, where DIR holds miracl-v1.0-zh and miracl-corpus-v1.0-zh"
    repositories = ("miracl/miracl", "miracl/miracl-corpus")

    def __init__(
        self, where: str, *, reading: Reading, lang: str, split: Literal["train", "dev", "test-a", "test-b"] = "dev",
    ) -> None:  # fmt: skip
        super().__init__(where, reading)
        lang = match_language(lang, MIRACL_PASSAGES, "language of MIRACL")
        self.name = f"miracl-{lang}-{split}"
        self.query_lang = code = parse_language(lang)
        self.langs = frozenset([code])
        if passages := MIRACL_PASSAGES[lang]:
            self.published = {code: passages}
        self._judged = not split.startswith("test")
        folder, corpus = f"miracl-v1.0-{lang}", f"miracl-corpus-v1.0-{lang}/docs-*.jsonl"
        topics, qrels = f"topics.{folder}-{split}.tsv", f"qrels.{folder}-{split}.tsv"
        self.doc_files = (f"{corpus}.gz", corpus)
        self.topic_files = (f"{folder}/topics/{topics}", topics)
        self.qrels_files = (f"{folder}/qrels/{qrels}", qrels)

    def published_qrels(self) -> dict[str, dict[str, int]]:
        if not self._judged:
            raise MissingPart(f"the judgements of {self.name} were never published")
        return super().published_qrels()


class Ciral(PublishedCollection):
    """`ciral[:DIR]?lang=hausa[&split=test-a]`: African news, queries in English (Adeyemi et al., SIGIR 2024).

    The files of CIRAL/ciral and CIRAL/ciral-corpus, side by side: documents `{"docid", "title", "text", "url"}` in
    passages-v1.0/LANG_passages.jsonl, with `translated` their English machine translations; topics and qrels in
    ciral-LANG. `pools` takes test set A's pooled judgements instead of the shallow ones.
    """

    usage = "write ciral:DIR?lang=hausa, where DIR holds ciral-hausa and passages-v1.0"
    repositories = ("CIRAL/ciral", "CIRAL/ciral-corpus")

    def __init__(
        self, where: str, *, reading: Reading, lang: str, split: Literal["dev", "test-a", "test-b"] = "test-a",
        pools: bool = False, translated: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(where, reading)
        if (code := parse_language(lang)) not in CIRAL_NAMES:
            raise unknown_name(lang, tuple(language for language, _ in CIRAL_NAMES.values()), "language of CIRAL")
        if pools and split != "test-a":
            raise InputError(f"CIRAL has pooled judgements for split=test-a only, not {split}")
        self.langs = frozenset(["eng" if translated else code])
        self.published = dict.fromkeys(self.langs, CIRAL_PASSAGES[code])
        language, short = CIRAL_NAMES[code]
        self.name = f"ciral-{short}-{split}" + ("-translated" if translated else "")
        topics = f"topics.ciral-v1.0-{short}-{split}.tsv"
        qrels = f"qrels.ciral-v1.0-{short}-{split}{'-pools' * pools}.tsv"
        self.doc_files = (f"{'translated-' * translated}passages-v1.0/{language}_passages.jsonl",)
        self.topic_files = (f"ciral-{language}/topics/{topics}", topics)
        self.qrels_files = (f"ciral-{language}/qrels/{qrels}", qrels)
