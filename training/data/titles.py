"""Titles and first sentences as queries for what stands below them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from ...items import Item
from ...multilingual.rewriting.pieces import split_sentences
from .base import Draft, Making, MinedSource, split_title


@dataclass(frozen=True, kw_only=True)
class Titles(MinedSource):
    """`titles`: a document's title, or else its first sentence, is a query for the text below it.

    Titles are in `meta["title"]`, as collections have them; the document that is trained on lacks what became its
    query. A document that has nothing below it gives none.
    """

    name: str = field(default="titles", init=False)

    def take(self, document: Item, making: Making) -> tuple[Item, list[Draft]]:
        head, rest, style = take_head(document)
        if not (head and rest):
            return document, []
        meta = {key: value for key, value in document.meta.items() if key != "title"}
        return replace(document, text=rest, meta=meta), [Draft(head, document.lang, style)]


def take_head(document: Item) -> tuple[str, str, str]:
    """A document's title or first sentence, what stands below it, and which of the two it is."""
    title, body = split_title(document)
    if title:
        return title, body, "title"
    first = next((each for each in split_sentences(body) if each.strip()), "")
    return " ".join(first.split()), body[body.find(first) + len(first) :].strip(), "first sentence"
