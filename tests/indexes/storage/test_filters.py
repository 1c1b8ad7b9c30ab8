"""Facets of metadata, and filters as SQL."""

from __future__ import annotations

import pytest
from crosslens.errors import InputError
from crosslens.indexes.storage.filters import list_facets, list_modalities, make_facet, read_key, write_sql


def test_facets_and_filters_are_unambiguous() -> None:
    assert list_facets({"a": 1, "b": [True, 2.0, "x=y"], "c": None, "d": {"e": 1}, "f=g": "h"}) == [
        "a=1", "b=true", "b=2", "b=x=y", "f%3Dg=h",
    ]  # fmt: skip
    assert read_key(make_facet("100%=x", "v")) == "100%=x"
    assert len(make_facet("url", "x" * 1000)) < 60
    assert make_facet("url", "x" * 1000) != make_facet("url", "x" * 1001)
    assert write_sql(None, ()) is write_sql({}, ()) is None
    assert write_sql({"lang": "a'b"}, ()) == "lang IN ('a''b')"


def test_modalities_are_matched_whole_and_named_in_one_order() -> None:
    assert list_modalities() == ["text", "image", "text+image"]
    assert write_sql({"modality": ["text", "text+image"]}, ()) == "modality IN ('text', 'text+image')"
    with pytest.raises(InputError, match=r"unknown modality 'image\+text'.*known: image, text, text\+image"):
        write_sql({"modality": "image+text"}, ())
