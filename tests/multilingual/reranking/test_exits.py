"""Early exit: fewer candidates are judged, and the first k are those that judging all would have given."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from crosslens.errors import InputError
from crosslens.items import Item
from crosslens.multilingual.collections.base import InMemoryDocuments
from crosslens.multilingual.judges import Completion
from crosslens.multilingual.prompts import Prompt
from crosslens.multilingual.reranking.plan import parse_reranker
from crosslens.multilingual.reranking.rerank import Rerank, describe_judging
from crosslens.multilingual.reranking.sorters import Heapsort
from crosslens.runs import Hit, Run
from hypothesis import given, settings
from hypothesis import strategies as st

LIKELIHOOD = Prompt("likelihood", "{passage}", asks="likelihood", target=" {query}", chat="never")
GRADES = Prompt(
    "grades", "{query} {passage}", asks="generate", labels=("0", "1", "2"), values=(0, 1, 2), chat="never"
)  # fmt: skip


class Known:
    """What it says of each document is in the document's text."""

    name = revision = fingerprint = "known"
    modalities, can = frozenset({"text"}), frozenset({"likelihood", "generate", "score"})
    chats, appetite = False, 1000

    def __init__(self) -> None:
        self.usage: Counter[str] = Counter()

    def read(self, prompts):
        self.usage["calls"] += len(prompts)
        return [prompt.plain().split()[-1] for prompt in prompts]

    def likelihood(self, prompts, targets):
        return np.array([float(each) for each in self.read(prompts)])

    def generate(self, prompts, **sampling):
        return [Completion(each, 1) for each in self.read(prompts)]


def first_stage(base, said, queries=1):
    """Documents with falling first-stage scores `base`, of which the judge says `said`."""
    items = {f"d{n}": Item(f"d{n}", f"{value}") for n, value in enumerate(said)}
    hits = tuple(Hit(f"d{n}", score) for n, score in enumerate(base))
    names = [f"q{n}" for n in range(queries)]
    return Run(tuple(Item(name, "x") for name in names), dict.fromkeys(names, hits), docs=InMemoryDocuments(items))


def both(run, **how):
    """The ranking of all candidates, the one with the exit, and how many that one asked for."""
    judge = Known()
    whole = Rerank(Known(), depth=200, **how)(run)
    early = Rerank(judge, depth=200, exit=True, **how)(run)
    assert early.manifest.total("saved_calls") == sum(map(len, run.hits.values())) - judge.usage["calls"]
    return whole, early, judge.usage["calls"]


@settings(max_examples=150)
@given(
    st.lists(st.tuples(st.floats(-20, 0, width=32), st.floats(0, 3, width=16)), min_size=1, max_size=60),
    st.floats(0, 0.99),
    st.integers(1, 12),
    st.sampled_from([0.01, 1.0, 10.0]),
)
def test_the_first_k_are_those_of_judging_all(drawn, alpha, k, gap):
    said = [value for value, _ in drawn]
    base = (-gap * np.cumsum([step + 0.001 for _, step in drawn])).tolist()
    whole, early, _ = both(first_stage(base, said), prompt=LIKELIHOOD, alpha=alpha, fuse="linear", k=k)
    assert early["q0"][:k] == whole["q0"][:k]
    assert sorted(hit.id for hit in early["q0"]) == sorted(hit.id for hit in whole["q0"])


@settings(max_examples=50)
@given(st.lists(st.integers(0, 2), min_size=1, max_size=40), st.integers(1, 8))
def test_grades_settle_it_for_the_judge_alone(grades, k):
    whole, early, calls = both(first_stage(-np.arange(len(grades)), grades), prompt=GRADES, k=k)
    assert early["q0"][:k] == whole["q0"][:k]
    best = np.flatnonzero(np.array(grades) == 2)
    if len(best) >= k:
        assert calls == min(len(grades), k * (1 + int(best[k - 1]) // k))


def test_it_saves_calls_and_says_so():
    said = -np.random.default_rng(0).uniform(1, 4, 100)
    run = first_stage((20 * 0.97 ** np.arange(100)).tolist(), said, queries=3)
    whole, early, calls = both(run, prompt=LIKELIHOOD, alpha=0.5, fuse="linear", k=10)
    assert calls <= 3 * 40
    assert early["q2"][:10] == whole["q2"][:10]
    assert f"{300 - calls} candidates were not judged: they could not enter the first results any more" in (
        describe_judging(early.manifest)
    )
    assert not whole.manifest.total("saved_calls")


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"alpha": 0.5}, "not available with fuse=zscore: a z-score depends on all candidates; take fuse=linear"),
        ({"alpha": 0.5, "fuse": "rrf"}, "not available with fuse=rrf: ranks depend on all candidates"),
        ({"alpha": 1.0}, "by the judge alone the next candidate may always be the best, with the prompt likelihood"),
        (
            {"alpha": 0.5, "fuse": "linear", "prompt": Prompt("score", "{query}{seam}{passage}", asks="score")},
            "the scores of the prompt score have no highest value",
        ),
        (
            {
                "sort": Heapsort(arity=2),
                "prompt": replace(GRADES, template="{query}{passages}", each="{label}{passage}"),
            },
            "exit=true is for pointwise sorting, and not for heapsort",
        ),
    ],
)
def test_where_there_is_no_bound_it_is_refused(how, message):
    with pytest.raises(InputError, match=message) as told:
        Rerank(Known(), **{"prompt": LIKELIHOOD, "exit": True, **how})
    assert "\n" not in str(told.value)


def test_it_is_an_option_of_a_spec_and_off_is_as_it_was():
    assert parse_reranker("likelihood@offline:gemma?alpha=0.3&fuse=linear&exit=true").exit
    assert not parse_reranker("likelihood@offline:gemma?alpha=0.3&fuse=linear").exit
    with pytest.raises(InputError, match="not available with fuse=zscore"):
        parse_reranker("likelihood@offline:gemma?alpha=0.3&exit=true")
    plain, same, early = (
        Rerank(Known(), LIKELIHOOD, alpha=0.5, fuse="linear", **how) for how in ({}, {"exit": False}, {"exit": True})
    )
    assert plain.fingerprint == same.fingerprint != early.fingerprint
