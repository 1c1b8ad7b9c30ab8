"""The part of a document that shows why it was found: where the words of the query stand together."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from functools import lru_cache

import regex

LONGEST = 280  # characters of a snippet
LEAD = 40  # of these before the first word that is marked
MARKED = 50  # places that are marked at most
# Words of scripts that are written without spaces are pairs of characters.
_WORD = regex.compile(r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]+|[\p{L}\p{M}\p{N}]+")
_UNSPACED = regex.compile(r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]")
LOOKED_AT = 1 << 15  # characters of a text
KEYS = 64  # words of a query
FOUND = 500  # places in a text
SHORTEST = 3  # characters of a word that is looked for, in scripts with spaces
STEM = 5  # characters that words have in common with one of a query, which may be inflected


def make_snippet(text: str, query: str) -> tuple[str, list[tuple[int, int]]]:
    """At most 280 characters of a text, on one line, and the spans of the query's words in them, by code points.

    The window with most different words of the query is taken, the beginning where there is none. Words of one
    beginning of five letters are the same; Chinese, Japanese and Thai are compared by pairs of characters.
    """
    text = " ".join(text[:LOOKED_AT].split())
    places = _find_words(text, _list_keys(query))
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
        within = {key for _, last, key in places[number : number + 50] if last <= first + LONGEST - LEAD}
        if len(within) > best:
            best, start = len(within), first
    if start <= LEAD:
        return 0
    start = min(start - LEAD, max(0, len(text) - LONGEST))
    return text.find(" ", start, start + LEAD) + 1 or start


def _find_words(text: str, keys: Sequence[tuple[str, bool]]) -> list[tuple[int, int, str]]:
    """Where words of a text begin and end that begin with one of the keys, and with which."""
    folded = text.lower()
    if len(folded) != len(text):  # a few letters have two in their place
        folded = text
    places: list[tuple[int, int, str]] = []
    for key, whole in keys:
        at = folded.find(key)
        while at >= 0 and len(places) < FOUND:
            end = at + len(key)
            if whole and at and _is_of_word(text[at - 1]):
                at = folded.find(key, end)
                continue
            while whole and end < len(text) and _is_of_word(text[end]):
                end += 1
            places.append((at, end, key))
            at = folded.find(key, end if whole else at + 1)
    return sorted(places)


def _is_of_word(character: str) -> bool:
    return character.isalnum() or unicodedata.category(character)[0] == "M"


@lru_cache(maxsize=1024)
def _list_keys(query: str) -> tuple[tuple[str, bool], ...]:
    """What is looked for, and whether it begins a word: the beginnings of words, and pairs of characters."""
    keys: dict[str, bool] = {}
    for found in _WORD.finditer(query[:LOOKED_AT].lower()):
        word = found[0]
        if _UNSPACED.match(word):
            keys |= dict.fromkeys((word[place : place + 2] for place in range(max(1, len(word) - 1))), False)
        elif len(word) >= SHORTEST:
            keys[word[:STEM]] = True
        if len(keys) >= KEYS:
            break
    return tuple(keys.items())
