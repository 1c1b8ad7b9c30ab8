"""Sorters with judges that know the truth, and with judges that know nothing.

A new sorter costs one line of `SUITE`: how its settings are drawn, and the bounds that its docstring states.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import ceil, log2

import numpy as np
import pytest
from crosslens.errors import InputError
from crosslens.multilingual.reranking.sorters import (
    SORTERS,
    AllPairs,
    Ask,
    Bubblesort,
    Full,
    Heapsort,
    Pointwise,
    Sorter,
    Tournament,
    TourRank,
    Window,
)
from crosslens.pipeline import hash_description
from crosslens.runs import Hit
from crosslens.specs import Spec, bound
from hypothesis import given, settings
from hypothesis import strategies as st

Judge = Callable[[tuple[Hit, ...]], np.ndarray]


@dataclass
class Driven:
    """What came of a sorter, and what it asked: one list of groups a round."""

    order: list[str] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    rounds: list[list[tuple[str, ...]]] = field(default_factory=list)

    @property
    def groups(self) -> list[tuple[str, ...]]:
        return [group for each in self.rounds for group in each]


def drive(sorter: Sorter, n: int, k: int, judge: Judge) -> Driven:
    """The reference driver: one query, one round after the other, and the protocol checked on the way."""
    hits = [Hit(f"d{i}", 1.0 / (i + 1)) for i in range(n)]
    generator, answer, driven = sorter(hits, k), None, Driven()
    while True:
        try:
            ask = generator.send(answer)  # type: ignore[arg-type]
        except StopIteration as stop:
            driven.order = [hit.id for hit in stop.value]
            driven.scores = [hit.score for hit in stop.value]
            break
        assert isinstance(ask, Ask)
        assert ask.groups, "an empty round"
        for group in ask.groups:
            assert len(set(group)) == len(group) > 0
            assert set(group) <= set(hits)
        driven.rounds.append([tuple(hit.id for hit in group) for group in ask.groups])
        answer = [judge(group) for group in ask.groups]
    assert sorted(driven.order) == sorted(hit.id for hit in hits), "not a permutation"
    asked = driven.groups
    assert len(set(asked)) == len(asked), "the same group was asked twice"
    if sorter.most is not None:
        assert max(map(len, asked), default=0) <= sorter.most
    if not isinstance(sorter, Pointwise):
        assert min(map(len, asked), default=2) >= 2, "asked with nothing to decide"
        assert driven.scores == [float(n - rank) for rank in range(n)]
    return driven


def height(n: int, arity: int) -> int:
    last, levels = n - 1, 0
    while last > 0:
        last, levels = (last - 1) // arity, levels + 1
    return levels


def levels(n: int, arity: int) -> int:
    count, left = 0, n
    while left > 1:
        left, count = ceil(left / arity), count + 1
    return count


def cost(sorter: Heapsort | Bubblesort) -> int:
    """Questions to find the best of `arity + 1` when at most `most` are shown."""
    return ceil(sorter.arity / (sorter.most - 1))


def passes(sorter: Window, k: int) -> int:
    return sorter.repeats or ceil(k / (sorter.window - sorter.step))


def slides(sorter: Window, n: int) -> int:
    return 1 + ceil(max(0, n - sorter.window) / sorter.step)


@dataclass(frozen=True)
class Case:
    """`bounds` maps a sorter, n >= 2 and k <= n to the most questions and the most rounds it may take.

    `names` is true where a judge must only name the best of a group.
    """

    drawn: st.SearchStrategy[Sorter]
    bounds: Callable[..., tuple[float, float]]
    names: bool = False


ARITY = st.integers(2, 20)
SHOWN = st.none() | st.integers(2, 25)
WINDOWS = st.integers(2, 40).flatmap(lambda w: st.tuples(st.just(w), st.integers(1, w - 1)))
SLIDING = st.builds(
    lambda pair, r: Window(window=pair[0], step=pair[1], repeats=r), WINDOWS, st.integers(0, 4)
)
SUITE = {
    "pointwise": Case(st.builds(Pointwise), lambda s, n, k: (n, 1)),
    "allpairs": Case(st.builds(AllPairs), lambda s, n, k: (n * (n - 1) / 2, 1)),
    "heapsort": Case(
        st.builds(Heapsort, arity=ARITY, shown=SHOWN),
        lambda s, n, k: (
            cost(s) * ((n - 1) / (s.arity - 1) + k * height(n, s.arity)),
            cost(s) * (height(n, s.arity) + 2 * (k - 1)),
        ),
        names=True,
    ),
    "bubblesort": Case(
        st.builds(Bubblesort, arity=st.integers(1, 20), shown=SHOWN),
        lambda s, n, k: (
            sum(cost(s) * ceil((n - 1 - p) / s.arity) for p in range(k)),
            cost(s) * (ceil((n - 1) / s.arity) + 2 * (k - 1)),
        ),
        names=True,
    ),
    "window": Case(
        SLIDING,
        lambda s, n, k: (
            passes(s, k) * slides(s, n),
            slides(s, n) + ceil(s.window / s.step) * (passes(s, k) - 1),
        ),
    ),
    "full": Case(st.builds(Full), lambda s, n, k: (1, 1)),
    "tournament": Case(
        st.builds(Tournament, arity=ARITY),
        lambda s, n, k: ((n - 1) / (s.arity - 1) + k * levels(n, s.arity), k * levels(n, s.arity)),
        names=True,
    ),
    "tourrank": Case(
        st.builds(
            TourRank,
            rounds=st.integers(1, 5),
            group=st.integers(2, 30),
            keep=st.floats(0.01, 0.5),
            seed=st.integers(0, 9),
        ),
        lambda s, n, k: (s.rounds * (4 * n / s.group + 2 * ceil(log2(n))), ceil(log2(n))),
    ),
}
EXACT = [name for name, kind in SORTERS.items() if kind is not TourRank]
NAMING = [name for name, case in SUITE.items() if case.names]


def within_bounds(name: str, sorter: Sorter, n: int, k: int, driven: Driven) -> None:
    if n < 2:
        assert len(driven.groups) == (n if name == "pointwise" else 0)
        return
    questions, rounds = SUITE[name].bounds(sorter, n, min(k, n))
    assert len(driven.groups) <= questions
    assert len(driven.rounds) <= rounds


def certain(sorter: Sorter, k: int) -> int:
    """How many of the first must be right: all k, but no more than the passes asked for can settle."""
    if isinstance(sorter, Window) and sorter.repeats:
        return min(k, sorter.repeats * (sorter.window - sorter.step))
    assert sorter.exact
    return k


def perfect(truth: Sequence[float]) -> Judge:
    return lambda group: np.array([truth[int(hit.id[1:])] for hit in group])


def naming(truth: Sequence[float]) -> Judge:
    """Says only which hit is best, as a model that answers with one label does."""
    tell = perfect(truth)
    return lambda group: np.eye(len(group))[int(tell(group).argmax())]


def ranking(truth: Sequence[float]) -> list[str]:
    return [f"d{i}" for i in sorted(range(len(truth)), key=lambda i: -truth[i])]


def shuffled(n: int, seed: int) -> list[float]:
    truth = [float(i) for i in range(n)]
    random.Random(seed).shuffle(truth)
    return truth


def drawn_by(draw: Callable[[np.random.Generator, int], np.ndarray]) -> Callable[[int], Judge]:
    """Other scores each time, whoever is shown."""

    def judge(seed: int) -> Judge:
        chance = np.random.default_rng(seed)
        return lambda group: draw(chance, len(group))

    return judge


def cyclic(seed: int) -> Judge:
    """Everyone beats the one before, round and round."""
    size = seed % 7 + 3

    def wins(one: Hit, group: tuple[Hit, ...]) -> float:
        return float(sum((int(one.id[1:]) - int(other.id[1:])) % size == 1 for other in group))

    return lambda group: np.array([wins(one, group) for one in group])


NOISE: dict[str, Callable[[int], Judge]] = {
    "random": drawn_by(lambda chance, n: chance.normal(size=n)),
    "coarse": drawn_by(lambda chance, n: chance.integers(0, 2, n) * 1.0),
    "infinite": drawn_by(lambda chance, n: chance.choice([-np.inf, 0.0, np.inf], n)),
    "not a number": drawn_by(lambda chance, n: chance.choice([np.nan, 0.0, 1.0], n)),
    "cyclic": cyclic,
    "constant": lambda seed: lambda group: np.full(len(group), float(seed)),
    "last shown": lambda seed: lambda group: np.arange(len(group)) * 1.0,
    "first shown": lambda seed: lambda group: np.arange(len(group)) * -1.0,
    "upside down": lambda seed: perfect(range(100)),
}


def test_every_sorter_is_in_the_suite():
    assert set(SUITE) == set(SORTERS)


@pytest.mark.parametrize("name", EXACT)
@settings(max_examples=100, deadline=None)
@given(st.data(), st.integers(0, 100), st.integers(1, 200), st.integers(0, 2**32))
def test_a_perfect_judge_gives_the_true_top_k_within_the_bounds(name, data, n, k, seed):
    sorter, truth = data.draw(SUITE[name].drawn), shuffled(n, seed)
    driven = drive(sorter, n, k, perfect(truth))
    top = certain(sorter, k)
    assert driven.order[:top] == ranking(truth)[:top]
    within_bounds(name, sorter, n, k, driven)


@pytest.mark.parametrize("name", EXACT)
@settings(max_examples=30, deadline=None)
@given(st.data(), st.lists(st.integers(0, 3), max_size=60), st.integers(1, 80))
def test_hits_that_are_as_good_keep_their_order(name, data, grades, k):
    sorter = data.draw(SUITE[name].drawn)
    driven = drive(sorter, len(grades), k, perfect(grades))
    top = certain(sorter, k)
    assert driven.order[:top] == ranking(grades)[:top]


@pytest.mark.parametrize("name", NAMING)
@settings(max_examples=30, deadline=None)
@given(st.data(), st.integers(0, 100), st.integers(1, 120), st.integers(0, 2**32))
def test_a_judge_that_only_names_the_best_is_enough(name, data, n, k, seed):
    sorter, truth = data.draw(SUITE[name].drawn), shuffled(n, seed)
    driven = drive(sorter, n, k, naming(truth))
    assert driven.order[:k] == ranking(truth)[:k]
    within_bounds(name, sorter, n, k, driven)


@pytest.mark.parametrize("name", SUITE)
@settings(max_examples=100, deadline=None)
@given(
    st.data(), st.integers(0, 100), st.integers(1, 200), st.sampled_from(list(NOISE)), st.integers(0, 2**32)
)
def test_any_answers_give_a_permutation_within_the_bounds(name, data, n, k, kind, seed):
    sorter = data.draw(SUITE[name].drawn)
    driven = drive(sorter, n, k, NOISE[kind](seed))
    within_bounds(name, sorter, n, k, driven)
    if kind == "constant":
        assert driven.order == [f"d{i}" for i in range(n)]


@pytest.mark.parametrize("name", SUITE)
def test_every_length_with_the_default_settings(name):
    for n in range(101):
        sorter, truth = SORTERS[name](), shuffled(n, n)
        driven = drive(sorter, n, 10, perfect(truth))
        within_bounds(name, sorter, n, 10, driven)
        if name in EXACT:
            assert driven.order[:10] == ranking(truth)[:10]


@pytest.mark.parametrize("name", SUITE)
def test_k_beyond_the_hits_is_all_of_them_and_the_input_is_left_alone(name):
    hits = [Hit(f"d{i}", 0.0) for i in range(23)]
    given_ = list(hits)
    truth = perfect(shuffled(23, 5))
    assert drive(SORTERS[name](), 23, 23, truth) == drive(SORTERS[name](), 23, 1000, truth)
    ask = next(SORTERS[name]()(hits, 5))
    assert isinstance(ask, Ask)
    assert hits == given_


@pytest.mark.parametrize("name", SUITE)
def test_runs_side_by_side_share_nothing(name):
    sorter = SORTERS[name]()
    truths = [shuffled(40, 1), shuffled(30, 2)]
    alone = [drive(sorter, len(truth), 7, perfect(truth)).order for truth in truths]
    together: dict[int, list[str]] = {}
    running = {at: sorter([Hit(f"d{i}", 0.0) for i in range(len(t))], 7) for at, t in enumerate(truths)}
    answers: dict[int, list[np.ndarray] | None] = dict.fromkeys(running)
    while running:
        for at in list(running):
            try:
                ask = running[at].send(answers[at])
                answers[at] = [perfect(truths[at])(group) for group in ask.groups]
            except StopIteration as stop:
                together[at] = [hit.id for hit in stop.value]
                del running[at]
    assert [together[at] for at in sorted(together)] == alone


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


@pytest.mark.parametrize(
    ("n", "arity", "k"), [(20, 9, 10), (10, 3, 10), (7, 5, 6), (100, 20, 100), (3, 20, 2)]
)
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


def test_more_tournaments_tell_more_of_a_noisy_judge():
    """Each tournament asks in another order; a judge that errs by the order is averaged out."""

    def overlap(rounds: int) -> int:
        found = 0
        for seed in range(12):
            truth = shuffled(100, seed)

            def noisy(group: tuple[Hit, ...], truth: list[float] = truth) -> np.ndarray:
                return np.array([truth[int(hit.id[1:])] - 3.0 * at for at, hit in enumerate(group)])

            found += len(
                set(drive(TourRank(rounds=rounds), 100, 10, noisy).order[:10]) & set(ranking(truth)[:10])
            )
        return found

    assert overlap(10) > overlap(1)


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (Heapsort, {"arity": 1}, "^heapsort: arity must be at least 2, not 1$"),
        (Heapsort, {"shown": 1}, "^heapsort: shown must be at least 2, not 1$"),
        (Bubblesort, {"arity": 0}, "^bubblesort: arity must be at least 1, not 0$"),
        (Bubblesort, {"shown": 0}, "^bubblesort: shown must be at least 2, not 0$"),
        (Window, {"window": 1}, "^window: window must be at least 2, not 1$"),
        (Window, {"step": 0}, "^window: step must be at least 1, not 0$"),
        (Window, {"repeats": -1}, "^window: repeats must be at least 0, not -1$"),
        (Window, {"window": 10, "step": 11}, r"^window: window smaller than step \(10 < 11\)"),
        (Window, {"window": 10, "step": 10}, "^window: .*do not overlap.*take a step below 10$"),
        (Tournament, {"arity": 1}, "^tournament: arity must be at least 2, not 1$"),
        (TourRank, {"rounds": 0}, "^tourrank: rounds must be at least 1, not 0$"),
        (TourRank, {"group": 1}, "^tourrank: group must be at least 2, not 1$"),
        (TourRank, {"keep": 0.0}, "^tourrank: keep must be above 0 and at most 0.5, not 0$"),
        (TourRank, {"keep": float("nan")}, "^tourrank: keep must be above 0"),
    ],
)
def test_settings_that_make_no_sense(kind, options, message):
    with pytest.raises(InputError, match=message) as told:
        kind(**options)
    assert "\n" not in str(told.value)


def test_settings_come_from_a_spec_and_tell_sorters_apart():
    def read(text: str) -> Sorter:
        spec = Spec.parse(text)
        return SORTERS[spec.family](**bound(spec, SORTERS[spec.family]))

    assert read("heapsort?arity=4&shown=2") == Heapsort(arity=4, shown=2)
    assert read("window?step=5&repeats=1") == Window(step=5, repeats=1)
    assert read("tourrank?keep=0.25&rounds=10") == TourRank(keep=0.25, rounds=10)
    with pytest.raises(InputError, match="arity"):
        read("bubblesort?children=3")
    made = [kind() for kind in SORTERS.values()] + [Heapsort(arity=4), Bubblesort(shown=2)]
    assert len({hash_description(each) for each in made}) == len(made)


@pytest.mark.parametrize(
    ("sorter", "most", "exact"),
    [
        (Pointwise(), 1, True),
        (AllPairs(), 2, True),
        (Heapsort(), 4, True),
        (Heapsort(arity=9, shown=3), 3, True),
        (Bubblesort(arity=1, shown=9), 2, True),
        (Window(), 20, True),
        (Window(window=5, step=2, repeats=1), 5, False),
        (Full(), None, True),
        (Tournament(arity=7), 7, True),
        (TourRank(), 20, False),
    ],
    ids=str,
)
def test_what_a_sorter_says_of_itself(sorter, most, exact):
    assert (sorter.most, sorter.exact) == (most, exact)
