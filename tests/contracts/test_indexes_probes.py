"""`Run.probes` in every kind of index: what is encoded in a query's place, and the words that full text looks for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from crosslens.encoders.base import unit
from crosslens.errors import InputError
from crosslens.items import Item, Role
from crosslens.pipeline import reciprocal_ranks
from crosslens.runs import Hit, Probe, Run, rank_hits
from stand_ins.index_cases import CASES, collection, png, same
from stand_ins.table import table

ALL = 700  # documents, so that no order of equal ones decides which are found
Probes = tuple[Probe, ...]
QUERY, OTHER = Item("q", "w99 w98", lang="eng"), Item("other", "w7 w8", lang="fas")
PROBES: Probes = (
    Probe(Item("first", "w1 w2", lang="eng"), "query"),
    Probe(Item("second", "w3 w4 w5 w6", lang="zho"), "document"),
    Probe(Item("third", "w7", lang="eng"), "document"),
)
# One leads away from its words.
WEIGHTED = tuple(probe._replace(weight=weight) for probe, weight in zip(PROBES, (1.0, 0.75, -0.5), strict=True))


def probing(probes: Probes, *queries: Item) -> Run:
    return replace(Run.of([QUERY, *queries]), probes={"q": probes})


@pytest.fixture(params=CASES, scope="module")
def case(request: pytest.FixtureRequest) -> Any:
    return CASES[request.param]


@pytest.fixture(scope="module")
def items() -> list[Item]:
    return collection(photos=0)


@pytest.fixture(scope="module")
def encoder(case: Any) -> Any:
    return case.encoder(prompted=True)  # queries are encoded as other vectors than documents


@pytest.fixture(scope="module")
def index(case: Any, items: list[Item], encoder: Any) -> Any:
    made = case.create()
    made.add(items, encoder)
    return made


@table("correct", [True, False])
@table("probes", [PROBES, PROBES[1:2], WEIGHTED])
def test_probes_are_encoded_in_their_roles_and_pooled(
    case: Any, items: list[Item], encoder: Any, index: Any, correct: bool, probes: Probes
) -> None:
    run = index.search(probing(probes, OTHER), 10, exact=True, correct=correct, merge=0)

    rows = index.passages if case.windows else index
    (space,) = index.card.spaces

    def encoded(item: Item, role: Role) -> np.ndarray:
        (vectors,) = case.vectors(encoder.encode([item], role))
        if correct and case.holds == "dense":
            vectors = rows.statistics.correct(space, vectors, [item], role, index.encoders)
        return vectors

    weighted = [probe.weight * encoded(probe.item, probe.role) for probe in probes]
    pooled = {
        "dense": lambda: unit(np.sum(weighted, axis=0)),
        "sparse": lambda: np.maximum(np.sum(weighted, axis=0), 0),
        "multi": lambda: np.concatenate(
            [each for each, probe in zip(weighted, probes, strict=True) if probe.weight > 0]
        ),
    }[case.holds]()
    scores = case.scores([pooled], [encoded(item, "document") for item in items])[0]
    best = np.sort(scores[scores > 0] if case.holds == "sparse" else scores)[::-1][:10]
    assert [hit.score for hit in run["q"]] == pytest.approx(best.tolist(), abs=3e-3)
    for hit in run["q"]:
        assert scores[int(hit.id[1:])] == pytest.approx(hit.score, abs=3e-3)
    # A query without probes beside it is searched for as it would be alone.
    same(index.search([OTHER], 10, exact=True, correct=correct, merge=0), run, [OTHER])
    assert run.queries[0] == QUERY
    assert run.probes == {"q": probes}


def test_a_query_that_is_its_own_probe_finds_the_same(index: Any) -> None:
    for mode in ("dense", "lexical", "hybrid"):
        found = index.search(probing((Probe(QUERY, "query"),)), 20, mode=mode)
        assert found.hits == index.search([QUERY], 20, mode=mode).hits


@table("mode", ["dense", "lexical", "hybrid"])
def test_groups_of_probes_are_searches_of_their_own(case: Any, index: Any, mode: Any) -> None:
    groups = (PROBES[:1], PROBES[1:])
    both = tuple(probe._replace(group=number) for number, group in enumerate(groups) for probe in group)
    run = index.search(probing(both, OTHER), 20, mode=mode)
    if not case.windows:  # which fuses passages
        apart = [rank_hits(index.search(probing(group), 50, mode=mode)["q"]) for group in groups]
        assert run["q"] == rank_hits(reciprocal_ranks(apart).items())[:20]
        deeper = index.search(probing(both), 200, mode=mode)
        assert [hit.id for hit in deeper["q"][:20]] == [hit.id for hit in run["q"]]
        assert len(deeper["q"]) == 200 or mode == "lexical" or case.holds == "sparse"
        assert deeper["q"] == rank_hits(deeper["q"])
    assert run["q"] != index.search(probing(PROBES), 20, mode=mode)["q"]
    assert run["other"] == index.search([OTHER], 20, mode=mode)["other"]


def test_full_text_searches_for_the_words_of_all_probes(items: list[Item], index: Any) -> None:
    def find(probes: Probes, **settings: Any) -> list[Hit]:
        return list(index.search(probing(probes), ALL, mode="lexical", **settings)["q"])

    def choose(hits: list[Hit], lang: str) -> list[str]:
        return [hit.id for hit in hits if items[int(hit.id[1:])].lang == lang]

    english = find(PROBES[::2])
    assert english == list(index.search([Item("q", "w1 w2\nw7", lang="eng")], ALL, mode="lexical")["q"])
    # A probe without a language has that of its query.
    assert find(tuple(probe._replace(item=replace(probe.item, lang=None)) for probe in PROBES[::2])) == english
    # Words are at home in their own language, and nowhere else.
    found = find(PROBES)
    for lang, probes in {"eng": PROBES[::2], "zho": PROBES[1:2]}.items():
        assert choose(found, lang) == choose(find(probes, where={"lang": lang}), lang) != []
    assert choose(found, "zho")[0] in [hit.id for hit in found[:4]]  # as far up as the English ones
    # A weight is how often words are repeated, and words that lead away are not searched for.
    twice = find((PROBES[0]._replace(weight=2.0), PROBES[2], PROBES[1]._replace(weight=-1.0)))
    repeated = index.search([Item("q", "w1 w2 w1 w2 w7", lang="eng")], ALL, mode="lexical")["q"]
    assert [hit.id for hit in twice] == [hit.id for hit in repeated]
    assert [hit.id for hit in twice] != [hit.id for hit in english]
    # `hybrid` searches each language for its own words.
    hybrid = index.search(probing(PROBES), ALL, mode="hybrid")
    assert hybrid.hits != index.search(probing(PROBES), ALL).hits
    assert {choose(found, lang)[0] for lang in ("eng", "zho")} < {hit.id for hit in hybrid["q"][:60]}


def test_vectors_of_stored_documents_are_not_encoded_again(
    case: Any, items: list[Item], encoder: Any, index: Any
) -> None:
    again = [Probe(item, "document", weight) for item, weight in zip(items[:3], (1.0, 0.5, 1.0), strict=True)]
    again += [Probe(items[0], "document"), Probe(QUERY, "query")]
    copies = tuple(each._replace(item=replace(each.item, meta={})) for each in again)  # which are not what is stored
    before = encoder.encoded
    found = index.search(probing(tuple(again)), 20, exact=True)["q"]
    assert encoder.encoded == before + (4 if case.windows else 0)  # whose rows are passages
    expected = index.search(probing(copies), 20, exact=True)["q"]
    assert encoder.encoded >= before + 4
    assert [hit.score for hit in found] == pytest.approx([hit.score for hit in expected], abs=3e-3)
    other = Probe(replace(items[0], text="w1"), "document")  # another text under the id of a document
    assert index.search(probing((other,)), 5)["q"][0].score == pytest.approx(
        index.search(probing((other._replace(item=Item("new", "w1", lang=items[0].lang)),)), 5)["q"][0].score, abs=1e-6
    )


def test_a_probe_may_be_its_vector_or_its_words_alone(index: Any) -> None:
    query, second, third = (Probe(QUERY, "query"), *PROBES[1:])
    both = probing((query, second._replace(only="vector"), third._replace(only="words")))
    for mode, probes in (("dense", (query, second)), ("lexical", (query, third))):
        assert index.search(both, 20, mode=mode).hits == index.search(probing(probes), 20, mode=mode).hits
    assert index.search(both, 20, mode="hybrid").hits != index.search(probing((query, second)), 20, mode="hybrid").hits


def test_hybrid_is_dense_alone_where_a_probe_holds_a_picture(case: Any) -> None:
    index = case.filled(collection(60))
    run = probing((Probe(Item("word", "w1"), "query"), Probe(Item("seen", image=png(3)), "query")))
    dense, hybrid = (index.search(run, 100, mode=mode) for mode in ("dense", "hybrid"))
    assert [hit.id for hit in hybrid["q"]] == [hit.id for hit in dense["q"]]
    assert "p3" in dict(dense["q"])


def test_probes_that_cannot_be_searched_for(case: Any) -> None:
    index = case.create()
    index.add(collection(12, 0), case.encoder(modalities=("text",)))
    for probe, mode, text in [
        (Probe(Item("a", " "), "query"), "dense", "query 'q' is empty"),
        (Probe(Item("a", image=png(1)), "document"), "dense", "query 'q' holds image, which no encoder"),
        (Probe(Item("a", image=png(1)), "document"), "lexical", "query 'q' has no text"),
        (Probe(Item("a", "w1"), "query", float("nan")), "lexical", "query 'q' has a probe of the weight nan"),
        (Probe(Item("a", "w1"), "query", 1e39), "dense", "has a probe of the weight 1e.39: give a finite one"),
        (
            Probe(Item("a", "w1"), "query", -1.0),
            "dense",
            "query 'q' has no probe of a weight above 0 that mode dense can",
        ),
        (
            Probe(Item("a", "w1"), "query", only="vector"),
            "lexical",
            "query 'q' has no probe of a weight above 0 that mode",
        ),
        (
            Probe(Item("a", "w1"), "query", only="words"),
            "hybrid",
            "query 'q' has no probe of a weight above 0 that mode",
        ),
    ]:
        with pytest.raises(InputError, match=text):
            index.search(probing((probe,)), 5, mode=mode)
