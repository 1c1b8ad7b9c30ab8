"""The part of a document that shows why it was found: where the words of the query stand together."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator

import regex

LONGEST = 280  # characters of a snippet
LEAD = 40  # of these before the first word that is marked
MARKED = 50  # places that are marked at most
# Words of scripts that are written without spaces are pairs of characters.
_WORD = regex.compile(r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]+|[\p{L}\p{M}\p{N}]+")
_UNSPACED = regex.compile(r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]")
SHORTEST = 3  # characters of a word that is looked for, in scripts with spaces
STEM = 5  # characters that words have in common with one of a query, which may be inflected


def make_snippet(text: str, query: str) -> tuple[str, list[tuple[int, int]]]:
    """At most 280 characters of a text, on one line, and the spans of the query's words in them, by code points.

    The window with most different words of the query is taken, the beginning where there is none. Words of one
    beginning of five letters are the same; Chinese, Japanese and Thai are compared by pairs of characters.
    """
    text = " ".join(text.split())
    wanted = {key for _, _, key in _list_words(query)}
    places = [(start, end, key) for start, end, key in _list_words(text) if key in wanted] if wanted else []
    start = _choose_window(text, places)
    shown = text[start : start + LONGEST]
    end = start + len(shown)
    if end < len(text) and (cut := shown.rfind(" ", LONGEST * 3 // 4)) > 0:
        shown = shown[:cut]
    before, after = "… " * (start > 0), " …" * (start + len(shown) < len(text))
    shift = len(before) - start
    spans: list[tuple[int, int]] = []
    for first, last, _ in places:
        if first >= start and last <= start + len(shown):
            if spans and first + shift <= spans[-1][1]:
                spans[-1] = spans[-1][0], max(spans[-1][1], last + shift)
            else:
                spans.append((first + shift, last + shift))
    return before + shown + after, spans[:MARKED]


def _choose_window(text: str, places: list[tuple[int, int, str]]) -> int:
    """Where the window begins."""
    best, start = 0, 0
    for number, (first, _, _) in enumerate(places):
        within = {key for place, last, key in places[number : number + 200] if last <= first + LONGEST - LEAD}
        if len(within) > best:
            best, start = len(within), first
    if not best or start + LONGEST <= LONGEST:
        return 0
    if start <= LEAD:
        return 0
    start = min(start - LEAD, max(0, len(text) - LONGEST))
    return text.find(" ", start, start + LEAD) + 1 or start


def _list_words(text: str) -> Iterator[tuple[int, int, str]]:
    """Words of a text: first character, the one after the last, and what is compared."""
    for found in _WORD.finditer(text[: 1 << 16]):
        word, first = found[0], found.start()
        if _UNSPACED.match(word):
            for place in range(max(1, len(word) - 1)):
                yield first + place, min(first + place + 2, found.end()), word[place : place + 2]
        elif len(word) >= SHORTEST:
            folded = unicodedata.normalize("NFKC", word).casefold()
            yield first, found.end(), folded[:STEM] if len(folded) > STEM else folded
