"""collections/irds.py: collections of ir_datasets, which is replaced by a fake."""

from __future__ import annotations

import sys

import pytest
from crosslens.errors import InputError
from crosslens.items import Item
from crosslens.multilingual.collections.registry import load_collection
from stand_ins import small_collections as cases


@pytest.fixture
def ir_datasets(monkeypatch):
    return cases.install_ir_datasets(monkeypatch)


def test_a_collection_of_ir_datasets(ir_datasets):
    collection = load_collection("irds:neuclir/1/zh")
    assert next(collection.docs()) == Item("d1", "T\ntext one", None, "zho", {"title": "T", "url": "u"})
    (plain,) = collection.queries(fields="title")
    assert (plain.text, plain.lang) == ("Et", "eng")
    assert collection.queries()[0].text == "Et\nEd"
    (human,) = collection.queries(source="human", lang="zho")
    assert (human.text, human.lang) == ("Zt\nZd", "zho")
    with pytest.raises(InputError, match="topic 'q1' has no narrative"):
        collection.queries(fields="narrative")
    with pytest.raises(InputError, match="has no queries in rus"):
        collection.queries(lang="rus", fields="title")
    ir_datasets.count = 3
    with pytest.raises(InputError, match="has 2 documents, but 3 were expected"):
        collection.check()
    with pytest.raises(InputError, match="ir_datasets has no collection 'nope'"):
        load_collection("irds:nope")


def test_where_ir_datasets_fails_the_way_around_is_named(ir_datasets, monkeypatch):
    monkeypatch.setattr(ir_datasets, "queries_iter", lambda: iter(()))
    with pytest.raises(InputError, match=r"has no queries: ir_datasets loses them; .*neuclir:DIR\?year=2023"):
        load_collection("irds:neuclir/1/zh").queries()

    def docs_iter():
        yield ir_datasets.Doc(doc_id="d1", title="T", text="x", date="2020")

    monkeypatch.setattr(ir_datasets, "docs_iter", docs_iter)
    with pytest.raises(InputError, match=r"cannot read irds:neuclir/1/zh \(.*date.*\); .*neuclir:DIR"):
        list(load_collection("irds:neuclir/1/zh").docs())


def test_without_ir_datasets_the_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ir_datasets", None)
    with pytest.raises(InputError, match="pip install ir_datasets"):
        load_collection("irds:neuclir/1/zh")


def test_a_grade_that_is_none_is_refused(ir_datasets, monkeypatch):
    monkeypatch.setattr(ir_datasets, "qrels_iter", lambda: iter([ir_datasets.Qrel("q1", "d2", 500_000_000, "0")]))
    with pytest.raises(InputError, match="irds:neuclir/1/zh: 'd2' for 'q1': the grade 500000000 is above 1,000,000"):
        load_collection("irds:neuclir/1/zh").qrels()
