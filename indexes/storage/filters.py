"""Filters on documents: `where` as SQL, and the facets of their metadata that it looks at."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any

from ...errors import InputError, check_known, check_unicode
from ...media.language_codes import find_language, parse_language
from ...media.modalities import MEDIA, join_modalities

Scalar = str | int | float | bool
# Field (`lang`, `modality`, a key of `Item.meta`, or `meta.` and a key) -> the value it must have, or one of several.
Where = Mapping[str, Scalar | Sequence[Scalar]]

FIELDS = ("lang", "modality")
META = "meta."  # before a key that is called like a field
# Keys that readers of collections rename -> what they are then called.
RENAMED = {"date": "time"}

LONGEST_FACET = 200  # characters; longer values are stored as their digest

# Types of JSON, as they stand in facets. Those of indexes made before facets had types have none of these.
TEXT, NUMBER, TRUTH = "%s", "%n", "%b"
_NUMBER = re.compile(r"-?(?:0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?", re.ASCII)  # as JSON writes it


def list_facets(meta: Mapping[str, object]) -> list[str]:
    """A facet for each scalar in the metadata, and for each scalar in a list there."""
    return [
        make_facet(key, each)
        for key, value in meta.items()
        for each in (value if isinstance(value, list | tuple) else (value,))
        if isinstance(each, str | int | float)
    ]


def make_facet(key: str, value: Scalar) -> str:
    """A field, the type of its value, and the value, as one string: numbers are equal by value, 2020 and 2020.0."""
    kind = TEXT if isinstance(value, str) else TRUTH if isinstance(value, bool) else NUMBER
    return f"{_quote_key(key)}{kind}={_write_value(value)}"


def list_wanted(key: str, value: Scalar) -> list[str]:
    """The facets that a value in a filter stands for.

    A number stands for equal numbers, and a boolean for itself. A string, which is all that the command line can give,
    stands for itself and for the number or boolean that it spells: `2020` and `2020.0` for 2020, `true` and `True` for
    true. Earlier indexes have facets without types, in which numbers, booleans and strings written alike are one.
    """
    meant = [value, *_read_spelled(value)] if isinstance(value, str) else [value]
    untyped = [f"{_quote_key(key)}={_write_value(each)}" for each in meant]
    return list(dict.fromkeys([*(make_facet(key, each) for each in meant), *untyped]))


def read_key(facet: str) -> str:
    """The field of a facet."""
    key = facet.partition("=")[0]
    for kind in (TEXT, NUMBER, TRUTH):
        key = key.removesuffix(kind)
    return key.replace("%3D", "=").replace("%25", "%")


def _quote_key(key: str) -> str:
    # So that the first "=" is always the one between key and value, and a "%" before it begins a type.
    return key.replace("%", "%25").replace("=", "%3D")


def _write_value(value: Scalar) -> str:
    if isinstance(value, bool):
        text = str(value).lower()
    elif isinstance(value, float) and value.is_integer():
        text = str(int(value))
    else:
        text = str(value)
    if len(text) > LONGEST_FACET:
        text = "blake2b:" + hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
    return text


def _read_spelled(text: str) -> Iterator[Scalar]:
    """The number or boolean that a string spells, if it spells one."""
    if text.lower() in ("true", "false"):
        yield text.lower() == "true"
    # Of a longer one Python would not make a number.
    if len(text) <= LONGEST_FACET and (found := _NUMBER.fullmatch(text)):
        yield float(text) if any(found.groups()) else int(text)


def list_modalities() -> list[str]:
    """All that a document can hold, as one name each: `text`, `image`, `text+image`, and so on."""
    names = ("text", *MEDIA)
    return [join_modalities(each) for size in range(1, len(names) + 1) for each in combinations(names, size)]


def check_where(where: Where | None) -> None:
    """`InputError` for a filter that is no mapping of fields to values, or holds what is no text or number."""
    if not isinstance(where or {}, Mapping):
        raise InputError(f"a filter maps fields to values, as {{'lang': 'zho'}}, not {where!r}")
    for key in where or {}:
        if not isinstance(key, str):
            raise InputError(f"a field to filter by must be text, not {key!r} ({type(key).__name__})")
        check_unicode(key, "the field to filter by")
        values = list_values(where, key)
        if not values or not all(isinstance(each, str | int | float) for each in values):
            raise InputError(f"the filter on {key!r} needs a value, or a list of them, not {(where or {})[key]!r}")
        for each in values:
            check_unicode(str(each), f"the filter on {key!r}:")


def list_values(where: Where | None, key: str) -> list[Scalar]:
    """The values that a filter lets a field have, one or several; none where it has nothing about the field."""
    value: Any = (where or {}).get(key, ())
    return list(value) if isinstance(value, Sequence) and not isinstance(value, str | bytes) else [value]


def list_spellings(lang: str, stored: Iterable[str]) -> list[str]:
    """A language's code, and how else it is `stored`, as earlier versions did; `InputError` on what is no language."""
    held = set(stored)
    if lang in held and find_language(lang) is None:  # stored before anything looked at it
        return [lang]
    code = parse_language(lang)
    return [code, *sorted(each for each in held - {code} if find_language(each) == code)]


