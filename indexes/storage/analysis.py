"""What full text looks at: a text as its column holds it, and a query as it is asked there, letter for letter.

Whatever is written in two ways, and meant to be one word, is made one here, on both sides; stems are the tokenizers'.
"""

from __future__ import annotations

import re
import unicodedata
from functools import cache

# The analysis of new indexes. The card says by which one an index was made; it is asked by the same. Version 1 left
# İ, accents, points, digits and marks to the tokenizers, and words of more than 40 bytes out.
ANALYSIS = 2

# Between a Chinese character and the kana after it, where Japanese inflects: 読んだ and 読む share 読.
_OKURIGANA = re.compile(r"(?<=[\u3400-\u9fff])(?=[\u3041-\u309f])")
# Persian and Urdu are typed with Arabic letters as often as with their own; the non-joiner comes and goes.
_LETTERS = str.maketrans({"ي": "ی", "ى": "ی", "ك": "ک", "ة": "ه", "\u200c": " ", "\u0640": None})

_ARABIC = "\u0620-\u064a\u066e-\u06d3\u06fa-\u06ff\u0750-\u077f"
_NONJOINER = re.compile(f"(?<=[{_ARABIC}])\u200c+(?=[{_ARABIC}])")  # between parts of a word, elsewhere only a shape
# NFKC takes the Thai and Lao vowel `am` apart, which dictionaries of words have whole; its parts are typed as well, the
# tone before or after the first.
_THAI_AM = re.compile("\u0e4d([\u0e48-\u0e4b]?)\u0e32|([\u0e48-\u0e4b])\u0e4d\u0e32")
_LAO_AM = re.compile("\u0ecd([\u0ec8-\u0ecb]?)\u0eb2|([\u0ec8-\u0ecb])\u0ecd\u0eb2")
# Hindi writes a nasal before a consonant of its own class as a letter or as a point.
_HINDI_NASAL = re.compile("न्(?=[तथदध])|म्(?=[पफबभ])|ण्(?=[टठडढ])|ञ्(?=[चछजझ])|ङ्(?=[कखगघ])")
# ICU keeps what stands between such marks together: example.com, L'Aquila.
_INNER_MARKS = re.compile(r"(?<=[^\W\d])[.:_'·](?=\w)|(?<=\w)[.:_'·](?=[^\W\d])|_+")

_APOSTROPHES = "\u00b4`\u02b9\u02bb\u02bc\u02bd\u02bf\u02be\u2018\u2019\u201b\u2032\u05f3\u07f4\ua78c"
# Letters with a stroke, and two letters in one, which no decomposition takes apart.
_PLAIN = {
    "ı": "i", "đ": "d", "ð": "d", "ø": "o", "ł": "l", "ħ": "h", "ŧ": "t", "ß": "ss", "æ": "ae", "œ": "oe", "þ": "th",
    "Đ": "D", "Ð": "D", "Ø": "O", "Ł": "L", "Ħ": "H", "Ŧ": "T", "ẞ": "SS", "Æ": "AE", "Œ": "OE", "Þ": "TH",
}  # fmt: skip
# Letters of Arabic script that are typed for one another: forms of alef, yeh, kaf and heh. Arabic's stemmer knows
# alefs with hamza and teh marbuta itself.
_TO_ARABIC = str.maketrans("یىېےکڪٱەہ", "ي" * 4 + "ك" * 2 + "ا" + "ه" * 2)
_TO_PERSIAN = str.maketrans("يىئېےۓكڪأإآٱؤةۀۂۃہەھ", "ی" * 6 + "ک" * 2 + "ا" * 4 + "و" + "ه" * 7)
# Devanagari: letters of foreign sounds without their points, the moon of nasal vowels as a point.
_TO_HINDI = str.maketrans({"़": None, "ँ": "ं"})

PLANES = 0x20000  # code points with letters that change here
_BETWEEN_WORDS = (0x200B, 0x600, 0x601, 0x602, 0x603, 0x6DD)  # characters of format that do not stand in one
# First and last of what is not seen or only points a word out: what NFKC could not put into a letter (stresses of
# Russian, tones of Yoruba), points of Hebrew, of Arabic and of the Quran, the stroke that makes Arabic words longer.
_UNSEEN = (
    (0x0300, 0x036F), (0x0591, 0x05BD), (0x05BF, 0x05BF), (0x05C1, 0x05C2), (0x05C4, 0x05C5), (0x05C7, 0x05C7),
    (0x0610, 0x061A), (0x0640, 0x0640), (0x064B, 0x065F), (0x0670, 0x0670), (0x06D6, 0x06DC), (0x06DF, 0x06E4),
    (0x06E7, 0x06E8), (0x06EA, 0x06ED), (0xFE00, 0xFE0F), (0xE0001, 0xE01EF),
)  # fmt: skip


