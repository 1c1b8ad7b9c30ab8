"""Small runs, whose measures can be checked by hand, and random ones."""

from __future__ import annotations

import numpy as np
import pytest
from crosslens.items import Item
from crosslens.runs import Run


def make_run(hits: dict[str, str], **items: Item) -> Run:
    """Documents by rank, one letter each."""
    queries = [items.get(query, Item(query)) for query in hits]
    return Run.of(queries).ranking(
        {query: [(doc, float(-rank)) for rank, doc in enumerate(docs)] for query, docs in hits.items()}
    )


def make_random_run(seed: int, better: float, n: int = 40) -> Run:
    """One relevant document `a`, nearer to the top the larger `better` is."""
    chance = np.random.default_rng(seed)
    hits = {}
    for query in range(n):
        others = list("bcdefghij")
        place = min(9, int(chance.exponential(4 / better)))
        hits[str(query)] = "".join([*others[:place], "a", *others[place:]])
    return make_run(hits)


@pytest.fixture(scope="session")
def run_of():
    return make_run


@pytest.fixture(scope="session")
def random_run():
    return make_random_run


@pytest.fixture(scope="session")
def queries() -> dict[str, Item]:
    return {
        "1": Item("1", lang="eng", meta={"kind": "text to text"}),
        "2": Item("2", lang="zho", meta={"kind": "text to photo"}),
        "3": Item("3", lang="eng", meta={"kind": "text to photo"}),
        "4": Item("4"),
    }


@pytest.fixture(scope="session")
def grades() -> dict[str, dict[str, int]]:
    """The judgements for `good` and `poor`."""
    return {query: {"a": 1} for query in "1234"}


@pytest.fixture(scope="session")
def good(queries) -> Run:
    return make_run({"1": "ab", "2": "ab", "3": "ba", "4": "ab"}, **queries)


@pytest.fixture(scope="session")
def poor(queries) -> Run:
    return make_run({"1": "ba", "2": "bca", "3": "bcda", "4": "ab"}, **queries)


@pytest.fixture(scope="session")
def systems() -> dict[str, Run]:
    """Four systems over 40 queries: two are the same, one is better."""
    seeds = {"base": (1, 1), "same": (1, 1), "better": (2, 6), "alike": (3, 1.1)}
    return {name: make_random_run(*seed) for name, seed in seeds.items()}


@pytest.fixture(scope="session")
def judged() -> dict[str, dict[str, int]]:
    """The judgements for `systems`."""
    return {str(query): {"a": 1} for query in range(40)}


@pytest.fixture(scope="session")
def kinds() -> list[Item]:
    """The queries of `systems`, in groups of 19, 20 and 1."""
    return [Item(str(n), meta={"kind": "alone" if n == 0 else "odd" if n % 2 else "even"}) for n in range(40)]
