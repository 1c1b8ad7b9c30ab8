"""The same words in many languages: names of languages and territories, as CLDR has them."""

from __future__ import annotations

from functools import cache

from .language_codes import find_language

LANGUAGES = "en fr de es it pt ru zh ja ko ar fa tr pl nl sv da fi cs hu el he hi bn ta te ur vi th id ms uk"
TERRITORIES = "US GB FR DE ES IT PT RU CN JP KR IN BR MX CA AU ZA EG NG KE TR GR SE NO FI DK PL NL BE CH AT HU"


@cache
def list_names(lang: str | None) -> tuple[str, ...]:
    """The names of 32 languages and 32 territories in a language; none where CLDR does not have them.

    They mean the same in all languages, so that what an encoder makes of them differs by the language alone.
    """
    import langcodes

    if (code := find_language(lang)) is None:
        return ()
    language = langcodes.Language.get(code)
    names = [langcodes.Language.get(each).display_name(language) for each in LANGUAGES.split()]
    names += [langcodes.Language.make(territory=each).territory_name(language) for each in TERRITORIES.split()]
    if code != "eng" and len(set(names) - set(list_names("eng"))) < len(names) / 2:
        return ()  # langcodes answers in English where it has no names
    return tuple(names)
