"""CIRAL (Adeyemi et al., SIGIR 2024): English questions, news passages in four African languages."""

from __future__ import annotations

from typing import Literal

from ...errors import InputError, unknown_name
from ..languages import parse_language
from .published import PublishedCollection, Reading

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
        self, where: str, *, reading: Reading, lang: str, split: Literal["dev", "test-a", "test-b"] = "test-a",
        pools: bool = False, translated: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(where, reading)
        if (code := parse_language(lang)) not in NAMES:
            raise unknown_name(lang, tuple(language for language, _ in NAMES.values()), "language of CIRAL")
        if pools and split != "test-a":
            raise InputError(f"CIRAL has pooled judgements for split=test-a only, not {split}")
        self.langs = frozenset(["eng" if translated else code])
        self.published = dict.fromkeys(self.langs, PASSAGES[code])
        language, short = NAMES[code]
        self.name = f"ciral-{short}-{split}" + ("-translated" if translated else "")
        folder = "translated-passages-v1.0" if translated else "passages-v1.0"
        topics = f"topics.ciral-v1.0-{short}-{split}.tsv"
        qrels = f"qrels.ciral-v1.0-{short}-{split}{'-pools' * pools}.tsv"
        self.doc_files = (f"{folder}/{language}_passages.jsonl",)
        self.topic_files = (f"ciral-{language}/topics/{topics}", topics)
        self.qrels_files = (f"ciral-{language}/qrels/{qrels}", qrels)
