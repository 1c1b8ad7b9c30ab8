"""Whose grades `benchmarks/assess.py` compares, and what its intervals say of a judge that is right and of a blind one."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import pytest
from crosslens.items import Item
from crosslens.multilingual.collections.base import InMemoryDocuments
from crosslens.runs import Run

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def assess(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import assess

    yield assess
    sys.modules.pop("assess")


def test_each_query_has_documents_of_every_kind(assess):
    docs = {id: Item(id, f"text {id}") for id in "abcdefg"}
    run = Run.of([Item("q", "x")]).ranking(
        {"q": [(id, -place) for place, id in enumerate("gabfe")]}, InMemoryDocuments(docs)
    )
    pairs, human = assess.choose_pairs(run, {"q": {"a": 3, "c": 3, "d": 3, "b": 1}, "p": {"a": 3}}, 2)
    assert human == {"q": {"a": 3, "c": 3, "b": 1, "g": 0, "f": 0}}
    assert {(query.id, document.id) for query, document in pairs} == {("q", id) for id in "acbgf"}


def test_an_interval_without_0_tells_a_judge_from_a_blind_one(assess):
    random.seed(0)
    human = {f"q{n}": {f"d{k}": (3, 1, 0, 0)[k] for k in range(4)} for n in range(30)}
    blind = {query: {doc: random.choice((0, 1, 3)) for doc in grades} for query, grades in human.items()}
    right = assess.bootstrap(human, human, 0)
    assert right == {name: [1.0, 1.0] for name in assess.MEASURES}
    for low, high in assess.bootstrap(human, blind, 0).values():
        assert low < 0.05
        assert high < 0.35
