"""Languages as codes of ISO 639-3, from whatever people write for them."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from functools import cache, lru_cache
from string import ascii_lowercase
from typing import TYPE_CHECKING

from ..errors import InputError

if TYPE_CHECKING:
    import langcodes

# The dominant member of a macrolanguage goes by the macrolanguage's code, as NeuCLIR has zho and not cmn.
# langcodes does so for most; these are where CLDR decided otherwise.
MACROLANGUAGE = {"fil": "tgl", "nob": "nor"}
NOT_A_LANGUAGE = {"und", "mul", "mis", "zxx"}


@lru_cache(maxsize=4096)
def parse_language(text: str) -> str:
    """The ISO 639-3 code of a language, as NeuCLIR writes it: zho, fas, rus, eng.

    Takes ISO 639-1, 639-2 (also bibliographic: ger, per) and 639-3 codes, BCP 47 tags (zh-CN, pt_BR) and
    names in English or in other languages (Persian, farsi, Kiswahili), in any case. The dominant member of a
    macrolanguage becomes the macrolanguage (cmn zho, pes fas, arb ara, swh swa). `InputError` names what is
    nearest; `und`, `mul`, `mis` and `zxx` are codes, but of no language.
    """
    return find_code(resolve_language(text))


@lru_cache(maxsize=4096)
def find_language(text: str | None) -> str | None:
    """`parse_language`, but None where it is none: of what earlier versions stored without a look at it."""
    try:
        return None if text is None else parse_language(text)
    except InputError:
        return None


def find_code(language: langcodes.Language) -> str:
    """The ISO 639-3 code of a language, or that of its macrolanguage."""
    code = language.to_alpha3()
    return MACROLANGUAGE.get(code, code)


def resolve_language(text: str) -> langcodes.Language:
    """What `parse_language` takes, with the script and region of its tag; `InputError` as there."""
    import langcodes

    tag = text.strip().replace("_", "-")
    try:
        language = langcodes.Language.get(tag).prefer_macrolanguage()
        known = language.is_valid() and language.language is not None
    except (LookupError, ValueError):  # LanguageTagError is a ValueError
        known = False
    try:
        if not known:
            # So short, it was meant as a code; as a name it would find any language it begins.
            if len(tag) < 4 and tag.isascii():
                raise LookupError
            language = langcodes.Language.get(langcodes.find(tag).to_tag()).prefer_macrolanguage()
        code = language.to_alpha3()
        if code in NOT_A_LANGUAGE or "qaa" <= code <= "qtz":
            raise LookupError
    except (LookupError, ValueError):  # a lone surrogate cannot be looked up
        raise _unknown_language(text) from None
    return language


def _unknown_language(text: str) -> InputError:
    shown = repr(text if len(text) <= 50 else text[:50] + "...")
    write = "write an ISO 639 code, a tag or a name: zho, zh, Chinese"
    if text.strip().lower().replace("_", "-").partition("-")[0] in NOT_A_LANGUAGE:
        return InputError(f"unknown language {shown}: leave it out where it is not known or not one ({write})")
    names = _list_names()
    close = difflib.get_close_matches(text.strip().casefold()[:50], names, n=1)
    hint = f"; did you mean {' ('.join(names[close[0]])})?" if close else ""
    return InputError(f"unknown language {shown}{hint} ({write})")


@cache
def _list_names() -> Mapping[str, tuple[str, str]]:
    """Codes and names of the languages that ISO 639-1 has, as they may be meant: each one's code and name."""
    import langcodes

    names = {}
    for tag in (first + second for first in ascii_lowercase for second in ascii_lowercase):
        if (language := langcodes.Language.get(tag)).is_valid():
            code = find_code(language.prefer_macrolanguage())
            name = langcodes.Language.get(code).display_name()
            names[code] = names[name.casefold()] = (code, name)
    return names
