"""Languages: ISO 639-3 codes as NeuCLIR writes them, names, writing direction, and identification offline."""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cache, lru_cache
from typing import Literal, NamedTuple

from ..errors import InputError, unknown_name
from ..items import Item, windows
from ..media.language_codes import NOT_A_LANGUAGE, parse_language, resolve_language
from .identifier_model import open_identifier_model

# Below this probability `identify` answers None. Measured on 1,960 two-word snippets of the Universal
# Declaration of Human Rights in 50 languages: at 0.5, 74% are answered and 97% of the answers are right;
# whole sentences: 100%, 99%.
SURE = 0.5

# A language with more writers is likelier before a word is read: its share of writers to this power. The
# power was chosen on the same snippets and 150 search queries in 25 languages (0.73 of them right without it,
# 0.84 with it).
PRIOR_POWER = 0.3

READ = 400  # characters of a text that identification looks at: 200 already give the 99% above
# ASCII and bounded: Chinese has no space after a link, and a text without spaces may not cost its square.
LINKS = re.compile(r"(?:https?|ftp)://[\x21-\x7e]+|www\.[\x21-\x7e]+|[A-Za-z0-9._+-]{1,64}@[A-Za-z0-9.-]+")

RIGHT_TO_LEFT = frozenset(
    ("Adlm", "Arab", "Aran", "Hebr", "Mand", "Mend", "Nkoo", "Rohg", "Samr", "Sogd", "Syrc", "Thaa", "Yezi")
)

# Labels of the identifier that a short text cannot tell from the language it is filed under here.
FILED_UNDER = {"ary": "ara", "arz": "ara", "hbo": "heb", "uzs": "uzb", "wuu": "zho"}
# Scripts beside the one that CLDR calls likeliest (for Ancient Greek: Cypriot syllables).
SECOND_SCRIPT = {
    "aze": "Cyrl", "bos": "Cyrl", "grc": "Grek", "kur": "Arab", "msa": "Arab", "pan": "Arab", "srp": "Latn",
    "uzb": "Cyrl",
}  # fmt: skip

# What the scripts of langcodes are to the identifier.
USUAL_SCRIPTS = {"Hans": ("Hani",), "Hant": ("Hani",), "Jpan": ("Hani", "Jpan"), "Kore": ("Hani", "Kore")}

# The first word of a character's Unicode name -> its script in ISO 15924.
SCRIPTS = dict(
    ARABIC="Arab", ARMENIAN="Armn", BENGALI="Beng", CJK="Hani", CYRILLIC="Cyrl", DEVANAGARI="Deva",
    ETHIOPIC="Ethi", GEORGIAN="Geor", GREEK="Grek", GUJARATI="Gujr", GURMUKHI="Guru", HANGUL="Kore",
    HEBREW="Hebr", HIRAGANA="Jpan", KANNADA="Knda", KATAKANA="Jpan", KHMER="Khmr", LAO="Laoo", LATIN="Latn",
    MALAYALAM="Mlym", MYANMAR="Mymr", ORIYA="Orya", SINHALA="Sinh", TAMIL="Taml", TELUGU="Telu", THAI="Thai",
    TIBETAN="Tibt",
)  # fmt: skip
DENSE = {"Hani": 3, "Jpan": 2, "Kore": 2}  # letters of an alphabet that one character is worth


@lru_cache(maxsize=4096)
def name_language(code: str, language: str = "eng") -> str:
    """The name of a language in English or in `language`: `name_language("fas") == "Persian"`.

    `InputError` as `parse_language`.
    """
    import langcodes

    return langcodes.Language.get(parse_language(code)).display_name(parse_language(language))


def match_language(given: str, codes: Collection[str], what: str) -> str:
    """The one of a publisher's `codes` that means the language `given`; `InputError` on none, and on several."""
    if (code := given.strip().lower().replace("-", "_")) in codes:
        return code
    wanted = parse_language(given)
    found = [each for each in codes if parse_language(each) == wanted]
    if len(found) > 1:
        raise InputError(f"{given!r} could be {', '.join(found)}: say which")
    if not found:
        raise unknown_name(given, codes, what)
    return found[0]


def find_direction(code: str) -> Literal["rtl", "ltr"]:
    """Which way a language is written, by the script of the tag or the usual one; `InputError` as `parse_language`."""
    return "rtl" if resolve_language(code).maximize().script in RIGHT_TO_LEFT else "ltr"


