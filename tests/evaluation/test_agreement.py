"""Agreement measures against sklearn, scipy, published tables and pairs counted by hand."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import scipy.stats
from crosslens.errors import InputError
from crosslens.evaluation.agreement import Agreement, compare_grades, compare_systems, format_agreement, kappa, tau_ap
from crosslens.items import Item
from crosslens.runs import Hit, Run
from hypothesis import given, settings
from hypothesis import strategies as st


def qrels(human: list[int], judged: list[int]) -> tuple[dict, dict]:
    made = [{"t": {f"d{n}": grade for n, grade in enumerate(grades)}} for grades in (human, judged)]
    return made[0], made[1]


def test_kappa_of_a_table_counted_by_hand():
    # Observed agreement 35/50; by chance (25*30 + 25*20)/2500 = 0.5; so 0.2/0.5.
    assert kappa(np.array([[20, 5], [10, 15]])) == pytest.approx(0.4)
    # Squared distances: observed 5 + 10 over 50, by chance (25*20 + 25*30)/50 = 25.
    assert kappa(np.array([[20, 5], [10, 15]]), np.array([[0, 1], [1, 0]])) == pytest.approx(1 - 15 / 25)
    assert math.isnan(kappa(np.array([[7]])))
    assert math.isnan(kappa(np.zeros((0, 0))))
    assert kappa(np.array([[0, 9], [0, 0]])) == 0  # one says always 0, the other always 1


@settings(max_examples=60)
@given(st.lists(st.tuples(st.sampled_from([0, 1, 3]), st.integers(0, 3)), min_size=2, max_size=60))
def test_measures_are_those_of_sklearn(pairs):
    from sklearn import metrics

    human, judged = [h for h, _ in pairs], [j for _, j in pairs]
    found = compare_grades(*qrels(human, judged))["all"]
    assert found.pairs == len(pairs)
    assert found.exact == pytest.approx(metrics.accuracy_score(human, judged))
    assert found.mean_absolute_error == pytest.approx(metrics.mean_absolute_error(human, judged))
    if len(set(human + judged)) > 1:
        table = metrics.confusion_matrix(human, judged, labels=found.grades)
        assert table.tolist() == [list(row) for row in found.confusion]
        everything = [0, 1, 2, 3]  # sklearn weighs by position, so all of the scale must be there
        expected = metrics.cohen_kappa_score(human, judged)
        assert found.kappa == pytest.approx(expected)
        expected = metrics.cohen_kappa_score(human, judged, labels=everything, weights="quadratic")
        assert found.quadratic == pytest.approx(expected)
    for least in (1, 2):
        sides = [[grade >= least for grade in grades] for grades in (human, judged)]
        if len(set(sides[0] + sides[1])) > 1:
            assert found.binary(least) == pytest.approx(metrics.cohen_kappa_score(*sides))
        else:
            assert math.isnan(found.binary(least))


def test_agreement_counts_what_only_one_side_judged_and_goes_by_language():
    human = {"t1": {"a": 3, "b": 0, "c": 1, "junk": -1}, "t2": {"a": 0}}
    judged = {"t1": {"a": 2, "b": 0, "junk": 0, "new": 1}}
    found = compare_grades(human, judged, {"a": "zho", "b": "fas", "c": "fas", "new": "zho"})
    assert list(found) == ["all", "fas", "zho", "unknown"]
    assert found["all"] == Agreement((0, 2, 3), ((1, 0, 0), (0, 0, 0), (0, 1, 0)), lacking=2, extra=2)
    assert found["fas"] == Agreement((0,), ((1,),), lacking=1, extra=0)
    assert found["zho"] == Agreement((2, 3), ((0, 0), (1, 0)), lacking=1, extra=1)
    assert found["unknown"] == Agreement((), (), lacking=0, extra=1)
    assert list(compare_grades(human, judged)) == ["all"]
    result = json.loads(json.dumps(found["unknown"].to_json(), allow_nan=False))
    assert result["pairs"] == 0
    assert result["exact"] is result["kappa"] is result["kappa_binary"]["1"] is None
    assert found["all"].mean_absolute_error == 0.5


@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=3, max_size=12))
def test_tau_ap_is_that_of_its_definition(scores):
    human, judged = [h for h, _ in scores], [j for _, j in scores]
    if len(set(human)) < len(human) or len(set(judged)) < len(judged):
        assert math.isnan(tau_ap(human, judged))
        return
    n = len(scores)
    order = sorted(range(n), key=lambda system: -judged[system])
    total = 0.0
    for i in range(2, n + 1):  # ranks from 1, as the paper counts them
        correct = sum(human[order[above]] > human[order[i - 1]] for above in range(i - 1))
        total += correct / (i - 1)
    assert tau_ap(human, judged) == pytest.approx(2 / (n - 1) * total - 1)


def test_tau_ap_punishes_a_swap_at_the_top_more_than_one_at_the_bottom():
    truth = [5.0, 4.0, 3.0, 2.0]
    assert tau_ap(truth, truth) == 1
    assert tau_ap(truth, truth[::-1]) == -1
    top, bottom = [4.0, 5.0, 3.0, 2.0], [5.0, 4.0, 2.0, 3.0]
    kendall = [scipy.stats.kendalltau(truth, order).statistic for order in (top, bottom)]
    assert kendall == pytest.approx([2 / 3, 2 / 3])
    assert tau_ap(truth, top) == pytest.approx(2 / 3 * (0 + 1 + 1) - 1)
    assert tau_ap(truth, bottom) == pytest.approx(2 / 3 * (1 + 1 + 2 / 3) - 1)


def run(**rankings: str) -> Run:
    hits = {query: tuple(Hit(doc, -float(rank)) for rank, doc in enumerate(docs)) for query, docs in rankings.items()}
    return Run(tuple(Item(query) for query in rankings), hits)


def test_systems_are_ranked_on_the_topics_that_both_judged():
    human = {"t1": {"a": 1, "b": 0}, "t2": {"c": 1}, "only-human": {"a": 1}}
    judged = {"t1": {"a": 0, "b": 2}, "t2": {"c": 3}, "only-judge": {"z": 3}}
    runs = {
        "good": run(t1="ab", t2="c"),
        "half": run(t1="ba", t2="c"),
        "poor": run(t1="xyb", t2="x"),
        "none": run(t1="xyz"),
    }
    found = compare_systems(runs, human, judged, "P@1")
    assert found.topics == 2
    assert found.scores == {"good": (1, 0.5), "half": (0.5, 1), "poor": (0, 0), "none": (0, 0)}
    assert found.tau == pytest.approx(scipy.stats.kendalltau([1, 0.5, 0, 0], [0.5, 1, 0, 0]).statistic)
    assert math.isnan(found.tau_ap)
    assert found.to_json()["tau_ap"] is None
    del runs["none"]
    found = compare_systems(runs, human, judged, "P@1")
    assert found.tau == pytest.approx(1 / 3)
    assert found.tau_ap == pytest.approx(0)
    with pytest.raises(InputError, match="3 runs or more, not 2"):
        compare_systems({"good": runs["good"], "half": runs["half"]}, human, judged, "P@1")
    with pytest.raises(InputError, match="no topic in common"):
        compare_systems(runs, human, {"only-judge": {"z": 3}}, "P@1")


def test_tables_show_every_number():
    human, judged = qrels([3, 0, 0, 1], [2, 0, 1, 1])
    lines = list(format_agreement(compare_grades(human, judged)))
    assert lines[1].split() == ["all", "4", "0", "0", "0.500", "0.500", "0.333", "0.750", "0.500", "1.000"]
    assert [line.split() for line in lines[-4:]] == [
        ["0", "1", "1", "0", "0"],
        ["1", "0", "1", "0", "0"],
        ["2", "0", "0", "0", "0"],
        ["3", "0", "0", "1", "0"],
    ]