def analyse(text: str, group: str, version: int = ANALYSIS) -> str:
    """A text as the column of a group of languages holds it, and a query as it is asked there.

    One form for composed and decomposed characters, full width, ligatures, digits of all scripts and apostrophes;
    without soft hyphens, marks of direction, points and stress; i for İ. Then by group what its tokenizer and stemmer
    do not know: the dotless i of Turkish, English without accents, words between inner marks for ICU, Arabic and
    Persian letters, and for n-grams all that folds, case and accents included.
    """
    if version == 1:
        text = unicodedata.normalize("NFKC", text)
        if group == "icu":
            return _OKURIGANA.sub(" ", text)
        return text.translate(_LETTERS) if group == "ngram" else text
    if text.isascii():
        text = text.replace("`", "'")
    else:
        text = unicodedata.normalize("NFKC", text.replace("\u00b4", "'"))  # which NFKC makes a space and a mark
        if "\u200c" in text:
            text = _NONJOINER.sub(" ", text)
        text = text.translate(_make_table(group))
        # What was left out may have stood between parts of one character.
        text = unicodedata.normalize("NFC", text.casefold() if group == "ngram" else text)
    if group in ("icu", "tam"):
        if "\u0e4d" in text or "\u0ecd" in text:
            text = _LAO_AM.sub("\\1\\2\u0eb3", _THAI_AM.sub("\\1\\2\u0e33", text))
        return _OKURIGANA.sub(" ", _INNER_MARKS.sub(" ", text))
    if group == "ngram" and "\u094d" in text:
        return _HINDI_NASAL.sub("ं", text)
    return text.replace("I", "ı") if group == "tur" else text


def list_words(text: str) -> list[str]:
    """The words of an analysed text in order, without case and accents; signs of vowels belong to their words."""
    return _find_words().findall(text.casefold().translate(_list_accents()))


@cache
def _make_table(group: str) -> dict[int, int | str | None]:
    """Letters that are the same in a group, and what is left out, for `str.translate`."""
    signs: dict[int, int | str | None] = {}
    for code in range(PLANES):
        category = unicodedata.category(character := chr(code))
        if category == "Nd" and code > ord("9"):
            signs[code] = str(unicodedata.decimal(character))
        elif category == "Cf" and code not in _BETWEEN_WORDS:
            signs[code] = None
    signs |= dict.fromkeys(map(ord, _APOSTROPHES), "'")
    signs |= dict.fromkeys(code for first, last in _UNSEEN for code in range(first, last + 1))
    signs |= {ord("İ"): "i", 0x05F4: '"'}  # the mark of abbreviations in Hebrew, as keyboards have it
    match group:
        case "eng":
            return signs | _list_accents()
        case "ell":
            return signs | _list_old_greek()
        case "ara":
            return signs | _TO_ARABIC
        case "ngram":
            return signs | _list_accents() | _TO_PERSIAN | _TO_HINDI | str.maketrans("ёЁ", "ее")
    return signs


@cache
def _list_old_greek() -> dict[int, str]:
    """Greek letters of the old spelling, with breathings and three accents, in the new one, with one."""
    table = {}
    for code in range(0x1F00, 0x2000):
        base, *marks = list(unicodedata.normalize("NFD", chr(code)))
        if marks:
            kept = [each for each in marks if each == "\u0308"]
            kept += ["\u0301"] * bool({"\u0300", "\u0301", "\u0342"}.intersection(marks))
            table[code] = unicodedata.normalize("NFC", base + "".join(kept))
    return table


@cache
def _list_accents() -> dict[int, str]:
    """Latin and Greek letters without their accents; those of Cyrillic are letters of their own."""
    table = {ord(each): to for each, to in _PLAIN.items()} | {ord("ς"): "σ"}
    for code in (*range(0xC0, 0x250), *range(0x370, 0x400), *range(0x1E00, 0x2000)):
        base, *marks = list(unicodedata.normalize("NFD", chr(code)))
        if marks and all(map(unicodedata.combining, marks)):
            table[code] = base
    return table


@cache
def _find_words() -> re.Pattern[str]:
    marks = "".join(chr(code) for code in range(PLANES) if unicodedata.category(chr(code))[0] == "M")
    return re.compile(f"(?:[^\\W_]|[{re.escape(marks)}])+")
