"""items.py: what an item may hold, and ids seen before at a few bytes each."""

from __future__ import annotations

import unicodedata
from dataclasses import replace
from typing import Any

import pytest
from crosslens.errors import InputError
from crosslens.items import Item, SeenIds, check_id
from hypothesis import given, settings
from hypothesis import strategies as st
from stand_ins.table import table


@given(st.lists(st.text(min_size=1, max_size=3), max_size=300))
@settings(deadline=None)
def test_ids_seen_before(given_ids):
    seen, plain = SeenIds(merge_at=16), set()
    for id in given_ids:
        assert seen.add(id) == (id in plain)
        plain.add(id)


@table(
    ("fields", "error"),
    [
        ({"id": 7}, "the id of an item must be text, not 7 (int)"),
        ({"id": None}, "the id of an item must be text, not None (NoneType)"),
        ({"id": b"a"}, "the id of an item must be text, not b'a' (bytes)"),
        ({"text": b"cats"}, "the text of item 'a' must be text, not b'cats' (bytes)"),
        ({"text": ["cats"]}, "the text of item 'a' must be text, not ['cats'] (list)"),
        ({"image": 7}, "the image of item 'a' must be a pathlib.Path, bytes or a PIL image, not 7 (int)"),
        ({"image": "a.jpg"}, "the image of item 'a' must be a pathlib.Path, bytes or a PIL image, not 'a.jpg' (str)"),
        ({"lang": 3}, "the lang of item 'a' must be text, not 3 (int)"),
        ({"lang": ["en"]}, "the lang of item 'a' must be text, not ['en'] (list)"),
        ({"lang": "xx-yy-zz"}, "item 'a': unknown language 'xx-yy-zz'"),
        ({"lang": "und"}, "item 'a': unknown language 'und'"),
        ({"lang": ""}, "item 'a': unknown language ''"),
        ({"meta": {3: "x"}}, "the keys in meta of item 'a' must be text, not 3 (int)"),
        ({"meta": None}, "meta of item 'a' must be a dictionary, not None (NoneType)"),
        ({"meta": [("x", 3)]}, "meta of item 'a' must be a dictionary, not [('x', 3)] (list)"),
        ({"media": ["sound"]}, "media of item 'a' must be a dictionary, not ['sound'] (list)"),
        ({"media": {None: b""}}, "the keys in media of item 'a' must be text, not None (NoneType)"),
    ],
)
def test_fields_of_another_type_are_refused(fields: dict[str, Any], error: str) -> None:
    with pytest.raises(InputError) as refused:
        Item(**{"id": "a", **fields})
    assert str(refused.value).startswith(error)
    assert str(refused.value).isprintable()


@table("lang", ["en", "EN", "eng", "en-GB", "en_US", "English"])
def test_an_item_holds_the_code_of_its_language(lang: str) -> None:
    assert Item("a", "cats", lang=lang) == Item("a", "cats", lang="eng")
    assert Item("a", "cats", lang=lang).content_hash() == Item("a", "cats", lang="eng").content_hash()
    assert replace(Item("a", "cats"), lang=lang).lang == "eng"


@given(st.text(max_size=5))
def test_ids_that_a_line_cannot_hold_are_refused(id: str) -> None:
    if id and not any(unicodedata.category(each) in ("Cc", "Zl", "Zp") for each in id):
        check_id(id, "a query")
    else:
        with pytest.raises(InputError) as refused:
            check_id(id, "a query")
        assert str(refused.value).isprintable()