def identify(texts: Sequence[str]) -> list[str | None]:
    """The ISO 639-3 code of each text's language, None where it is not sure.

    py3langid's naive Bayes over byte n-grams (after Lui and Baldwin 2012; 140 labels; the model is in the
    package), limited to languages written in the script of the text, and weighted by how many people write
    them. Looks at the first 400 characters; about 2,000 long or 5,000 short texts a second on one core.
    """
    return [load_identifier().identify(text) for text in texts]  # no texts, no model


def measure_text(text: str) -> int:
    """How long a text is, in letters of an alphabet: a Chinese character is worth three, a Korean syllable two."""
    return sum(count * DENSE.get(_find_script(character), 1) for character, count in Counter(text).items())


def fill_languages(items: Iterable[Item], window: int = 256) -> Iterator[Item]:
    """The same items in order, `lang` filled in where there is text, none is given and it is clear."""
    for some in windows(items, window):
        lacking = [item for item in some if item.lang is None and "text" in item.modalities]
        found = dict(zip(map(id, lacking), identify([item.text or "" for item in lacking]), strict=True))
        for item in some:
            lang = found.get(id(item))
            yield item if lang is None else replace(item, lang=lang)


class Label(NamedTuple):
    """A label of the identifier: the code we give it, the scripts it is written in, its prior weight."""

    code: str
    scripts: frozenset[str]
    prior: float

    @classmethod
    def of(cls, label: str) -> Label:
        import langcodes

        code = parse_language(label)
        language = langcodes.Language.get(code)
        usual = language.maximize().script or "Latn"
        scripts = {*USUAL_SCRIPTS.get(usual, (usual,)), SECOND_SCRIPT.get(code, usual)} - {"Hans", "Hant"}
        # A language without a count (Uzbek in Afghanistan, Gallo) has few writers, not none.
        writers = max(language.writing_population(), 1000)
        return cls(FILED_UNDER.get(code, code), frozenset(scripts), writers**PRIOR_POWER)


class Identifier:
    """py3langid's model, with its labels under our codes."""

    def __init__(self) -> None:
        self._model = open_identifier_model()
        self.labels = {label: Label.of(label) for label in self._model.labels if label not in NOT_A_LANGUAGE}

    def identify(self, text: str) -> str | None:
        """The code of the text's language, None where it is not sure."""
        # One long token must not hide the rest of the text, and a link is not in the text's language.
        text = LINKS.sub(" ", text[: 4 * READ])[:READ].strip()
        scripts = _find_scripts(text)
        if scripts == {"Hani"} and (decided := _decide_han(text)):
            return decided
        weights: Counter[str] = Counter()
        for label, probability in self._model.rank(text) if scripts else ():
            known = self.labels.get(label)
            if known is not None and known.scripts & scripts:
                weights[known.code] += probability * known.prior
        total = math.fsum(weights.values())
        if not total:
            return None  # no letters, or a script that no known language uses
        code, weight = weights.most_common(1)[0]
        return code if weight >= SURE * total else None


@cache
def load_identifier() -> Identifier:
    """The identifier, loaded once."""
    return Identifier()


def _find_scripts(text: str) -> set[str]:
    """The scripts (ISO 15924; Han characters as Hani) that hold at least a third of the text."""
    shares: Counter[str] = Counter()
    for character, count in Counter(text).items():
        if script := _find_script(character):
            shares[script] += count * DENSE.get(script, 1)
    # Japanese is kana among Han characters; a few kana in a Chinese text are a quotation.
    if shares["Jpan"] * 10 >= shares["Hani"] and shares["Jpan"]:
        shares["Jpan"] += shares.pop("Hani", 0)
    total = shares.total()
    return {script for script, share in shares.items() if 3 * share >= total}


@lru_cache(maxsize=1 << 16)
def _find_script(character: str) -> str:
    if not character.isalpha():
        return ""
    word = unicodedata.name(character, "").partition(" ")[0].partition("-")[0]
    return SCRIPTS.get(word, "Zzzz")  # a script that the identifier has no language for


def _decide_han(text: str) -> str | None:
    """Chinese or Japanese for Han characters that only one of the two countries' character sets has."""
    characters = "".join(character for character in text if _find_script(character) == "Hani")

    def fits(encoding: str) -> bool:
        return characters.encode(encoding, "ignore").decode(encoding) == characters

    chinese, japanese = fits("gb2312") or fits("big5"), fits("cp932")
    return None if chinese == japanese else "zho" if chinese else "jpn"
