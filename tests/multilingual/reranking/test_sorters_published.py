"""Each sorter as it was published: what it asks, in which order, and what that costs."""

from __future__ import annotations

import random
from math import ceil

import numpy as np
import pytest
from crosslens.multilingual.reranking.plackett import Plackett
from crosslens.multilingual.reranking.sorters import (
    AllPairs,
    Bubblesort,
    Heapsort,
    Pointwise,
    Sorter,
    Tournament,
    TourRank,
    Window,
)
from crosslens.runs import Hit
from stand_ins.sorting import Judge, drive, perfect, ranking, shuffled


def counted(sorter: Sorter, n: int = 100, k: int = 10) -> tuple[float, float]:
    """Questions and rounds for 100 hits and k 10, the mean over 20 shuffles."""
    runs = [drive(sorter, n, k, perfect(shuffled(n, seed))) for seed in range(20)]
    return sum(len(run.groups) for run in runs) / 20, sum(len(run.rounds) for run in runs) / 20


@pytest.mark.parametrize(
    ("sorter", "least", "questions", "rounds"),
    [
        (Heapsort(arity=3), 70, 86, 22),
        (Heapsort(arity=2, shown=2), 220, 280, 48),
        (Tournament(arity=4), 55, 70, 40),
        (Bubblesort(arity=3), 200, 321, 51),
        (Bubblesort(arity=1), 700, 945, 117),
        (Window(repeats=1), 9, 9, 9),
        (Window(), 9, 9, 9),
        (AllPairs(), 4950, 4950, 1),
        (TourRank(rounds=10), 130, 130, 5),
        (Plackett(), 68, 84, 23),
    ],
    ids=str,
)
def test_what_100_hits_cost(sorter, least, questions, rounds):
    asked, waited = counted(sorter)
    assert least <= asked <= questions
    assert waited <= rounds


def test_the_published_heapsort_asks_no_less():
    """A plain sequential Setwise heapsort, written down from the paper: ours overlaps its sifts, and stops sooner."""

    def plain(truth: list[float], arity: int, k: int) -> int:
        heap, questions = list(range(len(truth))), 0

        def sift(node: int) -> None:
            nonlocal questions
            while children := [c for c in range(arity * node + 1, arity * node + arity + 1) if c < len(heap)]:
                questions += 1
                best = max([node, *children], key=lambda each: truth[heap[each]])
                if best == node:
                    return
                heap[node], heap[best] = heap[best], heap[node]
                node = best

        for node in reversed(range(ceil((len(heap) - 1) / arity))):
            sift(node)
        for _ in range(k - 1):
            heap[0] = heap[-1]
            heap.pop()
            sift(0)
        return questions

    ours = theirs = 0
    for seed in range(20):
        truth = shuffled(100, seed)
        theirs += plain(truth, 3, 10)
        ours += len(drive(Heapsort(arity=3), 100, 10, perfect(truth)).groups)
    assert 0.85 * theirs < ours <= theirs


def test_a_heap_is_built_level_by_level():
    driven = drive(Heapsort(arity=3), 100, 1, perfect([float(-i) for i in range(100)]))
    assert [len(each) for each in driven.rounds] == [20, 9, 3, 1]  # 33 inner nodes, in order already
    assert driven.rounds[-1] == [("d0", "d1", "d2", "d3")]


@pytest.mark.parametrize(("n", "arity", "k"), [(20, 9, 10), (10, 3, 10), (7, 5, 6), (100, 20, 100), (3, 20, 2)])
def test_bubblesort_is_right_where_k_times_arity_is_large_against_the_list(n, arity, k):
    for seed in range(10):
        truth = shuffled(n, seed)
        assert drive(Bubblesort(arity=arity), n, k, perfect(truth)).order[:k] == ranking(truth)[:k]


def test_bubblesort_moves_only_the_best_of_a_window():
    driven = drive(Bubblesort(arity=3), 7, 1, perfect([2, 1, 3, 4, 7, 6, 5]))
    assert driven.rounds == [[("d3", "d4", "d5", "d6")], [("d0", "d1", "d2", "d4")]]
    assert driven.order == ["d4", "d0", "d1", "d2", "d3", "d5", "d6"]


def test_overlapped_passes_end_as_passes_one_after_the_other():
    def bubbled(n: int, arity: int, k: int, judge: Judge) -> list[str]:
        order = [Hit(f"d{i}", 1.0 / (i + 1)) for i in range(n)]
        for first in range(min(k, n)):
            end = n
            while end - first > 1:
                start = max(first, end - arity - 1)
                best = int(judge(tuple(order[start:end])).argmax())
                order.insert(start, order.pop(start + best))
                end = start + 1
        return [hit.id for hit in order]

    def slid(n: int, window: int, step: int, repeats: int, judge: Judge) -> list[str]:
        order = [Hit(f"d{i}", 1.0 / (i + 1)) for i in range(n)]
        for _ in range(repeats):
            end = n
            while True:
                start = max(0, end - window)
                scores = judge(tuple(order[start:end]))
                order[start:end] = [order[start + i] for i in np.argsort(-scores, kind="stable")]
                if start == 0:
                    break
                end -= step
        return [hit.id for hit in order]

    for seed in range(20):
        # A judge that contradicts itself, but answers the same when asked the same.
        def judge(group: tuple[Hit, ...], seed: int = seed) -> np.ndarray:
            return np.random.default_rng([seed, *(int(hit.id[1:]) for hit in group)]).normal(size=len(group))

        chance = random.Random(seed)
        n, arity, k = chance.randint(2, 60), chance.randint(1, 8), chance.randint(1, 30)
        assert drive(Bubblesort(arity=arity), n, k, judge).order == bubbled(n, arity, k, judge)
        window = chance.randint(2, 20)
        step, repeats = chance.randint(1, window - 1), chance.randint(1, 4)
        sorter = Window(window=window, step=step, repeats=repeats)
        assert drive(sorter, n, k, judge).order == slid(n, window, step, repeats, judge)


