"""Which of a source's locales (`zh_CN`, `sr@latin`, `es-419`) stands for a language."""

from __future__ import annotations

from collections.abc import Mapping

import langcodes
from crosslens.errors import InputError
from crosslens.multilingual.languages import name_language, parse_language


def chosen(langs: str, available: Mapping[str, int], source: str) -> dict[str, str]:
    """ISO 639-3 code -> locale, from `rus,zho`, `ru,zh-tw` or `all`; `available` counts each locale's texts.

    A locale may be asked for by its own name. Otherwise a language has its usual variety (`zh-CN` for Chinese,
    the plain tag before a regional one), unless another has twice as many texts. `InputError` on a language that
    `source` ("CLDR has no names") does not have.
    """
    known: dict[str, list[str]] = {}
    for locale in sorted(available):
        if code := code_of(locale):
            known.setdefault(code, []).append(locale)
    usual = {code: _usual(code, locales, available) for code, locales in known.items()}
    if langs.strip() == "all" and usual:
        return dict(sorted(usual.items()))
    named = {_plain(locale): locale for locale in available}
    found: dict[str, str] = {}
    for given in filter(None, (part.strip() for part in langs.split(","))):
        code = parse_language(given.partition("@")[0])
        locale = named.get(_plain(given)) if _plain(given) != code else None
        if locale is None and code not in usual:
            raise InputError(f"{source} in {name_language(code)} (it has {', '.join(sorted(usual))})")
        locale = locale or usual[code]
        if found.setdefault(code, locale) != locale:
            raise InputError(f"{found[code]} and {locale} are both {code}: choose one of them")
    if not found:
        raise InputError("no languages: --langs rus,zho")
    return dict(sorted(found.items()))


def code_of(locale: str) -> str | None:
    """The ISO 639-3 code of a locale; None where its language is not known."""
    try:
        return parse_language(locale.partition("@")[0])
    except InputError:
        return None


def _usual(code: str, locales: list[str], available: Mapping[str, int]) -> str:
    most = max(available[locale] for locale in locales)
    likeliest = langcodes.Language.get(code).maximize()

    def order(locale: str) -> tuple[bool, bool, bool, int, str]:
        tag, _, modifier = locale.partition("@")
        likely = langcodes.Language.get(tag.replace("_", "-")).prefer_macrolanguage().maximize() == likeliest
        return (2 * available[locale] < most, bool(modifier), not likely, len(locale), locale)

    return min(locales, key=order)


def _plain(locale: str) -> str:
    return locale.casefold().replace("_", "-")
