"""Rules for hard negatives: the margin's limit, the chances of each way of sampling, and slots of languages."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from crosslens.errors import InputError
from crosslens.training.data.negatives import Candidate, Margin, Picking, find_anchors, load_sampling
from stand_ins.table import table


@table(
    ("text", "positive", "limit"),
    [
        ("0.95", 2.0, 1.9),
        ("0.95", -2.0, -2.1),
        ("1", 0.7, 0.7),
        ("0", 0.7, 0.0),
        ("-0.05", 0.7, 0.65),
        ("-2", -1.0, -3.0),
    ],
)
def test_a_margin_limits_scores_of_either_sign(text, positive, limit):
    assert Margin.parse(text).limit(positive) == pytest.approx(limit)


@pytest.mark.parametrize("text", ["1.5", "nan", "-inf", "much"])
def test_what_is_no_margin_is_refused(text):
    with pytest.raises(InputError, match="a margin is a"):
        Margin.parse(text)
    assert Margin.parse("none") is None


def test_simans_draws_with_the_papers_probabilities():
    """Of one drawn from five, in units of the standard deviation of scores and the positive's."""
    scores, positive, a, b = np.array([3.0, 2.0, 1.0, 0.0, -1.0]), 1.5, 0.8, -0.3
    units = (np.array([*scores, positive]) - np.mean([*scores, positive])) / np.std([*scores, positive])
    wanted = np.exp(-a * (units[:-1] - units[-1] - b) ** 2)
    random, sampling = np.random.default_rng(1), load_sampling(f"simans?a={a}&b={b}")
    drawn = Counter(int(sampling.rate(scores, positive, random.random(5)).argmax()) for _ in range(6000))
    assert np.array([drawn[n] for n in range(5)]) / 6000 == pytest.approx(wanted / wanted.sum(), abs=0.02)
    unfound = sampling.rate(scores, -np.inf, np.full(5, 0.5))
    assert np.isfinite(unfound).all()
    assert unfound.argmax() > 2


def test_top_goes_by_rank_and_uniform_by_chance_alone():
    scores, noise = np.array([3.0, 2.0, 1.0]), np.array([0.1, 0.9, 0.5])
    assert [*np.argsort(-load_sampling("top").rate(scores, 5.0, noise))] == [0, 1, 2]
    assert [*np.argsort(-load_sampling("uniform").rate(scores, 5.0, noise))] == [1, 2, 0]
    with pytest.raises(InputError, match="unknown way of sampling negatives 'topp'; did you mean top"):
        load_sampling("topp")
    with pytest.raises(InputError, match="simans: a is a number from 0 on"):
        load_sampling("simans?a=-1")


def test_slots_take_their_language_first_and_what_is_refused_is_replaced():
    ordered = [Candidate(name, 1.0, name[:3]) for name in ("eng1", "eng2", "rus1", "zho1", "eng3", "rus2")]
    picking = Picking(ordered, ["rus", "rus", "eng", None])
    assert [each.id for each in picking.propose()] == ["rus1", "rus2", "eng1", "eng2"]
    picking.settle([False, True, True, True])
    assert [each.id for each in picking.propose()] == ["zho1"]  # there is no Russian one left
    picking.settle([True])
    assert picking.propose() == []
    assert [each.id for each in picking.picked] == ["rus2", "eng1", "eng2", "zho1"]
    assert picking.elsewhere == 1


def test_slots_stay_open_where_candidates_run_out():
    picking = Picking([Candidate("a", 1.0)], [None, None])
    picking.propose()
    picking.settle([False])
    assert (picking.propose(), picking.picked) == ([], [])


def test_a_language_is_held_against_its_own_best_positive():
    assert find_anchors([("eng", 0.9), ("rus", 0.6), ("rus", 0.7)]) == {"eng": 0.9, "rus": 0.7, "": 0.9}
