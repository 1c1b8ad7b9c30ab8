"""NeuCLIR 2022 to 2024 (TREC): news in Chinese, Persian and Russian, and Chinese technical abstracts."""

from __future__ import annotations

from typing import Literal

from ...errors import InputError
from .published import Reading
from .track import Track, TrackChoice

NEWS = {"zho": 3_179_209, "fas": 2_232_016, "rus": 4_627_543}  # documents, the track's own figures


class NeuCLIR(Track):
    """`neuclir:DIR?year=2023&lang=zho`: the TREC track's collection of a year; `lang=zho,fas,rus` or `mlir` is MLIR.

    `task=technical` are the Chinese abstracts (CSL). Topics and judgements are found by the names that NIST gives
    them (of 2024 by the year in the name); `docs`, `topics` and `qrels` name others. Of judgements the files of one
    language go before a combined one, which does not give the documents' languages in 2023.
    """

    usage = "write neuclir:DIR?year=2023&lang=zho, where DIR holds zho/docs.jsonl, the topics and the qrels"
    all_langs = tuple(NEWS)
    doc_files: tuple[str, ...] = (
        "{lang}/docs.jsonl", "{lang}/docs.jsonl.gz", "{lang}-*-of-*.jsonl.gz", "docs.{lang}.jsonl", "docs.{lang}.jsonl.gz",
    )  # fmt: skip
    topic_files: tuple[str, ...] = ("*{split}-topics*.jsonl", "{split}/topics*.jsonl")
    qrels_files: tuple[str, ...] = (
        "{split}/qrels.final.gains.{lang}", "*{split}*qrels*.{lang}", "*{split}*qrels.{lang}*", "qrels.final.gains.{lang}",
    )  # fmt: skip
    combined_files: tuple[str, ...] = (
        "{split}/qrels.final.gains", "*{split}*qrels*.all", "*{split}*qrels*gains", "qrels.final.gains",
    )  # fmt: skip

    def __init__(
        self, where: str, *, reading: Reading, choice: TrackChoice, year: Literal["2022", "2023", "2024"],
        task: Literal["news", "technical"] = "news",
    ) -> None:  # fmt: skip
        technical = task == "technical"
        if technical and year == "2022":
            raise InputError("NeuCLIR 2022 had no technical documents: year=2023 or 2024")
        super().__init__(where, reading, choice, year, ("zho",) if technical else ())
        self.name = f"neuclir-{year}-{'technical' if technical else self.scope}"
        if technical:
            self.doc_files = (
                "csl_data.release.jsonl", "csl_data.release.jsonl.gz", "csl/docs.jsonl", "csl/docs.jsonl.gz",
            )  # fmt: skip
            self.topic_files = ("*{split}*tech*topics*.jsonl",)
            self.qrels_files = (
                "*{split}*tech*qrels*.txt", "tech_final_qrels.txt", "{split}/tech_final_qrels.txt",
            )  # fmt: skip
            self.combined_files = ()
            return
        self.published = {each: NEWS[each] for each in self.order}
        if year == "2022":
            self.topic_files = ("topics.0720.utf8.jsonl",)
            self.qrels_files = ("2022-qrels.{lang}",)
            self.combined_files = ("2022-qrels.all",)
