"""Titles and first sentences as queries for what stands below them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, ClassVar

from ...items import Item
from ...multilingual.rewriting.pieces import split_sentences
from ...pipeline import advance
from .base import Draft, Making, split_title


@dataclass(frozen=True, kw_only=True)
class Titles:
    """`titles`: a document's title, or else its first sentence, is a query for the text below it.

    Titles are in `meta["title"]`, as collections have them; the document that is trained on lacks what became its
    query. A document that has nothing below it gives none.
    """

    name: str = field(default="titles", init=False)
    copies: bool = field(default=True, init=False)
    usage: Counter[str] = field(default_factory=Counter, init=False, compare=False)
    models: ClassVar[Mapping[str, str]] = MappingProxyType({})

    def describe(self) -> dict[str, Any]:
        return {}

    def count(self, documents: int) -> int:
        return documents

    def make(
        self, read: Callable[[], Iterator[Item]], chosen: Container[str], making: Making
    ) -> Iterator[tuple[Item, list[Draft]]]:
        for document in read():
            if document.id in chosen:
                head, rest, style = take_head(document)
                meta = {key: value for key, value in document.meta.items() if key != "title"}
                below = replace(document, text=rest, meta=meta)
                yield (below, [Draft(head, document.lang, style)]) if head and rest else (document, [])
                advance()


def take_head(document: Item) -> tuple[str, str, str]:
    """A document's title or first sentence, what stands below it, and which of the two it is."""
    title, body = split_title(document)
    if title:
        return title, body, "title"
    first = next((each for each in split_sentences(body) if each.strip()), "")
    return " ".join(first.split()), body[body.find(first) + len(first) :].strip(), "first sentence"
