"""Anchor texts: what links call a document is a query for it."""

from __future__ import annotations

import html
import posixpath
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urldefrag, urljoin

from ...errors import check_at_least
from ...items import Item
from ...pipeline import advance
from .base import Draft, Making, MinedSource

MANY = 3  # documents that one text links to: then it is "here" or "more", and says nothing of any

# Bounded, so that no text costs its square.
_MARKDOWN = re.compile(
    r"(?<!!)\[(?P<text>[^\[\]\n]{1,300})\]\(\s*<?(?P<target>[^()\s<>]{1,2000})>?(?:\s+\"[^\"\n]{0,300}\")?\s*\)"
)
_HTML = re.compile(
    r"<a\s[^<>]{0,500}?\bhref\s*=\s*[\"']?(?P<target>[^\"'\s<>]{1,2000})[^<>]{0,500}>(?P<text>.{1,300}?)</a\s*>",
    re.IGNORECASE | re.DOTALL,
)
_TAG = re.compile(r"<[^<>]{0,500}>")


@dataclass(frozen=True, kw_only=True)
class Anchors(MinedSource):
    """`anchors?n=`: the `n` commonest texts of the links that lead to a document are queries for it.

    Links stand in texts, as Markdown or HTML, or in `meta["links"]` as `{"text": ..., "target": ...}`. A target is a
    document's id or its `meta["url"]`, as a whole or relative to those of the document that links, with or without a
    fragment and an ending such as `.html`. Links from a document to itself, and texts that lead to several documents
    (`generic_anchors`), are left out.
    """

    n: int = 3
    name: str = field(default="anchors", init=False)
    whole: bool = field(default=True, init=False)

    def __post_init__(self) -> None:
        check_at_least(1, n=self.n)

    def describe(self) -> dict[str, Any]:
        return {"n": self.n}

    def make(
        self, read: Callable[[], Iterator[Item]], chosen: Container[str], making: Making
    ) -> Iterator[tuple[Item, list[Draft]]]:
        names = {name: each.id for each in read() for name in _name_target(each)}
        found: defaultdict[str, Counter[tuple[str, str | None]]] = defaultdict(Counter)
        leads: defaultdict[str, set[str]] = defaultdict(set)
        for document in read():
            for text, target in read_links(document):
                goal = next((names[name] for name in _resolve(document, target) if name in names), None)
                if goal is not None and goal != document.id:
                    if goal in chosen:
                        found[goal][text, document.lang] += 1
                    leads[text.casefold()].add(goal)
        making.count["generic_anchors"] += sum(len(goals) >= MANY for goals in leads.values())
        for document in read():
            if document.id not in chosen:
                continue
            specific = [
                (each, many) for each, many in found[document.id].items() if len(leads[each[0].casefold()]) < MANY
            ]
            best = sorted(specific, key=lambda pair: (-pair[1], pair[0][0], pair[0][1] or ""))[: self.n]
            yield document, [Draft(text, lang, "anchor") for (text, lang), _ in best]
            advance()


def read_links(document: Item) -> Iterator[tuple[str, str]]:
    """The texts and targets of a document's links; those without a text, as around a picture, are left out."""
    listed = document.meta.get("links")
    pairs = (
        [(each.get("text"), each.get("target")) for each in listed if isinstance(each, dict)]
        if isinstance(listed, list)
        else []
    )
    for pattern in (_MARKDOWN, _HTML):
        pairs += [(found["text"], found["target"]) for found in pattern.finditer(document.text or "")]
    for text, target in pairs:
        if isinstance(text, str) and isinstance(target, str):
            plain = " ".join(html.unescape(_TAG.sub(" ", text)).split()).strip("*_` ")
            if any(map(str.isalnum, plain)):
                yield plain, html.unescape(target)


def _name_target(document: Item) -> Iterator[str]:
    url = document.meta.get("url")
    yield document.id
    if isinstance(url, str) and url:
        yield urldefrag(url).url.rstrip("/")


def _resolve(document: Item, target: str) -> Iterator[str]:
    """The names that a target may mean, seen from the document that it stands in."""
    url = document.meta.get("url")
    plain = unquote(urldefrag(target).url).rstrip("/")
    if not plain:
        return
    names = [plain, posixpath.normpath(posixpath.join(posixpath.dirname(document.id), plain))]
    if isinstance(url, str) and url:
        names.append(urldefrag(urljoin(url, target)).url.rstrip("/"))
    for name in names:
        yield name
        yield posixpath.splitext(name)[0]
