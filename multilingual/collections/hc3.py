"""HC3 (Lawrie et al., SIGIR 2023): conversations of tweets in Chinese and Persian."""

from __future__ import annotations

from typing import Literal

from .published import Reading
from .track import Track, TrackChoice


class HC3(Track):
    """`hc3:DIR?lang=fas[&split=eval]`: the authors' files; `lang=mlir` is both languages.

    Tweets vanish, so hardly a copy is complete, and no figure is published: with `sample=true` judgements of lost
    conversations are left out, as the authors' filter_docs.py does.
    """

    usage = "write hc3:DIR?lang=fas, where DIR holds fas.docs.jsonl, eval.topics.jsonl and fas.eval.qrels"
    all_langs = ("zho", "fas")
    doc_files = ("{lang}.docs.jsonl", "{lang}.docs.jsonl.gz", "{lang}/docs.jsonl", "{lang}/docs.jsonl.gz")
    topic_files = ("{split}.topics.jsonl",)
    qrels_files = ("{lang}.{split}.qrels",)

    def __init__(
        self, where: str, *, reading: Reading, choice: TrackChoice, split: Literal["train", "eval"] = "eval"
    ) -> None:
        super().__init__(where, reading, choice, split)
        self.name = f"hc3-{self.scope}-{split}"