def write_sql(where: Where | None, keys: Sequence[str], langs: Iterable[str] = ()) -> str | None:
    """A filter as SQL; `InputError` on a field that is not `lang`, `modality` or in `keys`, or has no value.

    `lang` is given as people write it; `langs` are the languages that are stored. `modality` is matched whole:
    `image` does not keep pictures with a caption, which are `text+image`. Where metadata has the key `modality`, values
    that are no modalities are looked for there. `meta.KEY` is always a key of metadata, and a key that readers rename
    is found by either name.
    """
    check_where(where)
    parts = []
    for key in where or {}:
        values = list_values(where, key)
        if key == "modality":
            parts.append(_match_modality(values, keys))
        elif key == "lang":
            parts.append(_match_field(key, [code for each in values for code in list_spellings(str(each), langs)]))
        else:
            parts.append(_match_facets(_find_key(key, keys), values))
    return " AND ".join(parts) or None


def _find_key(field: str, keys: Sequence[str]) -> str:
    """The key of metadata that a field of a filter means."""
    plain = field.removeprefix(META)
    for each in (field, RENAMED.get(field, field), plain, RENAMED.get(plain, plain)):
        if each in keys:
            return each
    check_known(field, (*FIELDS, *keys), "field to filter by")
    return field


def _match_modality(values: Sequence[Scalar], keys: Sequence[str]) -> str:
    known = list_modalities()
    own = [each for each in values if each in known]
    others = [each for each in values if each not in known]
    if others and "modality" not in keys:
        check_known(str(others[0]), known, "modality")
    found = [_match_field("modality", own)] * bool(own) + [_match_facets("modality", others)] * bool(others)
    return f"({' OR '.join(found)})" if len(found) > 1 else found[0]


def _match_field(name: str, values: Iterable[Scalar]) -> str:
    return f"{name} IN ({quote_all(map(str, values))})"


def _match_facets(key: str, values: Iterable[Scalar]) -> str:
    wanted = quote_all(facet for each in values for facet in list_wanted(key, each))
    return f"array_has_any(facets, make_array({wanted}))"


def join_conditions(*conditions: str | None) -> str | None:
    """SQL conditions that all must hold; None where there is none."""
    held = [each for each in conditions if each]
    return " AND ".join(f"({each})" for each in held) if len(held) > 1 else next(iter(held), None)


def match_modalities(names: Iterable[str]) -> str:
    """A condition that keeps what holds one of these."""
    return _match_field("modality", names)


def split_languages(langs: Sequence[str], stored: Iterable[str]) -> dict[str | None, str]:
    """A condition for each of some languages, however it is `stored`, and under None one for all other documents."""
    held = list(stored)
    spelled = {lang: list_spellings(lang, held) for lang in langs}
    others = quote_all(each for codes in spelled.values() for each in codes)
    conditions: dict[str | None, str] = {lang: _match_field("lang", codes) for lang, codes in spelled.items()}
    return {**conditions, None: f"lang IS NULL OR lang NOT IN ({others})"}


def quote_all(values: Iterable[str]) -> str:
    """Strings as SQL, between commas."""
    return ", ".join("'" + value.replace("'", "''") + "'" for value in values)
