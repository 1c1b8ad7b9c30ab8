"""Expansion by a relevance model: weights as in the paper, and words in the languages of the first results."""

from __future__ import annotations

from typing import Any

import pytest
from crosslens.errors import InputError
from crosslens.indexes.registry import create_index
from crosslens.items import Item
from crosslens.multilingual.rewriting.rm3 import RM3
from crosslens.runs import Probe, Run
from crosslens.systems.system import OpenSite, System

QUERY = Item("q", "how do cats sleep", lang="eng")
# The first of each language is what a search by vectors is taken to have found, the second what full text should.
CATS = [
    Item("rus1", "Кошки спят днём. Спящая кошка видит сны о мышах.", lang="rus"),
    Item("rus2", "Кошке снился сон, мышь убежала.", lang="rus"),
    Item("zho1", "猫在白天睡觉,梦见老鼠。", lang="zho"),
    Item("zho2", "老鼠怕猫。", lang="zho"),
    Item("fas1", "گربه‌ها روزها می‌خوابند و خواب موش می‌بینند", lang="fas"),
    Item("fas2", "موش از گربه‌ها می‌ترسد", lang="fas"),
    Item("eng1", "A cat sleeps by day and dreams of mice.", lang="eng"),
    Item("eng2", "The mouse fears dreaming felines.", lang="eng"),
]
OTHERS = {
    "rus": "Поезд идёт в город номер",
    "zho": "火车去城市第",
    "fas": "قطار به شهر شماره",
    "eng": "The train to city",
}


@pytest.fixture(scope="module")
def index() -> Any:
    made = create_index("memory://")
    filler = [Item(f"{lang}-{n}", f"{text} {n}", lang=lang) for lang, text in OTHERS.items() for n in range(30)]
    made.add([*CATS, *filler])
    return made


def give(index: Any, *ids: str) -> Run:
    return Run.of([QUERY]).ranking({"q": [(id, 1.0 - n / 10) for n, id in enumerate(ids)]}, index)


@pytest.mark.parametrize("lang", ["rus", "zho", "fas", "eng"])
def test_words_of_first_results_find_documents_of_their_language(index: Any, lang: str) -> None:
    run = give(index, f"{lang}1")
    before = {hit.id for hit in index.search(run, 50, mode="lexical")["q"]}
    after = [hit.id for hit in (RM3() >> index.retriever("lexical", 50))(run)["q"]]
    assert f"{lang}2" not in before  # an English query finds nothing there by its own words
    found = [id for id in after if id.startswith(lang)]
    assert found[:2] == [f"{lang}1", f"{lang}2"]
    assert lang == "fas" or len(found) == 2  # fragments of Persian words are in others, too


def test_languages_share_the_ranking(index: Any) -> None:
    run = (RM3(first=4) >> index.retriever("lexical", 50))(give(index, "rus1", "zho1", "fas1", "eng1"))
    for lang in OTHERS:
        assert [hit.id for hit in run["q"] if hit.id.startswith(lang)][:2] == [f"{lang}1", f"{lang}2"]
    assert {hit.id for hit in run["q"][:4]} == {"rus1", "zho1", "fas1", "eng1"}
    terms = {probe.item.lang for probe in run.probes["q"] if probe.only == "words" and probe.item is not QUERY}
    assert terms == {"rus", "zho", "fas", "eng"}


def test_weights_are_those_of_the_paper(index: Any) -> None:
    run = give(index, "rus1", "rus2", "eng1")
    done = RM3(first=2, terms=3, weight=2.0)(run)
    vector, words, *terms = done.probes["q"]
    assert vector == Probe(QUERY, "query", only="vector")
    assert words == Probe(QUERY, "query", 2.0 / 2, only="words")  # "cats" and "sleep": the others are stop words
    # Of the 8 and 5 words that are no stop words; the documents' scores are 1.0 and 0.9.
    shares = {"кошка": 2 / 8 + 0.9 / 5, "мышах": 1 / 8 + 0.9 / 5, "снился": 0.9 / 5}
    assert [probe.item for probe in terms] == [Item("q/rm3", word, lang="rus") for word in shares]
    assert [probe.weight for probe in terms] == pytest.approx([each / sum(shares.values()) for each in shares.values()])
    assert done.manifest.records[-1].counts == {"feedback_documents": 2, "feedback_terms": 3, "without_hits": 0}


def test_common_words_are_no_terms(index: Any) -> None:
    done = RM3()(give(index, "zho-1", "zho-2"))
    assert {probe.item.text for probe in done.probes["q"]} == {QUERY.text}  # a train goes to a city in every document
    done = RM3(weight=0)(give(index, "zho-1", "zho-2"))
    assert not done.probes  # terms alone are searched for where there are any
    assert done.manifest.total("without_terms") == 1


def test_a_search_by_vectors_goes_by_the_query_alone(index: Any) -> None:
    done = RM3()(give(index, "rus1"))
    seen = [probe for probe in done.probes["q"] if probe.only != "words"]
    assert seen == [Probe(QUERY, "query", only="vector")]


def test_each_search_of_a_query_gets_the_terms(index: Any) -> None:
    parts = (Probe(Item("a", "cats"), "query"), Probe(Item("b", "sleep"), "query", group=1))
    run = give(index, "rus1")
    done = RM3(terms=2)(Run(run.queries, run.hits, docs=index, probes={"q": parts}))
    assert [(probe.group, probe.item.lang) for probe in done.probes["q"] if probe.only == "words"] == [
        (0, None), (1, None), (0, "rus"), (0, "rus"), (1, "rus"), (1, "rus"),
    ]  # fmt: skip


def test_lines_name_it_and_mistakes_are_one_line(index: Any) -> None:
    stage = System.parse("lexical % 3 >> rm3?docs=3&terms=4&weight=0.5 >> lexical").bind(OpenSite(index), 5)
    assert RM3(3, 4, 0.5) in stage.parts

    class Elsewhere:
        def get(self, ids: Any) -> list[Item]:
            return CATS[: len(ids)]

    bare = create_index("memory://", lexical=False)
    for make, text in [
        (lambda: RM3(terms=0), "terms must be at least 1, not 0"),
        (lambda: RM3(weight=float("inf")), "weight must be from 0 to 1,000,000, not inf"),
        (
            lambda: RM3()(Run.of(["x"]).ranking({"1": [("rus1", 1.0)]}, Elsewhere())),
            "do not come from one: let it follow",
        ),
        (lambda: RM3()(["x"]), "there has been no search: let it follow one"),
        (lambda: bare.lexicon.split("x", "eng"), "was made without full text"),
    ]:
        with pytest.raises(InputError, match=text):
            make()
