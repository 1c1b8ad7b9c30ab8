"""The contract of `indexes.base.Index` on filters, over every registered kind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from crosslens.errors import InputError
from crosslens.indexes.registry import open_index
from crosslens.items import Item
from stand_ins.index_cases import CASES, QUERIES, collection, png
from stand_ins.table import table


@pytest.fixture(params=CASES, scope="module")
def case(request: pytest.FixtureRequest) -> Any:
    return CASES[request.param]


@pytest.fixture(scope="module")
def items() -> list[Item]:
    return collection()


@table(
    ("where", "keeps"),
    [
        ({"lang": "zho"}, lambda item: item.lang == "zho"),
        ({"lang": ["zho", "fas"]}, lambda item: item.lang in ("zho", "fas")),
        ({"modality": "image"}, lambda item: item.text is None),
        ({"modality": ["text"]}, lambda item: item.image is None),
        ({"year": 2001}, lambda item: item.meta.get("year") == 2001),
        ({"year": "2001"}, lambda item: item.meta.get("year") == 2001),
        ({"source": "a'b", "lang": "eng"}, lambda item: item.lang == "eng" and item.meta["source"] == "a'b"),
        ({"source": 'c"d', "year": [2002, 2003]}, lambda item: item.id[0] == "t" and int(item.id[1:]) % 10 in (2, 8)),
        ({"tags": 2}, lambda item: 2 in item.meta.get("tags", ())),
        ({"source": "' OR 1=1 --"}, lambda item: False),
        ({"lang": "fr"}, lambda item: False),
    ],
)
def test_filters_are_kept_to(case: Any, items: list[Item], where: dict, keeps: object) -> None:
    index = case.whole()
    allowed = {item.id for item in items if keeps(item)}  # type: ignore[operator]
    asked = [Item(f"q{number}", f"w{number}", lang="eng") for number in range(6)]
    for some, exact in ((asked[:1], True), (asked, False)):  # kinds search for many queries in other ways than for one
        run = index.search(some, 2000, where=where, exact=exact)
        for query in some:
            assert {hit.id for hit in run[query.id]} == allowed & case.found(query, items)
    lexical = index.search(asked[:1], 2000, where=where, mode="lexical")
    assert all(hit.id in allowed for hit in lexical["q0"])


TYPED: list[tuple[dict[str, Any], set[str]]] = [
    ({"score": "1.0"}, {"a", "c"}),
    ({"score": 1}, {"a"}),
    ({"score": "1"}, {"a"}),
    ({"flag": "True"}, {"a"}),
    ({"flag": "true"}, {"a", "b"}),
    ({"flag": True}, {"a"}),
    ({"year": "2020.0"}, {"a", "p"}),
    ({"year": "2020"}, {"a", "b", "p"}),
    ({"year": 2020}, {"a", "p"}),
    ({"year": ["2020", 1999]}, {"a", "b", "c", "p"}),
    ({"year": "MMXX"}, set()),
    ({"modality": "survey"}, {"a"}),
    ({"modality": ["survey", "image"]}, {"a", "p"}),
    ({"modality": "text"}, {"a", "b", "c"}),
    ({"meta.modality": "text"}, {"b"}),
    ({"meta.lang": "x"}, {"c"}),
    ({"meta.year": 1999}, {"c"}),
    ({"date": "2020-01-01"}, {"a"}),
    ({"time": "2020-01-01"}, {"a"}),
    ({"modality": "survey", "lang": "eng"}, set()),
]


def test_filters_compare_by_type_and_find_every_key(case: Any) -> None:
    """`date` is what readers of collections rename to `time`."""
    items = [
        Item("a", "w1", meta={"score": 1.0, "flag": True, "year": 2020, "modality": "survey", "time": "2020-01-01"}),
        Item("b", "w1", meta={"score": 2, "flag": "true", "year": "2020", "modality": "text"}),
        Item("c", "w1", meta={"score": "1.0", "flag": False, "year": 1999, "lang": "x"}),
        Item("p", image=png(1), meta={"year": 2020.0}),
    ]
    index = case.filled(items)
    asked = [Item(f"q{number}", "w1", png(1)) for number in range(6)]
    words = [Item("q", "w1")]
    for where, kept in TYPED:
        for some in (asked, asked[:1]):
            run = index.search(some, 10, where=where)
            assert all({hit.id for hit in run[query.id]} == kept for query in some), where
        assert {hit.id for hit in index.search(words, 10, where=where, mode="lexical")["q"]} == kept - {"p"}, where


def test_filters_see_metadata_of_indexes_made_before_facets_had_types(case: Any, tmp_path: Path) -> None:
    items = [
        Item("a", "w1", meta={"score": 1.0, "flag": True, "year": 2020}),
        Item("b", "w1", meta={"score": 2, "flag": False, "year": "2020"}),
    ]
    index = case.filled(items, tmp_path / "index")
    documents = index.storage.tables.documents
    documents.checkout_latest()
    for id, held in (("a", "score=1,flag=true,year=2020"), ("b", "score=2,flag=false,year=2020")):
        documents.update(where=f"id LIKE '{id}%'", values={"facets": held.split(",")})
    index.storage.card.versions["documents"] = documents.version
    index.storage.card.checksums.clear()
    index.storage.save()
    again = open_index(tmp_path / "index", encoders=case.encoder())
    for where, kept in [
        ({"score": "1.0"}, {"a"}),
        ({"flag": "True"}, {"a"}),
        ({"flag": False}, {"b"}),
        ({"year": 2020}, {"a", "b"}),
        ({"year": "2020"}, {"a", "b"}),
    ]:
        assert {hit.id for hit in again.search(["w1"], 5, where=where)["1"]} == kept


def test_unknown_fields_and_values_of_filters_are_named(case: Any) -> None:
    index = case.whole()
    for where, text in [
        ({"yaer": 2001}, r"unknown field to filter by 'yaer'; did you mean year\? \(known: lang, modality, source"),
        ({"modality": "picture"}, "unknown modality 'picture'"),
        ({"lang": []}, "'lang' needs a value"),
        ({"year": None}, "'year' needs a value"),
        ({3: 1}, "a field to filter by must be text, not 3"),
        ([("year", 2001)], "a filter maps fields to values"),
        ("year=2001", "a filter maps fields to values"),
        ({"source": "\udce9"}, "the filter on 'source': .* is not valid Unicode"),
    ]:
        with pytest.raises(InputError, match=text):
            index.search(QUERIES, 5, where=where)
