"""What `plackett` is for: judges that err, that like a place, that say more or less of what they think."""

from __future__ import annotations

from contextlib import suppress

import numpy as np
import pytest
from crosslens.multilingual.reranking.plackett import Plackett, Seats, Strengths
from crosslens.multilingual.reranking.sorters import Bubblesort, Heapsort, Sorter, Tournament
from crosslens.runs import Hit
from hypothesis import given, settings
from hypothesis import strategies as st
from stand_ins.sorting import Driven, drive, noisy, perfect, ranking, shuffled


def graded(seed: int, n: int) -> np.ndarray:
    """Grades in the order of a first stage that is right in part."""
    chance = np.random.default_rng(seed)
    grades = np.zeros(n)
    grades[: n // 5] = chance.integers(1, 4, n // 5)
    return grades[np.argsort(-grades + 1.5 * chance.normal(size=n))]


def quality(driven: Driven, grades: np.ndarray) -> float:
    """nDCG@10."""
    discounts = 1 / np.log2(np.arange(10) + 2)
    gains = 2**grades - 1
    return float(
        discounts @ gains[[int(each[1:]) for each in driven.order[:10]]] / (discounts @ np.sort(gains)[:-11:-1])
    )


@pytest.mark.parametrize("names", [False, True], ids=["says probabilities", "names the best"])
@pytest.mark.parametrize("preference", [0.0, 1.5])
@pytest.mark.parametrize("other", [Heapsort(), Bubblesort(), Tournament()], ids=lambda sorter: type(sorter).__name__)
def test_it_beats_a_sorter_that_asks_as_often_where_the_judge_errs(other, preference, names):
    gains = []
    for seed in range(12):
        grades = graded(seed, 30)
        judges = [noisy(grades, seed, temperature=0.7, preference=preference, names=names) for _ in range(2)]
        theirs = drive(other, 30, 10, judges[0])
        ours = drive(Plackett(calls=len(theirs.groups)), 30, 10, judges[1])
        assert len(ours.groups) <= len(theirs.groups)
        assert len(ours.rounds) < len(theirs.rounds)
        gains.append(quality(ours, grades) - quality(theirs, grades))
    assert np.mean(gains) > 0.015, gains


def test_more_calls_make_it_better_and_the_default_forgives_too():
    found: dict[Sorter, list[float]] = {sorter: [] for sorter in (Plackett(calls=8), Plackett(), Plackett(calls=80))}
    for seed in range(15):
        grades = graded(seed, 30)
        for sorter, values in found.items():
            judge = noisy(grades, seed, temperature=0.7, preference=1.5, names=False)
            values.append(quality(drive(sorter, 30, 10, judge), grades))
    few, default, many = map(np.mean, found.values())
    assert few + 0.02 < default < many


@settings(max_examples=15)
@given(st.integers(0, 2**32), st.integers(-20, 20))
def test_the_scale_of_the_answers_does_not_matter(seed, power):
    truth = shuffled(24, seed)
    plain, scaled = perfect(truth), perfect([value * 2.0**power for value in truth])
    assert drive(Plackett(calls=20), 24, 5, plain).order == drive(Plackett(calls=20), 24, 5, scaled).order


def test_a_preference_for_a_place_is_found_and_taken_out():
    truth = np.linspace(1, -1, 12)
    strengths, seats = Strengths(np.zeros(12), 4, 0.3), Seats(12, 4)
    chance = np.random.default_rng(0)
    answers = {}
    for _ in range(60):
        for group in seats.arrange([tuple(chance.permutation(12)[:4].tolist())]):
            seen = truth[list(group)] + [0, 0, 0, 5]
            answers[group] = seen - np.logaddexp.reduce(seen)
    strengths.fit(answers)
    assert strengths.order == list(range(12))
    assert strengths.preferences.argmax() == 3


def test_hits_take_turns_on_the_places():
    seats = Seats(4, 4)
    shown = [seats.arrange([(0, 1, 2, 3)]) for _ in range(5)]
    assert sorted(group for (group, *_) in shown[:4]) == [(0, 1, 2, 3), (1, 2, 3, 0), (2, 3, 0, 1), (3, 0, 1, 2)]
    assert shown[4] == []


def test_what_the_first_stage_says_counts_by_the_prior():
    judge = perfect(range(20))  # the first stage is upside down
    trusting, doubting = (drive(Plackett(calls=10, prior=prior), 20, 20, judge).order for prior in (100.0, 0.01))
    assert trusting[0] == "d0"
    assert doubting[0] == "d19"


@pytest.mark.parametrize("seed", range(6))
def test_rounding_does_not_choose_what_is_asked(seed):
    """A run that was written and read again has the scores of the first in fewer digits."""
    scores = np.sort(np.random.default_rng(seed).normal(size=20))[::-1]

    def list_sets(digits: int) -> list[tuple[str, ...]]:
        sorting = Plackett(calls=9)([Hit(f"d{n}", float(f"{score:.{digits}g}")) for n, score in enumerate(scores)], 10)
        judge = noisy(shuffled(20, seed), seed, temperature=1, preference=0, names=False)
        asked, answer = [], None
        with suppress(StopIteration):
            while True:
                groups = sorting.send(answer).groups
                asked += [tuple(hit.id for hit in group) for group in groups]
                answer = [judge(group) for group in groups]
        return asked

    assert all(list_sets(digits) == list_sets(17) for digits in (9, 10, 11, 12))


def in_any_order(truth: np.ndarray, seed: int):
    """A judge that errs, but says of a set the same in whatever order it is shown."""

    def judge(group: tuple[Hit, ...]) -> np.ndarray:
        shown = [int(hit.id[1:]) for hit in group]
        noise = np.random.default_rng([seed, *sorted(shown)]).gumbel(size=len(truth))
        seen = truth[shown] + noise[shown]
        return seen - np.logaddexp.reduce(seen)

    return judge


@pytest.mark.parametrize(("arity", "n", "calls", "most"), [(2, 12, 50, 50), (3, 7, 40, 35), (4, 4, 3, 1)])
def test_where_the_order_within_a_set_does_not_matter_the_budget_goes_to_other_sets(arity, n, calls, most):
    """`most`: there are no more sets."""
    sorter = Plackett(arity=arity, calls=calls)
    judge = in_any_order(np.array(shuffled(n, 0)) / 3, 0)
    turned, never = (drive(each, n, 10, judge).groups for each in (sorter, sorter.unordered))
    assert len(set(map(frozenset, turned))) < len(turned)
    assert len(set(map(frozenset, never))) == len(never) == most


@settings(max_examples=25)
@given(st.integers(2, 5), st.integers(1, 25), st.integers(1, 12), st.integers(0, 2**32), st.booleans())
def test_it_is_exact_without_asking_a_set_twice(arity, n, k, seed, names):
    truth = shuffled(n, seed)
    known = perfect(truth)
    judge = (lambda group: np.eye(len(group))[int(known(group).argmax())]) if names else known
    driven = drive(Plackett(arity=arity).unordered, n, k, judge)
    assert driven.order[:k] == ranking(truth)[:k]
    assert len(set(map(frozenset, driven.groups))) == len(driven.groups)


def test_where_no_place_can_be_preferred_none_is_fitted():
    strengths = Strengths(np.zeros(4), 2, 0.3, ordered=False)
    strengths.fit({(0, 1): np.array([1.0, 0.0]), (2, 3): np.array([2.0, 0.0])})
    assert strengths.order == [2, 0, 1, 3]
    assert not strengths.preferences.any()
