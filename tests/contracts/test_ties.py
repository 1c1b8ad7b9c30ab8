"""Documents that tie at the cutoff: what is found depends neither on the order they were added in nor on k."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
from crosslens.encoders.base import EncoderSpec
from crosslens.items import Item
from hypothesis import example, given, settings
from hypothesis import strategies as st
from stand_ins.index_cases import CASES, Hashing, png

TEXTS = ["red cat", "a red cat sleeps", "the cat is red", "dogs bark at the cat", "blue bird", "red red cat cat"]
LANGS = ("eng", "swa", None)
QUERIES = [Item("words", "red cat", lang="eng"), Item("other", "a blue cat", lang="swa")]
DOCS = [Item(f"d{n}", TEXTS[n % 6], lang=LANGS[n // 6 % 3], meta={"half": n % 2}) for n in range(108)]
KS = (1, 10, 19, 50)
# Searches: mode, how often each query is asked, filter. Full text is the same in each kind of index.
ASKED: list[tuple[str, int, dict[str, Any] | None]] = [
    ("dense", 1, None),
    ("dense", 3, None),
    ("dense", 1, {"half": 0}),
    ("dense", 3, {"lang": "eng"}),
    ("lexical", 1, None),
    ("lexical", 1, {"half": 0}),
    ("hybrid", 1, None),
    ("hybrid", 1, {"lang": "eng"}),
]


def fill(name: str, items: list[Item], ann: str = "") -> Any:
    index = CASES[name].create()
    index.add(items, CASES[name].encoder(), window=31)
    if ann:
        index.build(ann)
    return index


@cache
def rank_all(name: str) -> list[dict[str, list[str]]]:
    """What each search finds of all documents, added in the order of their ids."""
    return list_found(fill(name, DOCS), len(DOCS))


def list_found(index: Any, k: int) -> list[dict[str, list[str]]]:
    found = []
    for mode, copies, where in ASKED:
        asked = [Item(f"{query.id}{n}", query.text, lang=query.lang) for query in QUERIES for n in range(copies)]
        run = index.search(asked, k, mode=mode, where=where)
        found.append({query.id: [hit.id for hit in hits] for query, hits in run})
    return found


@pytest.mark.parametrize("name", CASES)
@settings(max_examples=1)
@given(order=st.permutations(range(len(DOCS))), k=st.sampled_from(KS))
@example(order=list(reversed(range(len(DOCS)))), k=10)
def test_the_first_k_are_those_of_all_in_whatever_order_they_were_added(name: str, order: list[int], k: int) -> None:
    found = list_found(fill(name, [DOCS[place] for place in order]), k)
    for asked, few, every in zip(ASKED, found, rank_all(name), strict=True):
        assert few == {query: ids[:k] for query, ids in every.items()}, asked


@pytest.mark.parametrize("name", CASES)
def test_equal_documents_have_equal_scores_and_stand_by_their_ids(name: str) -> None:
    text = {item.id: item.text for item in DOCS}
    index = fill(name, [DOCS[place] for place in np.random.default_rng(0).permutation(len(DOCS))])
    for copies in (1, 5):
        asked = [Item(f"q{n}", "red cat", lang="eng") for n in range(copies)]
        for _, hits in index.search(asked, len(DOCS), correct=False):
            scores: dict[str, set[float]] = {}
            for hit in hits:
                scores.setdefault(str(text[hit.id]), set()).add(hit.score)
            assert {len(each) for each in scores.values()} == {1}
            assert list(hits) == sorted(hits, key=lambda hit: (-hit.score, hit.id))


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.holds == "dense" and not case.windows])
def test_candidates_of_several_spaces_and_modalities_tie_alike_in_each_order(name: str) -> None:
    items = [*DOCS, *(Item(f"p{n}", image=png(n % 3)) for n in range(60))]
    found = []
    for seed in range(3):
        index = CASES[name].create()
        index.add(
            [items[place] for place in np.random.default_rng(seed).permutation(len(items))],
            [Hashing(name="fake:both"), Hashing(name="fake:texts", modalities=("text",))],
        )
        asked = [*QUERIES, Item("photo", image=png(1)), Item("both", "red cat", png(2))]
        runs = [index.search(asked, k, mode=mode) for k in (10, 40) for mode in ("dense", "hybrid")]
        found.append([[hit.id for hit in hits] for run in runs for _, hits in run])
        for short, long in zip(runs[:2], runs[2:], strict=True):
            assert all(long[query.id][:10] == short[query.id] for query in asked)
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize(("name", "ann"), [("lance", "IVF_FLAT"), ("lance", "IVF_HNSW_SQ"), ("late", "IVF_FLAT")])
def test_approximate_search_orders_ties_by_id(name: str, ann: str) -> None:
    size = 120 if name == "late" else 300  # the least that are clustered: a document there is many vectors
    order = np.random.default_rng(0).permutation(size)
    index = fill(name, [Item(f"d{n}", TEXTS[n % 6], lang="eng") for n in order], ann)
    exact = index.search(QUERIES, 10, exact=True)
    few, every = (index.search(QUERIES, k) for k in (10, size))
    for query in QUERIES:
        ids = [hit.id for hit in few[query.id]]
        assert ids == [hit.id for hit in every[query.id]][:10] == [hit.id for hit in exact[query.id]]


@pytest.mark.parametrize("factory", ["Flat", "IVF4,Flat", "SQ8"])
def test_faiss_orders_ties_by_id(factory: str) -> None:
    pytest.importorskip("faiss")
    from crosslens.indexes.registry import create_index

    items = [Item(f"d{n}", TEXTS[n % 6], lang="eng") for n in range(300)]
    asked = [Item(f"{query.id}{n}", query.text, lang=query.lang) for query in QUERIES for n in range(12)]
    found = []
    for seed in range(2):
        index = create_index("memory://", kind=f"faiss:{factory}")
        index.add([items[place] for place in np.random.default_rng(seed).permutation(300)], Hashing())
        index.build()
        runs = [index.search(asked, k) for k in (10, 300)]
        assert all(runs[1][query.id][:10] == runs[0][query.id] for query in asked)
        found.append([[hit.id for hit in hits] for _, hits in runs[0]])
    assert found[0] == found[1]


@pytest.mark.parametrize("dim", [3, 24, 100])
def test_vectors_made_elsewhere_tie_at_any_place(dim: int) -> None:
    """Many equal rows, in blocks and groups of which they fill no whole number."""
    random = np.random.default_rng(dim)
    kinds = random.standard_normal((7, dim)).astype(np.float16).astype(np.float32)
    spec = EncoderSpec("fake:given", "1", ("text",), dim, metric="dot", normalized=False)
    items = [Item(f"d{n}", "text") for n in range(1201)]
    of = random.integers(0, 7, len(items))
    queries = [Item(f"q{n}", "text") for n in range(6)]
    asked = random.standard_normal((6, dim)).astype(np.float32)

    class Given:
        def __init__(self) -> None:
            self.spec = spec

        def encode(self, items: Any, role: str) -> Any:
            from crosslens.items import Dense

            for item in items:
                row = int(item.id[1:])
                yield Dense([item.id], (asked[row] if role == "query" else kinds[of[row]])[None])

    for name in ("lance", "flat", "faiss"):
        index = CASES[name].create(lexical=False)
        index.add([items[place] for place in random.permutation(len(items))], Given())
        index.build()
        for part in (queries, queries[:1]):
            every = index.search(part, len(items))
            for k in (5, 200, 700):
                few = index.search(part, k)
                for query in part:
                    best = kinds @ asked[int(query.id[1:])]
                    order = sorted(items, key=lambda item: (-best[of[int(item.id[1:])]], item.id))
                    ids = [hit.id for hit in few[query.id]]
                    assert ids == [hit.id for hit in every[query.id]][:k] == [item.id for item in order[:k]]
