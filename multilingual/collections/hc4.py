"""HC4 (Lawrie et al., ECIR 2022): news in Chinese, Persian and Russian."""

from __future__ import annotations

from typing import Literal

from .published import Reading
from .track import Track, TrackChoice

NEWS = {"zho": 646_305, "fas": 486_486, "rus": 4_721_064}  # documents, the authors' own figures


class HC4(Track):
    """`hc4:DIR?lang=rus[&split=test]`: the authors' files; `lang=mlir` is all three languages."""

    usage = (
        "write hc4:DIR?lang=zho, where DIR holds zho/hc4_docs.jsonl, test.topics.v1-0.jsonl and zho/test.qrels.v1-0.txt"
    )
    all_langs = tuple(NEWS)
    doc_files = (
        "{lang}/hc4_docs.jsonl", "{lang}/hc4_docs.jsonl.gz", "{lang}-*-of-*.jsonl.gz", "{lang}/docs.jsonl", "{lang}/docs.jsonl.gz",
    )  # fmt: skip
    topic_files = ("{split}.topics.v1-*.jsonl",)
    qrels_files = ("{lang}/{split}.qrels.v1-*.txt",)

    def __init__(
        self, where: str, *, reading: Reading, choice: TrackChoice, split: Literal["train", "dev", "test"] = "test",
    ) -> None:  # fmt: skip
        super().__init__(where, reading, choice, split)
        self.name = f"hc4-{self.scope}-{split}"
        self.published = {each: NEWS[each] for each in self.order}
