"""Passages and pages of text: MIRACL and CIRAL in many languages, BRIGHT and BrowseComp-Plus for hard questions."""

from __future__ import annotations

from typing import Literal

from ...errors import InputError, unknown_name
from ...items import Item
from ...rows.fields import FileRow
from ..languages import match_language, parse_language
from .base import MissingPart
from .published import PublishedCollection, Reading, read_rows
from .records import Rows

# Passages as the projects' READMEs have them; MIRACL's has none for German and Yoruba, which came later.
MIRACL_PASSAGES = dict(
    ar=2_061_414, bn=297_265, de=None, en=32_893_221, es=10_373_953, fa=2_207_172, fi=1_883_509, fr=14_636_953,
    hi=506_264, id=1_446_315, ja=6_953_614, ko=1_486_752, ru=9_543_918, sw=131_924, te=518_079, th=542_166,
    yo=None, zh=4_934_368,
)  # fmt: skip
CIRAL_PASSAGES = {"hau": 715_355, "som": 827_552, "swa": 949_013, "yor": 82_095}
CIRAL_NAMES = {"hau": ("hausa", "ha"), "som": ("somali", "so"), "swa": ("swahili", "sw"), "yor": ("yoruba", "yo")}
Domain = Literal[
    "aops", "biology", "earth_science", "economics", "leetcode", "pony", "psychology", "robotics",
    "stackoverflow", "sustainable_living", "theoremqa_questions", "theoremqa_theorems",
]  # fmt: skip


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


class Bright(PublishedCollection):
    """`bright[:DIR]?domain=biology[&long=true]`: questions whose documents take reasoning (Su et al., ICLR 2025).

    The Parquet files of xlangai/BRIGHT: documents `id, content` in documents/ (or long_documents/), questions `id,
    query, gold_ids, gold_ids_long, excluded_ids, ...` in examples/; what is gold has grade 1. The documents that a
    question excludes are in its `meta["excluded_ids"]`: searches leave them out (`runs.list_excluded`).
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


class BrowseCompPlus(PublishedCollection):
    """`browsecomp-plus:DIR[?judged=gold]`: hard questions over about 100,000 web pages (Chen et al., 2025).

    Pages with the evidence (default), or with the answer itself, are relevant. DIR holds the Parquet files of
    Tevatron/browsecomp-plus-corpus (`docid, text, url`) and the repository's topics-qrels: qrel_evidence.txt,
    qrel_golds.txt, and queries.tsv (`id TAB query`), which its decrypt_dataset.py writes, as the questions are
    published obfuscated.
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


def _read_ids(row: FileRow, key: str) -> list[str]:
    return [str(id) for id in row.get(key) or []]
