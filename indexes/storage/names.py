"""The words of a query that read alike in every language: names, codes and numbers."""

from __future__ import annotations

import re
import unicodedata

MOST = 8  # names of a query that are looked for, the first ones

_WORD = re.compile(r"[^\W_]+(?:[._+@#-]+[^\W_]+)*[+#]*")
_PART = re.compile(r"[^\W_]{2,}")
_LAST_LATIN = "\u024f"


def extract_names(text: str) -> list[str]:
    """The names in a text, in parts of two characters or more, each once: at most `MOST`.

    A name has a digit, a capital after its first letter or a mark inside (`x264`, `SUMIFS`, `javahelp.ini`); or it
    begins with a capital amid words that mostly do not, or is in Latin letters amid others; or it is the only word.
    """
    text = unicodedata.normalize("NFKC", text)
    # Chinese, Arabic and other letters without capitals stand between names, with spaces or not.
    words = _WORD.findall("".join(" " if each.isalpha() and each.lower() == each.upper() else each for each in text))
    is_foreign = sum(each.isalpha() and each > _LAST_LATIN for each in text) > len(words)
    is_sentence = 2 * sum(word[0].islower() for word in words) > len(words)
    parts = [
        part
        for place, word in enumerate(words)
        if len(words) == 1
        or _is_code(word)
        or (is_sentence and place and word[0].isupper())
        or (is_foreign and word[0] <= _LAST_LATIN)
        for part in _PART.findall(word)
    ]
    return list({part.casefold(): part for part in parts}.values())[:MOST]


def _is_code(word: str) -> bool:
    inner = [each for part in _PART.findall(word) for each in part[1:]]
    return any(map(str.isdigit, word)) or any(map(str.isupper, inner)) or any(each in "._@#+" for each in word)
