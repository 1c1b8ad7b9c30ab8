"""Queries to try on an index: headings of its documents, in several languages."""

from __future__ import annotations

from itertools import islice

from ..indexes.base import Index

READ = 64  # documents that are looked at, so that a large index costs no more
MOST = 8
LONGEST = 60  # characters: what is longer is a text and no heading


def find_examples(index: Index) -> list[dict[str, str]]:
    """`text` and `lang` of headings of the first documents, each of another language; few or none where none fit."""
    found: dict[str, str] = {}
    for item in index.get(list(islice(index.ids(), READ))):
        heading = str(item.meta.get("title") or (item.text or "").partition("\n")[0]).strip()
        if item.lang and 0 < len(heading) <= LONGEST:
            found.setdefault(item.lang, heading)
    return [{"text": text, "lang": lang} for lang, text in islice(found.items(), MOST)]
