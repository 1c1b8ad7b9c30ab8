"""Paired tests, corrections for many comparisons, and bootstrap intervals, held against scipy and by hand."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import scipy.stats
from crosslens.evaluation.evaluate import evaluate
from crosslens.evaluation.significance import bonferroni, bootstrap, holm
from hypothesis import given
from hypothesis import strategies as st


def test_significance_is_scipys_with_holms_correction(systems, judged):
    table = evaluate(systems, judged, ["RR", "P@1"], baseline="base")
    values = {name: [table.values[name]["RR"][q] for q in judged] for name in systems}
    for name in ("better", "alike"):
        compared = table.comparisons[name, "RR"]
        assert compared.p == pytest.approx(scipy.stats.ttest_rel(values[name], values["base"]).pvalue)
        assert compared.difference == pytest.approx(table.mean(name, "RR") - table.mean("base", "RR"))
        assert compared.corrected >= compared.p
    same = table.comparisons["same", "RR"]
    assert (same.p, same.corrected, same.difference, same.better, same.worse) == (1, 1, 0, 0, 0)
    best = table.comparisons["better", "RR"]
    assert best.significant
    assert best.corrected == pytest.approx(3 * best.p)  # the smallest of three
    assert not table.comparisons["alike", "RR"].significant
    assert best.better > best.worse
    assert ("base", "RR") not in table.comparisons
    assert evaluate(systems, judged, ["RR"], baseline=0).baseline == "base"


def test_the_randomisation_test_agrees_and_is_repeatable_and_exact_when_small(systems, judged, run_of):
    t = evaluate(systems, judged, ["RR"], baseline="base")
    first, second = (evaluate(systems, judged, ["RR"], baseline="base", test="randomisation", seed=5) for _ in "ab")
    assert first == second
    for name in ("better", "alike"):
        assert first.comparisons[name, "RR"].p == pytest.approx(t.comparisons[name, "RR"].p, abs=0.05)
    assert first.comparisons["same", "RR"].p == 1
    # Four queries, every one better by another amount: 2 of 16 sign patterns are as extreme.
    qrels = {q: {"a": 1} for q in "1234"}
    worse = run_of({"1": "ba", "2": "bca", "3": "bcda", "4": "bcdea"})
    small = evaluate(
        {"w": worse, "b": run_of(dict.fromkeys("1234", "a"))}, qrels, ["RR"], baseline=0, test="randomisation"
    )
    assert small.comparisons["b", "RR"].p == pytest.approx(2 / 16)


@pytest.mark.parametrize("correction", ["holm", "bonferroni"])
def test_every_group_is_tested_over_its_own_queries(correction, systems, judged, kinds):
    table = evaluate(systems, judged, ["RR", "P@1"], per="kind", queries=kinds, baseline="base", correction=correction)
    assert table.groups == ("all", "alone", "even", "odd")
    plain = evaluate(systems, judged, ["RR", "P@1"], baseline="base", correction=correction)
    assert table.comparisons == plain.comparisons  # groups change nothing over all queries
    assert plain.group_comparisons == {}
    for group in ("even", "odd"):
        members = [item.id for item in kinds if item.meta["kind"] == group]
        ps = []
        for system in ("same", "better", "alike"):
            found = table.comparison(system, "RR", group)
            ours, base = ([table.values[s]["RR"][q] for q in members] for s in (system, "base"))
            if system != "same":
                assert found.p == pytest.approx(scipy.stats.ttest_rel(ours, base).pvalue)
            assert found.difference == pytest.approx(np.mean(ours) - np.mean(base))
            assert found.better == sum(o > b for o, b in zip(ours, base, strict=True))
            ps.append(found.p)
        corrected = {"holm": holm, "bonferroni": bonferroni}[correction](ps)
        assert [table.comparison(s, "RR", group).corrected for s in ("same", "better", "alike")] == corrected
        assert table.comparison("better", "RR", group).significant
    alone = table.comparison("better", "RR", "alone")
    assert math.isnan(alone.p)
    assert math.isnan(alone.corrected)
    assert not alone.significant
    assert table.comparison("base", "RR", "odd") is None
    assert table.comparison("better", "RR") is table.comparisons["better", "RR"]


def test_document_languages_are_tested_on_their_own_rankings(run_of):
    qrels = {q: {"c": 1, "p": 1} for q in "12345"}
    langs = {"c": "zho", "x": "zho", "p": "fas"}
    base = run_of({"1": "xcp", "2": "xcp", "3": "xcp", "4": "xcp", "5": "cxp"})
    other = run_of({"1": "cxp", "2": "cxp", "3": "cxp", "4": "cxp", "5": "cxp"})
    table = evaluate({"base": base, "other": other}, qrels, ["RR", "PEER@20"], per="doc_lang", doc_langs=langs,
                     baseline="base")  # fmt: skip
    chinese = table.comparison("other", "RR", "zho")
    assert (chinese.difference, chinese.better, chinese.worse) == (pytest.approx(0.4), 4, 0)
    assert chinese.p == pytest.approx(scipy.stats.ttest_1samp([0.5, 0.5, 0.5, 0.5, 0], 0).pvalue)
    persian = table.comparison("other", "RR", "fas")
    assert (persian.p, persian.difference) == (1, 0)
    assert table.comparison("other", "PEER@20", "zho") is None  # one language has no PEER
    assert "PEER@20" in table.to_json()["systems"][1]["against_baseline"]
    assert table.to_json()["systems"][1]["against_baseline"]["PEER@20"]["groups"] == {}


def test_one_query_allows_no_test(run_of):
    table = evaluate({"a": run_of({"1": "a"}), "b": run_of({"1": "ba"})}, {"1": {"a": 1}}, ["RR"], baseline="a")
    assert math.isnan(table.comparisons["b", "RR"].p)
    assert not table.comparisons["b", "RR"].significant
    result = json.loads(json.dumps(table.to_json(), allow_nan=False))
    assert result["systems"][1]["against_baseline"]["RR"]["p"] is None


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == pytest.approx([1, 1])
    assert holm([]) == []
    found = holm([math.nan, 0.02, 0.03])
    assert math.isnan(found[0])
    assert found[1:] == pytest.approx([0.04, 0.04])


@given(st.lists(st.floats(0, 1), max_size=8))
def test_holm_never_lowers_and_keeps_the_order(ps):
    corrected = holm(ps)
    assert all(p <= c <= 1 for p, c in zip(ps, corrected, strict=True))
    order = sorted(range(len(ps)), key=lambda i: ps[i])
    assert sorted(corrected) == pytest.approx([corrected[i] for i in order])


def test_bonferroni_by_hand(systems, judged):
    assert bonferroni([0.01, 0.04, 0.5]) == pytest.approx([0.03, 0.12, 1])
    assert bonferroni([]) == []
    found = bonferroni([math.nan, 0.02, 0.03])
    assert math.isnan(found[0])
    assert found[1:] == pytest.approx([0.04, 0.06])
    table = evaluate(systems, judged, ["RR"], baseline="base", correction="bonferroni")
    for compared in table.comparisons.values():
        assert compared.corrected == pytest.approx(min(1, 3 * compared.p))
    assert "Bonferroni-corrected" in str(table)
    assert table.to_json()["correction"] == "bonferroni"


def test_bootstrap_intervals_are_seeded_and_agree_with_scipys():
    values = np.random.default_rng(3).random((60, 2)) ** 2
    found = bootstrap(values, 0.9, seed=1)
    for column in range(2):
        theirs = scipy.stats.bootstrap(
            (values[:, column],), np.mean, confidence_level=0.9, method="percentile", rng=2
        ).confidence_interval
        assert found[:, column] == pytest.approx([theirs.low, theirs.high], abs=0.006)
    assert np.array_equal(found, bootstrap(values, 0.9, seed=1))
    assert not np.array_equal(found, bootstrap(values, 0.9, seed=2))
    wider = bootstrap(values, 0.99, seed=1)
    assert (wider[0] < found[0]).all()
    assert (wider[1] > found[1]).all()
    assert np.array_equal(bootstrap(np.full((5, 1), 0.25)), [[0.25], [0.25]])
    assert np.isnan(bootstrap(np.ones((1, 1)))).all()


@pytest.mark.filterwarnings("error")
def test_bootstrap_draws_the_same_queries_for_all_columns_and_leaves_out_what_is_not_defined():
    values = np.random.default_rng(3).random((30, 2))
    both = bootstrap(np.column_stack([values, values[:, 0] + 1, np.full(30, math.nan)]), seed=4)
    assert both[:, 0] == pytest.approx(bootstrap(values[:, :1], seed=4)[:, 0])
    assert both[:, 2] == pytest.approx(both[:, 0] + 1)
    assert np.isnan(both[:, 3]).all()
    assert np.isnan(bootstrap(np.full((5, 2), math.nan))).all()
    # A difference that is the same for every query has an interval of no width only where both are drawn together.
    ends = bootstrap(np.column_stack([values[:, 0], values[:, 0] - 0.25]), seed=4)
    assert ends[:, 0] - ends[:, 1] == pytest.approx([0.25, 0.25])


def test_every_mean_has_its_interval(grades, good, poor):
    runs = {"good": good, "poor": poor}
    table = evaluate(runs, grades, ["RR", "NumRel"], per="lang", interval=0.95, seed=4)
    assert table.intervals.keys() == table.means.keys()
    again = evaluate(runs, grades, ["RR", "NumRel"], per="lang", interval=0.95, seed=4)
    assert table.to_json() == again.to_json()
    for key, (low, high) in table.intervals.items():
        if table.counts[key[2]] > 1:
            assert low <= table.means[key] <= high
        else:
            assert math.isnan(low)
            assert math.isnan(high)
    assert table.intervals["good", "NumRel", "all"] == (4, 4)  # a total, not a mean
    low, high = table.intervals["good", "RR", "all"]
    assert (low, high) == (0.625, 1)  # three of four are 1, one is 1/2
    assert "0.8750 [0.625, 1.000]" in str(table)
    assert "95% interval of the mean" in str(table)
    result = json.loads(json.dumps(table.to_json(), allow_nan=False))
    assert result["level"] == 0.95
    assert result["systems"][0]["intervals"]["RR"] == {
        "all": [low, high], "eng": [0.5, 1.0], "zho": [None, None], "unknown": [None, None],
    }  # fmt: skip
    assert evaluate(runs, grades, ["RR"]).intervals is None
