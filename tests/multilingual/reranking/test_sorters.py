"""What every sorter keeps, with judges that know the truth, and with judges that know nothing.

A new sorter costs one line of `SUITE`: how its settings are drawn, and the bounds that its docstring states.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil, log2

import numpy as np
import pytest
from crosslens.errors import InputError
from crosslens.multilingual.reranking.plackett import Plackett
from crosslens.multilingual.reranking.registry import SORTERS
from crosslens.multilingual.reranking.sorters import (
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
from crosslens.specs import Spec, bind_options
from hypothesis import given, settings
from hypothesis import strategies as st
from stand_ins.sorting import Driven, Judge, drive, perfect, ranking, shuffled
from stand_ins.table import table


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


def most_of_plackett(sorter: Plackett, n: int, k: int) -> float:
    c = min(sorter.arity, n) - 1
    return sorter.calls or 2 * ceil((n - 1) / c) + sum(ceil((n - 1 - p) / c) for p in range(k))


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


SLIDING = st.builds(lambda pair, r: Window(window=pair[0], step=pair[1], repeats=r), WINDOWS, st.integers(0, 4))


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
        lambda s, n, k: (passes(s, k) * slides(s, n), slides(s, n) + ceil(s.window / s.step) * (passes(s, k) - 1)),
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


# One budget of questions, and what is needed at most to be certain of the first k.
SUITE["plackett"] = Case(
    st.builds(Plackett, arity=ARITY, calls=st.just(0) | st.integers(1, 60), prior=st.floats(0.01, 5)),
    lambda s, n, k: (most_of_plackett(s, n, k),) * 2,
    names=True,
)


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
    if isinstance(sorter, Plackett) and sorter.calls:
        return 0
    assert sorter.exact
    return k


def naming(truth: Sequence[float]) -> Judge:
    """Says only which hit is best, as a model that answers with one label does."""
    judge = perfect(truth)
    return lambda group: np.eye(len(group))[int(judge(group).argmax())]


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
@settings(max_examples=40)
@given(st.data(), st.integers(0, 100), st.integers(1, 200), st.integers(0, 2**32))
def test_a_perfect_judge_gives_the_true_top_k_within_the_bounds(name, data, n, k, seed):
    sorter, truth = data.draw(SUITE[name].drawn), shuffled(n, seed)
    driven = drive(sorter, n, k, perfect(truth))
    top = certain(sorter, k)
    assert driven.order[:top] == ranking(truth)[:top]
    within_bounds(name, sorter, n, k, driven)


@pytest.mark.parametrize("name", EXACT)
@settings(max_examples=30)
@given(st.data(), st.lists(st.integers(0, 3), max_size=60), st.integers(1, 80))
def test_hits_that_are_as_good_keep_their_order(name, data, grades, k):
    sorter = data.draw(SUITE[name].drawn)
    driven = drive(sorter, len(grades), k, perfect(grades))
    top = certain(sorter, k)
    assert driven.order[:top] == ranking(grades)[:top]


@pytest.mark.parametrize("name", NAMING)
@settings(max_examples=30)
@given(st.data(), st.integers(0, 100), st.integers(1, 120), st.integers(0, 2**32))
def test_a_judge_that_only_names_the_best_is_enough(name, data, n, k, seed):
    sorter, truth = data.draw(SUITE[name].drawn), shuffled(n, seed)
    driven = drive(sorter, n, k, naming(truth))
    top = certain(sorter, k)
    assert driven.order[:top] == ranking(truth)[:top]
    within_bounds(name, sorter, n, k, driven)


@pytest.mark.parametrize("name", SUITE)
@settings(max_examples=50)
@given(st.data(), st.integers(0, 100), st.integers(1, 200), st.sampled_from(list(NOISE)), st.integers(0, 2**32))
def test_any_answers_give_a_permutation_within_the_bounds(name, data, n, k, kind, seed):
    sorter = data.draw(SUITE[name].drawn)
    driven = drive(sorter, n, k, NOISE[kind](seed))
    within_bounds(name, sorter, n, k, driven)
    if kind == "constant":
        assert driven.order == [f"d{i}" for i in range(n)]


@pytest.mark.parametrize("name", SUITE)
def test_lengths_with_the_default_settings(name):
    for n in (*range(45), 63, 64, 65, 99, 100):
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
    hits = [Hit(f"d{i}", 1.0 / (i + 1)) for i in range(40)]
    running = {at: sorter(hits[: len(t)], 7) for at, t in enumerate(truths)}
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


@table(
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
        (Plackett, {"arity": 1}, "^plackett: arity must be at least 2, not 1$"),
        (Plackett, {"calls": -1}, "^plackett: calls must be at least 0, not -1$"),
        (Plackett, {"prior": 0.0}, "^plackett: prior must be from 0.001 to 1000, not 0; "),
        (Plackett, {"prior": 1e-300}, "^plackett: prior must be from 0.001 to 1000, not 1e-300; "),
        (TourRank, {"keep": float("nan")}, "^tourrank: keep must be above 0"),
    ],
)
def test_settings_that_make_no_sense(kind, options, message):
    with pytest.raises(InputError, match=message) as told:
        kind(**options)
    assert "\n" not in str(told.value)


def test_settings_come_from_a_spec_and_distinguish_sorters():
    def read(text: str) -> Sorter:
        spec = Spec.parse(text)
        return SORTERS[spec.family](**bind_options(spec, SORTERS[spec.family]))

    assert read("heapsort?arity=4&shown=2") == Heapsort(arity=4, shown=2)
    assert read("window?step=5&repeats=1") == Window(step=5, repeats=1)
    assert read("tourrank?keep=0.25&rounds=10") == TourRank(keep=0.25, rounds=10)
    with pytest.raises(InputError, match="arity"):
        read("bubblesort?children=3")
    made = [kind() for kind in SORTERS.values()] + [Heapsort(arity=4), Bubblesort(shown=2)]
    assert len({hash_description(each) for each in made}) == len(made)


@table(
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
        (Plackett(), 4, True),
        (Plackett(arity=10, calls=30), 10, False),
    ],
)
def test_what_a_sorter_says_of_itself(sorter, most, exact):
    assert (sorter.most, sorter.exact) == (most, exact)
