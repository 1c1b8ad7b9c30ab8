"""Filters on documents: `where` as SQL, and the facets of their metadata that it looks at."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from typing import Any

from ...errors import InputError, check_known
from ...media.modalities import MEDIA, join_modalities

Scalar = str | int | float | bool
# Field (`lang`, `modality`, or a key of `Item.meta`) -> the value it must have, or one of several.
Where = Mapping[str, Scalar | Sequence[Scalar]]

LONGEST_FACET = 200  # characters; longer values are stored as their digest


def list_facets(meta: Mapping[str, object]) -> list[str]:
    """`key=value` for each scalar in the metadata, and for each scalar in a list there."""
    return [
        make_facet(key, each)
        for key, value in meta.items()
        for each in (value if isinstance(value, list | tuple) else (value,))
        if isinstance(each, str | int | float)
    ]


def make_facet(key: str, value: Scalar) -> str:
    """A field and its value as one string; 2020, 2020.0 and "2020" are the same, True is `true`."""
    if isinstance(value, bool):
        text = str(value).lower()
    elif isinstance(value, float) and value.is_integer():
        text = str(int(value))
    else:
        text = str(value)
    if len(text) > LONGEST_FACET:
        text = "blake2b:" + hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
    # So that the first "=" is always the one between key and value.
    return key.replace("%", "%25").replace("=", "%3D") + "=" + text


def read_key(facet: str) -> str:
    """The field of a facet."""
    return facet.partition("=")[0].replace("%3D", "=").replace("%25", "%")


def list_modalities() -> list[str]:
    """All that a document can hold, as one name each: `text`, `image`, `text+image`, and so on."""
    names = ("text", *MEDIA)
    return [join_modalities(each) for size in range(1, len(names) + 1) for each in combinations(names, size)]


def list_values(where: Where | None, key: str) -> list[Scalar]:
    """The values that a filter lets a field have, one or several; none where it has nothing about the field."""
    value: Any = (where or {}).get(key, ())
    return list(value) if isinstance(value, Sequence) and not isinstance(value, str | bytes) else [value]


def write_sql(where: Where | None, keys: Sequence[str]) -> str | None:
    """A filter as SQL; `InputError` on a field that is not `lang`, `modality` or in `keys`, or has no value.

    `modality` is matched whole: `image` does not keep pictures with a caption, which are `text+image`.
    """
    parts = []
    for key, value in (where or {}).items():
        values = list_values(where, key)
        if not values or not all(isinstance(each, str | int | float) for each in values):
            raise InputError(f"the filter on {key!r} needs a value, or a list of them, not {value!r}")
        check_known(key, ("lang", "modality", *keys), "field to filter by")
        if key == "modality":
            for each in values:
                check_known(str(each), list_modalities(), "modality")
        if key in ("lang", "modality"):
            parts.append(f"{key} IN ({quote_all(map(str, values))})")
        else:
            wanted = quote_all(make_facet(key, each) for each in values)
            parts.append(f"array_has_any(facets, make_array({wanted}))")
    return " AND ".join(parts) or None


def quote_all(values: Iterable[str]) -> str:
    """Strings as SQL, between commas."""
    return ", ".join("'" + value.replace("'", "''") + "'" for value in values)
