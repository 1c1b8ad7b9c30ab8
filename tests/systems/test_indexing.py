"""Expansions of documents: full text finds them by what was added, and nothing else knows of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from crosslens.errors import InputError
from crosslens.indexes.storage.rows import EXPANSIONS
from crosslens.items import Item
from crosslens.multilingual.collections.expansions import Expansions
from crosslens.multilingual.collections.registry import load_collection
from crosslens.systems.indexing import index_collection
from stand_ins.index_cases import CASES, collection

DOCS = [
    {"id": "cats", "text": "Кошки спят днём.", "lang": "rus"},
    {"id": "trains", "text": "Поезд идёт в город.", "lang": "rus"},
    {"id": "ships", "text": "Ships sail at night.", "lang": "eng"},
]
QUERIES = [
    {"id": "cats", "text": "when do cats sleep", "lang": "eng"},
    {"id": "cats", "text": "сонное животное"},  # in the language of the document
    {"id": "ships", "text": "vessels"},
    {"id": "gone", "text": "of no document"},
]


def write_lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


@pytest.fixture
def documents(tmp_path: Path) -> Path:
    (tmp_path / "docs").mkdir()
    write_lines(tmp_path / "docs/docs.jsonl", DOCS)
    return tmp_path / "docs"


def build(documents: Path, expansions: Path | None) -> Any:
    return index_collection(
        load_collection(documents), documents.parent / "made.index", [], documents=len(DOCS), expansions=expansions
    )


def search(index: Any, text: str, lang: str) -> list[str]:
    return [hit.id for hit in index.search([Item("q", text, lang=lang)], 10, mode="lexical")["q"]]


def test_full_text_finds_documents_by_their_expansions(documents: Path, tmp_path: Path) -> None:
    plain = build(documents, None)
    assert "expanded" not in plain.to_json()
    asked = (("sleeping cats", "eng"), ("животные", "rus"), ("vessel", "eng"))
    assert [search(plain.index, *each) for each in asked] == [[], [], []]
    made = build(documents, write_lines(tmp_path / "queries.jsonl", QUERIES))
    assert (made.added, made.expanded, made.unused) == (2, 2, 1)
    assert made.to_json()["expanded"] == 2
    assert any("1 documents that have expansions are not in the collection" in note for note in made.notes)
    assert [search(made.index, *each) for each in asked] == [["cats"], ["cats"], ["ships"]]
    assert search(made.index, "кошка", "rus") == ["cats"]  # its own words are still there
    (cats,) = made.index.get(["cats"])
    assert cats.text == DOCS[0]["text"]
    # A rerun changes nothing, other expansions are taken in, and without any it is as before.
    assert build(documents, tmp_path / "queries.jsonl").added == 0
    assert build(documents, write_lines(tmp_path / "fewer.jsonl", QUERIES[2:])).added == 1
    again = build(documents, None)
    assert again.added == 1
    assert again.index.fingerprint == plain.index.fingerprint
    assert [search(again.index, *each) for each in asked] == [[], [], []]


def test_a_synthesized_collection_expands_the_documents_that_its_topics_are_about(documents: Path) -> None:
    write_lines(
        documents / "topics.jsonl", [{"id": "t1", "text": "napping pets", "lang": "eng"}, {"id": "t2", "text": "x"}]
    )
    (documents / "qrels.txt").write_text("t1 0 cats 1\nt1 0 trains 0\n")
    made = build(documents, documents)
    assert (made.expanded, made.unused) == (1, 0)
    assert search(made.index, "nap pet", "eng") == ["cats"]


@pytest.mark.parametrize("name", ["flat", "passages"])
def test_vectors_and_texts_are_those_of_the_documents_alone(name: str) -> None:
    case, items = CASES[name], collection(40, 2)
    queries = [Item("q", "w1 w2", lang="eng"), Item("added", "unheard", lang="eng")]
    expanded = list(Expansions({item.id: {"eng": "unheard of"} for item in items[:5]}).expand(items))
    plain, made = (case.filled(each) for each in (items, expanded))
    assert made.search(queries, 20).hits == plain.search(queries, 20).hits
    assert not plain.search(queries[1:], 20, mode="lexical")["added"]
    assert {hit.id for hit in made.search(queries[1:], 20, mode="lexical")["added"]} == {item.id for item in items[:5]}
    got = made.get([item.id for item in items])
    assert [(each.text, each.image) for each in got] == [(each.text, each.image) for each in items]
    if case.windows:
        passages = made.passages.get([id for id in made.passages.ids() if id.startswith("t0#")])
        assert [EXPANSIONS in each.meta for each in passages] == [True] + [False] * (len(passages) - 1)


def test_mistakes_are_one_line(documents: Path, tmp_path: Path) -> None:
    path = tmp_path / "bad.jsonl"
    for rows, text in [
        ([{"id": "a"}], "bad.jsonl:1: the expansion of 'a' has no text"),
        ([{"text": "x"}], "bad.jsonl:1: no id"),
        ([], "bad.jsonl expands no document"),
        ([{"id": "dogs", "text": "x"}], r"has none of the documents that the expansions are for \(dogs\)"),
    ]:
        with pytest.raises(InputError, match=text):
            build(documents, write_lines(path, rows))
    with pytest.raises(InputError, match="cannot read the expansions"):
        build(documents, tmp_path / "none.jsonl")
    with pytest.raises(InputError, match="expansions are for full text"):
        index_collection(
            load_collection(documents), tmp_path / "x", [], documents=3, lexical=False, expansions=documents
        )
    with pytest.raises(InputError, match="document 'a' has a field _expansions of its own"):
        list(Expansions({}).expand([Item("a", "x", meta={EXPANSIONS: "y"})]))
    assert not (tmp_path / "made.index").exists()
