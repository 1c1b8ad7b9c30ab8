"""The words of a text in any script, the stopwords of languages, and the tokens that a word begins an answer with."""

from __future__ import annotations

import tomllib
import unicodedata
from collections.abc import Mapping, Sequence
from functools import cache, lru_cache
from importlib.resources import files
from typing import Any, NamedTuple

DEFAULT = "eng"
JOINERS = "\u200c\u200d"
# Scripts that write no spaces between words: Thai to Burmese, Khmer, kana, Han.
UNSPACED = (
    (0x0E00, 0x109F), (0x1780, 0x17FF), (0x3040, 0x30FF), (0x31F0, 0x31FF), (0x3400, 0x9FFF), (0xA9E0, 0xA9FF),
    (0xF900, 0xFAFF), (0xFF66, 0xFF9F), (0x20000, 0x3FFFF),
)  # fmt: skip


class PromptTexts(NamedTuple):
    """What a model reads around a document and around a query, how its answer begins, and words that are no terms."""

    document: str
    query: str
    answer: str
    stopwords: frozenset[str] = frozenset()


@cache
def read_prompt_texts() -> Mapping[str, PromptTexts]:
    """What `promptreps.toml` holds: by language or name."""
    text = files(__package__).joinpath("promptreps.toml").read_text("utf-8")
    return {
        name: PromptTexts(**table | {"stopwords": frozenset(table.get("stopwords", "").split())})
        for name, table in tomllib.loads(text).items()
    }


def list_stopwords(lang: str | None) -> frozenset[str]:
    """The stopwords of a language; those of English, as in the paper, where there is no list."""
    texts = read_prompt_texts()
    mine = texts.get(lang or DEFAULT)
    return mine.stopwords if mine and mine.stopwords else texts[DEFAULT].stopwords


def split_words(text: str) -> set[str]:
    """The words of a text, lower-cased: runs of letters, digits and their marks in any script."""
    kept = "".join(each if _is_inside(each) else " " for each in text.lower())
    runs = (run.strip(JOINERS) for run in kept.split())
    return {word for word in runs if any(map(str.isalnum, word))}


def is_spaced(word: str) -> bool:
    """Whether it is in a script that writes spaces between words."""
    return not any(low <= ord(each) <= high for each in word for low, high in UNSPACED)


def tokenize_answers(tokenizer: Any, answers: Sequence[tuple[str, str]]) -> list[list[int]]:
    """The tokens of (beginning, word): the word as it goes on from the quotation mark that the answer begins with."""
    if not answers:
        return []
    marks = [beginning[-1] for beginning, _ in answers]
    options = {"add_special_tokens": False, "split_special_tokens": True, "verbose": False}
    opened = {mark: tokenizer(mark, **options)["input_ids"] for mark in set(marks)}
    joined = tokenizer([mark + word for mark, (_, word) in zip(marks, answers, strict=True)], **options)
    bare = tokenizer([word for _, word in answers], **options)
    found = []
    for mark, whole, alone in zip(marks, joined["input_ids"], bare["input_ids"], strict=True):
        first = opened[mark]
        # Where mark and word share a token, the word's own are the nearest to be had.
        found.append(whole[len(first) :] if whole[: len(first)] == first else alone)
    return found


@lru_cache(maxsize=1 << 16)
def _is_inside(character: str) -> bool:
    return character.isalnum() or character in JOINERS or unicodedata.category(character).startswith("M")
