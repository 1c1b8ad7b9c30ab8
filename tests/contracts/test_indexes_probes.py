"""`Run.probes` in every kind of index: what is encoded in a query's place, and the words that full text looks for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from crosslens.encoders.base import unit
from crosslens.errors import InputError
from crosslens.items import Item, Role
from crosslens.runs import Run
from stand_ins.index_cases import CASES, collection, png, same

ALL = 700  # documents, so that no order of equal ones decides which are found
Probes = tuple[tuple[Item, Role], ...]
QUERY, OTHER = Item("q", "w99 w98", lang="eng"), Item("other", "w7 w8", lang="fas")
PROBES: Probes = (
    (Item("first", "w1 w2", lang="eng"), "query"),
    (Item("second", "w3 w4 w5 w6", lang="zho"), "document"),
    (Item("third", "w7", lang="eng"), "document"),
)


def probing(probes: Probes, *queries: Item) -> Run:
    return replace(Run.of([QUERY, *queries]), probes={"q": probes})


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> Any:
    return CASES[request.param]


@pytest.mark.parametrize("correct", [True, False])
@pytest.mark.parametrize("probes", [PROBES, PROBES[1:], PROBES[1:2]])
def test_probes_are_encoded_in_their_roles_and_pooled(case: Any, correct: bool, probes: Probes) -> None:
    items = collection(photos=0)
    encoder = case.encoder(prompted=True)  # queries are encoded as other vectors than documents
    index = case.create(lexical=False)
    index.add(items, encoder)
    run = index.search(probing(probes, OTHER), 10, exact=True, correct=correct)

    rows = index.passages if case.windows else index
    (space,) = index.card.spaces

    def encoded(item: Item, role: Role) -> np.ndarray:
        (vectors,) = case.vectors(encoder.encode([item], role))
        if correct and case.holds == "dense":
            vectors = rows.statistics.correct(space, vectors, [item], role)
        return vectors

    vectors = [encoded(*probe) for probe in probes]
    pooled = {
        "dense": lambda: unit(np.mean(vectors, axis=0)),
        "sparse": lambda: np.sum(vectors, axis=0),
        "multi": lambda: np.concatenate(vectors),
    }[case.holds]()
    scores = case.scores([pooled], [encoded(item, "document") for item in items])[0]
    best = np.sort(scores[scores > 0] if case.holds == "sparse" else scores)[::-1][:10]
    assert [hit.score for hit in run["q"]] == pytest.approx(best.tolist(), abs=3e-3)
    for hit in run["q"]:
        assert scores[int(hit.id[1:])] == pytest.approx(hit.score, abs=3e-3)
    # A query without probes beside it is searched for as it would be alone.
    same(index.search([OTHER], 10, exact=True, correct=correct), run, [OTHER])
    assert run.queries[0] == QUERY
    assert run.probes == {"q": probes}


def test_a_query_that_is_its_own_probe_finds_the_same(case: Any) -> None:
    index = case.filled(collection())
    for mode in ("dense", "lexical", "hybrid"):
        found = index.search(probing(((QUERY, "query"),)), 20, mode=mode)
        assert found.hits == index.search([QUERY], 20, mode=mode).hits


def test_full_text_searches_for_the_words_of_all_probes(case: Any) -> None:
    index = case.filled(collection(photos=0))
    found = index.search(probing(PROBES), ALL, mode="lexical")
    joined = Item("q", "w1 w2\nw3 w4 w5 w6\nw7")  # of two languages, so of none
    assert found.hits == index.search([joined], ALL, mode="lexical").hits
    english = index.search(probing(PROBES[::2]), ALL, mode="lexical")
    assert english.hits == index.search([replace(joined, text="w1 w2\nw7", lang="eng")], ALL, mode="lexical").hits
    # A probe without a language has that of its query.
    plain = tuple((replace(item, lang=None), role) for item, role in PROBES[::2])
    assert index.search(probing(plain), ALL, mode="lexical").hits == english.hits
    hybrid = index.search(probing(PROBES[::2]), ALL, mode="hybrid")
    dense = index.search(probing(PROBES[::2]), ALL)
    assert hybrid.hits != dense.hits
    assert english["q"][0].id in dict(hybrid["q"])


def test_hybrid_is_dense_alone_where_a_probe_holds_a_picture(case: Any) -> None:
    index = case.filled(collection())
    run = probing(((Item("word", "w1"), "query"), (Item("seen", image=png(3)), "query")))
    dense, hybrid = (index.search(run, 100, mode=mode) for mode in ("dense", "hybrid"))
    assert [hit.id for hit in hybrid["q"]] == [hit.id for hit in dense["q"]]
    assert "p3" in dict(dense["q"])


def test_probes_that_cannot_be_searched_for(case: Any) -> None:
    index = case.create()
    index.add(collection(12, 0), case.encoder(modalities=("text",)))
    for probes, mode, text in [
        (((Item("a", " "), "query"),), "dense", "query 'q' is empty"),
        (((Item("a", image=png(1)), "document"),), "dense", "query 'q' holds image, which no encoder"),
        (((Item("a", image=png(1)), "document"),), "lexical", "query 'q' has no text"),
    ]:
        with pytest.raises(InputError, match=text):
            index.search(probing(probes), 5, mode=mode)
