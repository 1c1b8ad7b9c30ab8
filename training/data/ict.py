"""The inverse cloze task: a sentence of a document as the query for what is left of it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from ...errors import InputError, check_at_least
from ...items import Item
from ...multilingual.languages import measure_text
from ...multilingual.rewriting.pieces import split_sentences
from .base import Draft, Making, MinedSource, split_title

SHORTEST, LONGEST = 20, 300  # letters of a sentence that can be a query, as `measure_text` counts


@dataclass(frozen=True, kw_only=True)
class InverseCloze(MinedSource):
    """`ict?n=&keep=`: `n` sentences of each document are queries for the rest (Lee et al. 2019).

    A sentence stays in its document with the probability `keep` (0.1 in the paper, so that matching words are learned,
    too). Documents need one sentence more than are taken; those with fewer give fewer.
    """

    n: int = 1
    keep: float = 0.1
    name: str = field(default="ict", init=False)

    def __post_init__(self) -> None:
        check_at_least(1, n=self.n)
        if not 0 <= self.keep <= 1:
            raise InputError(f"keep is a probability, from 0 to 1, not {self.keep:g}")

    def describe(self) -> dict[str, Any]:
        return {"paper": "Lee et al. 2019, arXiv:1906.00300", "n": self.n, "keep": self.keep}

    def take(self, document: Item, making: Making) -> tuple[Item, list[Draft]]:
        title, body = split_title(document)
        sentences = list(split_sentences(body))
        spoken = sum(not each.isspace() for each in sentences)  # blank lines between paragraphs are none
        fitting = [n for n, each in enumerate(sentences) if SHORTEST <= measure_text(each.strip()) <= LONGEST]
        fitting.sort(key=lambda n: making.draw("sentence", document.id, n))
        taken = fitting[: min(self.n, spoken - 1)]
        gone = {n for n in taken if making.draw("keep", document.id, n) >= self.keep}
        rest = "".join(each for n, each in enumerate(sentences) if n not in gone).strip()
        text = f"{title}\n{rest}" if title else rest
        drafts = [Draft(" ".join(sentences[n].split()), document.lang, "sentence") for n in taken]
        return replace(document, text=text) if gone else document, drafts
