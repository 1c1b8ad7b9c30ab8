"""Facets of metadata, and filters as SQL."""

from __future__ import annotations

import pytest
from crosslens.errors import InputError
from crosslens.indexes.storage.filters import (
    join_conditions,
    list_facets,
    list_modalities,
    list_wanted,
    make_facet,
    read_key,
    write_sql,
)
from hypothesis import given
from hypothesis import strategies as st
from stand_ins.table import table

SCALARS = st.one_of(st.text(max_size=5), st.integers(), st.floats(allow_nan=False), st.booleans())


def test_facets_and_filters_are_unambiguous() -> None:
    assert list_facets({"a": 1, "b": [True, 2.0, "x=y"], "c": None, "d": {"e": 1}, "f=g": "h"}) == [
        "a%n=1", "b%b=true", "b%n=2", "b%s=x=y", "f%3Dg%s=h",
    ]  # fmt: skip
    assert len(make_facet("url", "x" * 1000)) < 60
    assert make_facet("url", "x" * 1000) != make_facet("url", "x" * 1001)
    assert write_sql(None, ()) is write_sql({}, ()) is None
    assert write_sql({"a": "a'b"}, ["a"]) == "array_has_any(facets, make_array('a%s=a''b', 'a=a''b'))"
    assert join_conditions(None, None) is None
    assert join_conditions("a", None) == "a"
    assert join_conditions("a OR b", "c") == "(a OR b) AND (c)"


@given(st.text(max_size=5), SCALARS)
def test_the_key_of_a_facet_is_read_back_with_a_type_and_without(key: str, value: str | float | bool) -> None:
    facet = make_facet(key, value)
    assert read_key(facet) == key
    untyped = facet.replace(facet.partition("=")[0], facet.partition("=")[0][:-2], 1)
    assert read_key(untyped) == key
    assert facet in list_wanted(key, value)


@table(
    ("value", "stored", "found"),
    [
        ("1.0", 1, True),
        ("1.0", 1.0, True),
        ("1.0", "1.0", True),
        ("1.0", "1", False),
        ("1", "1.0", False),
        ("2020", 2020, True),
        ("2020", "2020", True),
        ("2020.0", 2020, True),
        ("2.02e3", 2020, True),
        ("02020", 2020, False),
        ("02020", "02020", True),
        ("-0.5", -0.5, True),
        ("0.10", 0.1, True),
        ("٣", 3, False),
        ("1_000", 1000, False),
        ("nan", float("nan"), False),
        ("9" * 5000, "9" * 5000, True),
        (2020, 2020.0, True),
        (2020, "2020", False),
        (2020.5, 2020.5, True),
        (1, True, False),
        ("1", True, False),
        ("true", 1, False),
        ("True", True, True),
        ("true", True, True),
        ("FALSE", False, True),
        ("True", "True", True),
        ("True", "true", False),
        (True, True, True),
        (True, "true", False),
        (True, 1, False),
        (False, False, True),
    ],
)
def test_values_are_compared_by_type(value: str | float | bool, stored: str | float | bool, found: bool) -> None:
    assert (make_facet("key", stored) in list_wanted("key", value)) is found


def test_modalities_are_matched_whole_and_named_in_one_order() -> None:
    assert list_modalities() == ["text", "image", "text+image"]
    assert write_sql({"modality": ["text", "text+image"]}, ()) == "modality IN ('text', 'text+image')"
    with pytest.raises(InputError, match=r"unknown modality 'image\+text'.*known: image, text, text\+image"):
        write_sql({"modality": "image+text"}, ())


@pytest.mark.parametrize("lang", ["en", "eng", "en-US", "English"])
def test_a_language_in_a_filter_is_its_code_and_what_earlier_versions_stored(lang: str) -> None:
    assert write_sql({"lang": lang}, ()) == write_sql({"lang": [lang]}, (), ["eng", "zho"]) == "lang IN ('eng')"
    assert write_sql({"lang": [lang, "zh"]}, (), ["en", "xx", "eng"]) == "lang IN ('eng', 'en', 'zho')"
    assert write_sql({"lang": "xx"}, (), ["en", "xx"]) == "lang IN ('xx')"


@table("lang", ["und", "xx", "", "x') OR (1=1", 3, 1.5, True])
def test_a_language_in_a_filter_that_is_none_is_refused(lang: str | float) -> None:
    with pytest.raises(InputError, match="unknown language"):
        write_sql({"lang": lang}, (), ["eng"])
