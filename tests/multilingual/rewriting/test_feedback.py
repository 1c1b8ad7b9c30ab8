"""Feedback in vector space: what is searched for is what the formulas say, and nothing is encoded twice."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from crosslens.encoders.base import unit
from crosslens.errors import InputError
from crosslens.items import Item
from crosslens.multilingual.rewriting.feedback import Average, Rocchio
from crosslens.runs import Probe, Run
from crosslens.systems.system import OpenSite, System
from stand_ins.index_cases import CASES, collection

CASE = CASES["flat"]
QUERY, OTHER = Item("q", "w1 w2", lang="eng"), Item("other", "w7 w8", lang="fas")


@pytest.fixture(scope="module")
def encoder() -> Any:
    return CASE.encoder(prompted=True)


@pytest.fixture(scope="module")
def index(encoder: Any) -> Any:
    made = CASE.create()
    made.add(collection(120, 0), encoder)
    return made


@pytest.mark.parametrize(
    ("stage", "weights"),
    [
        (Rocchio(3, 1.0, 0.5), (1.0, 0.5, 0.0)),
        (Rocchio(2, 0.25, 1.0, 0.5), (0.25, 1.0, 0.5)),
        (Rocchio(4, 0.0, 1.0), (0.0, 1.0, 0.0)),
        (Average(3), (0.25, 0.75, 0.0)),
    ],
)
def test_vectors_are_those_of_the_formula(index: Any, encoder: Any, stage: Any, weights: tuple[float, ...]) -> None:
    first = index.search([QUERY, OTHER], 10)
    before = encoder.encoded
    found = (stage >> index.retriever("dense", 20))(first)
    assert encoder.encoded == before  # no document is encoded again
    assert found.manifest.total("feedback_documents") == 2 * stage.first

    (space,) = index.card.spaces

    def corrected(item: Item, role: Any) -> np.ndarray:
        (vectors,) = CASE.vectors(encoder.encode([item], role))
        return index.statistics.correct(space, vectors, [item], role, index.encoders)[0]

    query, best, worst = weights
    ranked = [corrected(item, "document") for item in first.items("q")]
    wanted = query * corrected(QUERY, "query") + best * np.mean(ranked[: stage.first], axis=0)
    wanted = unit(wanted - worst * np.mean(ranked[-stage.first :], axis=0))
    scores = {item.id: float(corrected(item, "document") @ wanted) for item in index.get(list(index.ids()))}
    assert [hit.score for hit in found["q"]] == pytest.approx(sorted(scores.values(), reverse=True)[:20], abs=3e-3)
    assert all(scores[hit.id] == pytest.approx(hit.score, abs=3e-3) for hit in found["q"])
    # Languages of documents and query may differ: the first results of a query are in four.
    assert len({item.lang for item in first.items("q")}) > 1


def test_full_text_goes_by_the_query_alone(index: Any) -> None:
    fed = Rocchio(3)(index.search([QUERY], 10))
    assert index.search(fed, 20, mode="lexical").hits == index.search([QUERY], 20, mode="lexical").hits
    assert index.search(fed, 20, mode="hybrid").hits != index.search([QUERY], 20, mode="hybrid").hits


def test_what_was_rewritten_before_stays_the_query() -> None:
    documents = [Item("a", "one"), Item("b", "two")]

    class Documents:
        def get(self, ids: Any) -> list[Item]:
            return [each for id in ids for each in documents if each.id == id]

    written = Probe(Item("w", "written"), "document", 3.0), Probe(QUERY, "query", 1.0)
    apart = Probe(Item("s", "sub-question"), "query", group=1)
    words = Probe(Item("t", "terms"), "query", only="words")
    run = Run(queries=(QUERY, OTHER), probes={"q": (*written, apart, words)})
    run = run.ranking({"q": [("a", 2.0), ("b", 1.0)]}, Documents())
    done = Rocchio(1, alpha=2.0, beta=0.5, gamma=0.25)(run)
    feedback = [Probe(documents[0], "document", 0.5, 0, "vector"), Probe(documents[1], "document", -0.25, 0, "vector")]
    assert done.probes == {
        "q": (
            written[0]._replace(only="words"),
            written[0]._replace(only="vector", weight=1.5),
            written[1]._replace(only="words"),
            written[1]._replace(only="vector", weight=0.5),
            words,
            *feedback,
            apart._replace(only="words"),
            apart._replace(only="vector", weight=2.0),
            *(each._replace(group=1) for each in feedback),
        )
    }
    assert done.hits == run.hits
    assert done.manifest.records[-1].counts == {"feedback_documents": 1, "without_hits": 1}


def test_lines_name_them_and_their_options(index: Any) -> None:
    line = "dense % 5 >> rocchio?docs=2&alpha=0.5&beta=1&gamma=0.1 >> dense >> average?docs=4 >> dense % 7"
    stage = System.parse(line).bind(OpenSite(index), 7)
    parts = [part for part in stage.parts if isinstance(part, Rocchio | Average)]
    assert parts == [Rocchio(2, 0.5, 1.0, 0.1), Average(4)]
    run = stage([QUERY])
    assert len(run["q"]) == 7
    assert [record.stage for record in run.manifest.records if "(docs=" in record.stage] == [
        "rocchio(docs=2, alpha=0.5, beta=1, gamma=0.1)",
        "average(docs=4)",
    ]


def test_mistakes_are_one_line() -> None:
    for make, text in [
        (lambda: Rocchio(0), "docs must be at least 1, not 0"),
        (lambda: Rocchio(beta=-1.0), "beta must be from 0 to 1,000,000, not -1"),
        (lambda: Rocchio(beta=1e9), "beta must be from 0 to 1,000,000, not 1e\\+09"),
        (lambda: Rocchio(alpha=0.0, beta=0.0), "alpha and beta both 0"),
        (lambda: Average()(Run.of(["x"]).ranking({"1": [("a", 1.0)]})), "no documents behind it"),
        (lambda: Rocchio()(["x"]), "there has been no search: let it follow one"),
        (lambda: System.parse("dense >> rocchio?gama=1"), "did you mean gamma"),
    ]:
        with pytest.raises(InputError, match=text):
            make()