def test_windows_are_those_of_rankgpt():
    driven = drive(Window(repeats=1), 100, 10, perfect(shuffled(100, 0)))
    assert [[len(group) for group in each] for each in driven.rounds] == [[20]] * 9
    assert driven.groups[0] == tuple(f"d{i}" for i in range(80, 100))


def test_the_top_window_reaches_the_first_hit_whatever_the_steps():
    driven = drive(Window(repeats=1), 95, 10, perfect([float(i == 0) for i in range(95)]))
    assert driven.order[0] == "d0"
    assert driven.groups[-1] == tuple(f"d{i}" for i in range(15))


def test_a_pass_of_windows_that_changes_nothing_is_the_last():
    sorted_already = perfect([float(-i) for i in range(100)])
    assert len(drive(Window(repeats=5), 100, 10, sorted_already).groups) == 9
    assert len(drive(Window(), 100, 100, sorted_already).groups) == 9
    # The top window of a later pass is cut short at what is settled, and would be asked for.
    assert len(drive(Window(window=20, step=7), 100, 100, sorted_already).groups) == 13


@pytest.mark.parametrize("sorter", [Heapsort(), Tournament()], ids=str)
def test_what_is_not_among_the_first_k_keeps_its_order(sorter):
    truth = shuffled(50, 3)
    driven = drive(sorter, 50, 4, perfect(truth))
    top = ranking(truth)[:4]
    assert driven.order == [*top, *(f"d{i}" for i in range(50) if f"d{i}" not in top)]


def test_pointwise_keeps_the_scores_of_the_judge():
    driven = drive(Pointwise(), 4, 2, perfect([0.5, -1.0, 0.5, 3.0]))
    assert driven.order == ["d3", "d0", "d2", "d1"]
    assert driven.scores == [3.0, 0.5, 0.5, -1.0]


def test_all_pairs_count_wins_then_ties_then_differences():
    beats = {("d0", "d1"): (1, 0), ("d0", "d2"): (0, 5), ("d1", "d2"): (2, 0), ("d0", "d3"): (1, 1)}
    beats |= {("d1", "d3"): (1, 1), ("d2", "d3"): (1, 1)}
    driven = drive(AllPairs(), 4, 4, lambda group: np.array(beats[group[0].id, group[1].id], dtype=float))
    # One win, one loss and a tie each, but d3 with three ties: d2 leads by 3, d1 by 1, d3 by 0, d0 by -4.
    assert driven.order == ["d2", "d1", "d3", "d0"]


def test_a_narrow_win_counts_as_much_as_a_clear_one():
    beats = {("d0", "d1"): (9, 0), ("d0", "d2"): (0, 1), ("d1", "d2"): (0, 1)}
    driven = drive(AllPairs(), 3, 3, lambda group: np.array(beats[group[0].id, group[1].id], dtype=float))
    assert driven.order == ["d2", "d0", "d1"]


def test_tourrank_goes_through_the_published_stages():
    truth = shuffled(100, 1)
    driven = drive(TourRank(rounds=1), 100, 10, perfect(truth))
    assert [[len(group) for group in each] for each in driven.rounds] == [[20] * 5, [10] * 5, [20], [10], [5]]
    for first, group in enumerate(driven.rounds[0]):
        assert set(group) == {f"d{i}" for i in range(first, 100, 5)}
    best = set(ranking(truth)[:2])
    assert set(driven.order[:2]) == best  # two are left at the end, in first-stage order
    assert driven.rounds != drive(TourRank(rounds=1, seed=1), 100, 10, perfect(truth)).rounds


def test_tourrank_does_not_ask_for_a_group_that_goes_on_whole():
    driven = drive(TourRank(rounds=1, group=2), 3, 3, perfect([0.0, 1.0, 2.0]))
    assert [set(group) for group in driven.groups] == [{"d0", "d2"}]
    assert driven.order == ["d1", "d2", "d0"]  # a point for d1, who was alone, and for d2


def test_more_tournaments_show_more_of_a_noisy_judge():
    """Each tournament asks in another order; a judge that errs by the order is averaged out."""

    def overlap(rounds: int) -> int:
        found = 0
        for seed in range(12):
            truth = shuffled(100, seed)

            def noisy(group: tuple[Hit, ...], truth: list[float] = truth) -> np.ndarray:
                return np.array([truth[int(hit.id[1:])] - 3.0 * at for at, hit in enumerate(group)])

            found += len(set(drive(TourRank(rounds=rounds), 100, 10, noisy).order[:10]) & set(ranking(truth)[:10]))
        return found

    assert overlap(10) > overlap(1)
