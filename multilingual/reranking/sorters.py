"""Sorters: generators that yield the comparisons they want and are sent the answers; no model in sight.

All that can be asked at the same time is: a driver turns one `Ask` of every live query into one batch, so
rounds are latency. Below, n is the number of hits and k that of results wanted (at most n). Where a sorter
needs the best of m hits but shows at most s at once, that costs c = ceil((m - 1) / (s - 1)) questions and at
most as many rounds.

Where `exact` is true, a judge that agrees with itself yields the true first k; whatever a judge answers, the
result is a permutation of the hits. `most` is the largest group a sorter ever asks for (None: as many as
there are hits), `for_pairs` are its defaults where a prompt compares two passages, and `unordered`, which a
sorter may have, is what sorts in its place where the order within a group does not matter to the answer. No
group is asked twice in a run, and none where there is nothing to decide. Ties go to the first stage's order (in
`Window` to the order so far). All but `Pointwise` score the hits n, n - 1, ..., 1; a sorter that gives back the hits as
it got them, in its order, has them scored so (`score_order`).
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from typing import ClassVar

import numpy as np

from ...errors import InputError, check_at_least
from ...runs import Hit


@dataclass(frozen=True, slots=True)
class Ask:
    """Comparisons that may run at the same time: each group of hits is shown to the judge together."""

    groups: tuple[tuple[Hit, ...], ...]


Answer = list[np.ndarray]  # for each group, one score a hit, higher is better
Sorting = Generator[Ask, Answer, Sequence[Hit]]
Sorter = Callable[[Sequence[Hit], int], Sorting]
Group = tuple[int, ...]  # hits by their positions in the first stage's order, in the order they are shown


class Candidates:
    """The hits of one query by their first-stage positions, and all scores that groups of them got."""

    def __init__(self, hits: Sequence[Hit]) -> None:
        self.hits = hits
        self.scores: dict[Group, np.ndarray] = {}

    def ask(self, groups: Iterable[Group]) -> Generator[Ask, Answer, list[np.ndarray]]:
        """The scores of each group; what was not asked before goes to the judge in one `Ask`."""
        groups = list(groups)
        new = [group for group in dict.fromkeys(groups) if group not in self.scores]
        if new:
            answer = yield Ask(tuple(tuple(self.hits[each] for each in group) for group in new))
            self.scores.update(zip(new, answer, strict=True))
        return [self.scores[group] for group in groups]

    def best(self, groups: Iterable[Sequence[int]], most: int) -> Generator[Ask, Answer, list[int]]:
        """The best of each group, all groups at once, at most `most` hits shown together.

        First-stage order breaks ties. Only which hit of a shown group is best is used, so a judge that names
        nothing else will do.
        """
        fields = [list(group) for group in groups]
        while any(len(field) > 1 for field in fields):
            heats = [_heats(field, most) for field in fields]
            scores = iter((yield from self.ask(heat for each in heats for heat in each)))
            for field, each in zip(fields, heats, strict=True):
                winners = [order_by_score(heat, next(scores))[0] for heat in each]
                field[: sum(map(len, each))] = winners
        return [field[0] for field in fields]

    def put_first(self, top: Sequence[int]) -> list[Hit]:
        """The hits at the positions `top`, then the others in first-stage order."""
        taken = set(top)
        order = [*top, *(each for each in range(len(self.hits)) if each not in taken)]
        return _number([self.hits[each].id for each in order])


def score_order(sorting: Sorting, hits: Sequence[Hit]) -> Sorting:
    """A sorting of hits whose result has scores in its order: n, n - 1, ..., 1 where the sorter has not given any.

    It has not where a hit is one of those that it got, whose score is the first stage's, or where scores rise.
    """
    order = yield from sorting
    got = set(map(id, hits))
    if any(id(hit) in got for hit in order) or any(one.score < after.score for one, after in pairwise(order)):
        return _number([hit.id for hit in order])
    return order


def _number(ids: Sequence[str]) -> list[Hit]:
    return [Hit(each, float(len(ids) - place)) for place, each in enumerate(ids)]


@dataclass(frozen=True, kw_only=True)
class Pointwise:
    """Every hit alone, sorted by the judge's own scores, which the hits keep: n questions in 1 round."""

    exact: ClassVar[bool] = True
    most: ClassVar[int | None] = 1

    def __call__(self, hits: Sequence[Hit], k: int) -> Sorting:
        if not hits:
            return []
        answer = yield Ask(tuple((hit,) for hit in hits))
        scored = [Hit(hit.id, float(scores[0])) for hit, scores in zip(hits, answer, strict=True)]
        return sorted(scored, key=lambda hit: -hit.score)


@dataclass(frozen=True, kw_only=True)
class AllPairs:
    """Every pair; a win counts 1 and a tie one half (PRP-Allpair, Qin et al. 2023, arXiv:2306.17563).

    Hits that won as often are ordered by the sum of their score differences, then by the first stage.
    n (n - 1) / 2 questions in 1 round.
    """

    exact: ClassVar[bool] = True
    most: ClassVar[int | None] = 2

    def __call__(self, hits: Sequence[Hit], k: int) -> Sorting:
        candidates = Candidates(hits)
        n = len(hits)
        above = np.triu_indices(n, 1)
        answer = yield from candidates.ask(zip(*(axis.tolist() for axis in above), strict=True))
        scores = np.clip(np.reshape(answer, (-1, 2)), -1e100, 1e100)  # no infinities, whose difference is none
        lead = np.zeros((n, n))
        lead[above] = scores[:, 0] - scores[:, 1]
        lead -= lead.T
        wins = np.sign(lead).sum(axis=1)  # wins less losses: the order of wins plus half of the ties
        total = [math.fsum(row) for row in lead]  # exact, so that equals stay equal
        return candidates.put_first(sorted(range(n), key=lambda each: (-wins[each], -total[each])))


@dataclass(frozen=True, kw_only=True)
class Setwise:
    """Sorters that ask for the best of `arity + 1` hits, and show at most `shown` of them at once (None: all)."""

    exact: ClassVar[bool] = True
    least: ClassVar[int] = 2  # arity
    arity: int = 3
    shown: int | None = None

    def __post_init__(self) -> None:
        name = type(self).__name__.lower()
        check_at_least(self.least, name, arity=self.arity)
        check_at_least(2, name, shown=self.shown)

    @property
    def most(self) -> int:
        return min(self.shown or self.arity + 1, self.arity + 1)


@dataclass(frozen=True, kw_only=True)
class Heapsort(Setwise):
    """A heap whose nodes have `arity` children; a sift asks for the best of a node and its children.

    Setwise heapsort (Zhuang et al. 2024, arXiv:2310.09497), with arity 2 and shown 2 PRP-Sorting (Qin et al.
    2023). The sifts are the published ones. Those that are two levels apart have no hit in common and run in the
    same round, and all stop once the k-th result is at the root. With H the height of the heap and c the cost of the
    best of `arity + 1`: at most c ((n - 1) / (arity - 1) + k H) questions in c (H + 2 (k - 1)) rounds.
    """

    for_pairs: ClassVar = {"arity": 2, "shown": 2}  # PRP's binary heap

    def __call__(self, hits: Sequence[Hit], k: int) -> Sorting:
        candidates = Candidates(hits)
        heap = list(range(len(hits)))
        top: list[int] = []
        unbuilt = _inner_levels(len(heap), self.arity)
        sinking: list[int] = []  # nodes whose hit may have to go down; never on neighbouring levels
        wanted = min(k, len(hits))
        while len(top) < wanted:
            # Once all is built, nothing is better than the root at this point of every round.
            if unbuilt:
                sinking += unbuilt.pop()
            elif len(top) == wanted - 1:
                top.append(heap[0])
                break
            elif all(node > self.arity for node in sinking):
                top.append(heap[0])
                heap[0] = heap[-1]
                heap.pop()
                sinking.append(0)
            sinking = yield from self._sift(candidates, heap, sinking)
        return candidates.put_first(top)

    def _sift(self, candidates: Candidates, heap: list[int], nodes: Iterable[int]) -> Generator[Ask, Answer, list[int]]:
        """One step down for the hits at `nodes`; returns where those have gone that had to give way."""
        families = [
            (node, range(first, min(first + self.arity, len(heap))))
            for node in nodes
            if (first := self.arity * node + 1) < len(heap)
        ]
        groups = [[heap[node], *(heap[child] for child in children)] for node, children in families]
        sunk: list[int] = []
        best = yield from candidates.best(groups, self.most)
        for (node, children), winner in zip(families, best, strict=True):
            if winner != heap[node]:
                child = next(each for each in children if heap[each] == winner)
                heap[node], heap[child] = winner, heap[node]
                sunk.append(child)
        return sunk


@dataclass(frozen=True, kw_only=True)
class Bubblesort(Setwise):
    """k passes from the bottom up: the best of each window of `arity + 1` moves to its front, into the next.

    Setwise bubblesort (Zhuang et al. 2024, arXiv:2310.09497), with arity 1 PRP-Sliding-k (Qin et al. 2023). The
    others of a window keep their order, also below the k. Each pass starts two windows behind the one before it,
    which changes no result. With c the cost of the best of `arity + 1`: at most the sum over p = 0, ..., k - 1 of
    c ceil((n - 1 - p) / arity) questions in c (ceil((n - 1) / arity) + 2 (k - 1)) rounds.
    """

    for_pairs: ClassVar = {"arity": 1}  # PRP's sliding window
    least: ClassVar[int] = 1

    def __call__(self, hits: Sequence[Hit], k: int) -> Sorting:
        candidates = Candidates(hits)
        order = list(range(len(hits)))
        size = self.arity + 1
        passes = [_windows(first, len(order), size, self.arity) for first in range(min(k, len(order)))]
        for windows in _staggered(passes, 2):
            groups = [order[start:end] for _, start, end in windows]
            best = yield from candidates.best(groups, self.most)
            for (_, start, end), winner in zip(windows, best, strict=True):
                order.insert(start, order.pop(order.index(winner, start, end)))
        return candidates.put_first(order)


@dataclass(frozen=True, kw_only=True)
class Window:
    """Windows of `window` hits that are sorted by their scores and slide from the bottom up by `step`.

    RankGPT (Sun et al. 2023, arXiv:2304.09542) and LRL (Ma et al. 2023, arXiv:2305.02156). A pass brings the
    best `window - step` to the top. With `repeats=0` there are as many passes as the top k need, each below
    what is settled; else at most so many, over everything as published, and only the first `repeats * (window
    - step)` are exact. A pass that changes nothing is the last. Each pass starts L = ceil(window / step)
    windows behind the one before it, which changes no result. The top window is cut short where the steps do
    not end at the first hit (the published code leaves such hits out). With P passes, P = ceil(k / (window -
    step)) for `repeats=0`, of W = 1 + ceil(max(0, n - window) / step) windows: at most P W questions in W + L
    (P - 1) rounds.
    """

    window: int = 20
    step: int = 10
    repeats: int = 0

    def __post_init__(self) -> None:
        check_at_least(2, "window", window=self.window)
        check_at_least(1, "window", step=self.step)
        check_at_least(0, "window", repeats=self.repeats)
        if self.step > self.window:
            raise InputError(
                f"window: window smaller than step ({self.window} < {self.step}) would leave hits out; "
                f"take a step below {self.window}"
            )
        if self.step == self.window:
            raise InputError(
                f"window: windows that are {self.step} apart and hold {self.window} do not overlap: no hit can rise; "
                f"take a step below {self.window}"
            )

    @property
    def exact(self) -> bool:
        """Whether a judge that agrees with itself gives the true first k for every k."""
        return self.repeats == 0

    @property
    def most(self) -> int:
        return self.window

    def __call__(self, hits: Sequence[Hit], k: int) -> Sorting:
        candidates = Candidates(hits)
        n = len(hits)
        order = list(range(n))
        # A pass whose only window holds all that is not settled is the last.
        settled = range(0, max(1, min(k, n - self.step)), self.window - self.step)
        firsts = [0] * self.repeats or settled
        passes = [_windows(first, n, self.window, self.step) for first in firsts]
        changed = [False] * len(passes)
        for windows in _staggered(passes, math.ceil(self.window / self.step)):
            answer = yield from candidates.ask(tuple(order[start:end]) for _, start, end in windows)
            for (number, start, end), scores in zip(windows, answer, strict=True):
                was = order[start:end]
                order[start:end] = [was[each] for each in np.argsort(-scores, kind="stable")]
                changed[number] |= order[start:end] != was
                # Later passes have met the same windows so far, and their answers are known.
                if start == firsts[number] and not changed[number]:
                    return candidates.put_first(order)
        return candidates.put_first(order)


@dataclass(frozen=True, kw_only=True)
class Full:
    """All hits in one group, sorted by its scores: listwise with full context. 1 question in 1 round."""

    exact: ClassVar[bool] = True
    most: ClassVar[int | None] = None

    def __call__(self, hits: Sequence[Hit], k: int) -> Sorting:
        candidates = Candidates(hits)
        everything = tuple(range(len(hits)))
        if len(everything) < 2:
            return candidates.put_first(everything)
        (scores,) = yield from candidates.ask([everything])
        return candidates.put_first(order_by_score(everything, scores))


@dataclass(frozen=True, kw_only=True)
class Tournament:
    """A knock-out tree of groups of `arity`: the winner is taken out and only its path is played again.

    Tournament sort (Knuth, The Art of Computer Programming 3, 5.2.3). With L = ceil(log n / log arity)
    levels: at most (n - 1) / (arity - 1) + k L questions in k L rounds. With a small arity it asks
    less than a `Heapsort` that shows as many hits, in more rounds.
    """

    exact: ClassVar[bool] = True
    for_pairs: ClassVar = {"arity": 2}
    arity: int = 4

    def __post_init__(self) -> None:
        check_at_least(2, "tournament", arity=self.arity)

    @property
    def most(self) -> int:
        return self.arity

    def __call__(self, hits: Sequence[Hit], k: int) -> Sorting:
        candidates = Candidates(hits)
        # From the players up to the winner; None where every player below has been taken out.
        tree: list[list[int | None]] = [list(range(len(hits)))]
        while len(tree[-1]) > 1:
            matches = range(math.ceil(len(tree[-1]) / self.arity))
            tree.append((yield from self._play(candidates, tree[-1], matches)))
        top: list[int] = []
        while len(top) < min(k, len(hits)):
            if top:
                place = top[-1]
                tree[0][place] = None
                for below, above in pairwise(tree):
                    place //= self.arity
                    (above[place],) = yield from self._play(candidates, below, [place])
            winner = tree[-1][0]
            assert winner is not None  # fewer than all have been taken out
            top.append(winner)
        return candidates.put_first(top)

    def _play(
        self, candidates: Candidates, players: Sequence[int | None], matches: Iterable[int]
    ) -> Generator[Ask, Answer, list[int | None]]:
        """The winners of the `matches` of one level."""
        groups = [
            [each for each in players[match * self.arity : (match + 1) * self.arity] if each is not None]
            for match in matches
        ]
        winners = iter((yield from candidates.best(filter(None, groups), self.arity)))
        return [next(winners) if group else None for group in groups]


@dataclass(frozen=True, kw_only=True)
class TourRank:
    """Points from `rounds` staged tournaments, played side by side; not exact, whatever the judge.

    TourRank (Chen et al. 2024, arXiv:2406.11678). In a stage the hits that are left are dealt out in turn to
    groups of at most `group`, each group is shown in a shuffled order (`seed`; the same for every query), and
    its best go on and get a point each. The result is in the order of all points, then of the first stage.
    100 hits go through the stages of the authors' code: 100, 50, 20, 10, 5, 2 hits, in 5, 5, 1, 1, 1 groups;
    it takes no other number. Here the largest of 1, 2, 5, 10, 20, 50, ... that is at most `keep` of the hits
    go on (but at least one a group) until 2 or fewer are left, in as few groups as can be, or up to twice as
    many if hits and places then divide evenly. Deviations: the best of a group are those of the highest
    scores, where the paper has the model list them; a group that goes on whole is not asked for. With S =
    ceil(log2 n) at most `rounds` * (4 n / group + 2 S) questions in S rounds; 13 * `rounds` in 5 for 100 hits.
    """

    exact: ClassVar[bool] = False
    rounds: int = 2
    group: int = 20
    keep: float = 0.5
    seed: int = 0

    def __post_init__(self) -> None:
        check_at_least(1, "tourrank", rounds=self.rounds)
        check_at_least(2, "tourrank", group=self.group)
        if not 0 < self.keep <= 0.5:
            raise InputError(f"tourrank: keep must be above 0 and at most 0.5, not {self.keep:g}")

    @property
    def most(self) -> int:
        return self.group

    def __call__(self, hits: Sequence[Hit], k: int) -> Sorting:
        candidates = Candidates(hits)
        chance = random.Random(self.seed)
        points = [0] * len(hits)
        left = [list(range(len(hits))) for _ in range(self.rounds)]
        for groups, places in self._stages(len(hits)):
            through: list[list[int]] = [[] for _ in left]
            games: list[tuple[list[int], Group, int]] = []
            for each, winners in zip(left, through, strict=True):
                for first in range(groups):
                    dealt = each[first::groups]
                    chance.shuffle(dealt)
                    games.append((winners, tuple(dealt), places // groups + (first < places % groups)))
            asked = (group for _, group, quota in games if quota < len(group))
            answer = iter((yield from candidates.ask(asked)))
            for winners, group, quota in games:
                winners += order_by_score(group, next(answer))[:quota] if quota < len(group) else group
            for one in chain(*through):
                points[one] += 1
            left = [sorted(winners) for winners in through]
        return candidates.put_first(sorted(range(len(hits)), key=lambda each: -points[each]))

    def _stages(self, n: int) -> Iterator[tuple[int, int]]:
        """Of each stage, how many groups play and how many hits go on."""
        left = n
        while left > 2 or left == n == 2:
            fewest = math.ceil(left / self.group)
            round_numbers = (digit * 10**power for power in range(len(str(left))) for digit in (1, 2, 5))
            places = max(fewest, *(each for each in round_numbers if each <= self.keep * left), 1)
            even = (each for each in range(fewest, 2 * fewest + 1) if left % each == places % each == 0)
            yield next(even, fewest), places
            left = places


def order_by_score(group: Sequence[int], scores: np.ndarray) -> list[int]:
    """Best first; first-stage order breaks ties."""
    return [each for _, each in sorted(zip((-scores).tolist(), group, strict=True))]


def _heats(field: Sequence[int], most: int) -> list[Group]:
    """Who of a field plays now: full groups side by side while there are any, so that no place is wasted."""
    if len(field) <= most:
        return [tuple(field)] if len(field) > 1 else []
    return [tuple(field[start : start + most]) for start in range(0, len(field) - most + 1, most)]


def _inner_levels(n: int, arity: int) -> list[range]:
    """The nodes with children in a heap of `n`, level by level, root first."""
    levels: list[range] = []
    start, end, inner = 0, 1, math.ceil((n - 1) / arity)
    while start < inner:
        levels.append(range(start, min(end, inner)))
        start, end = end, arity * end + 1
    return levels


def _windows(first: int, last: int, size: int, step: int) -> list[tuple[int, int]]:
    """Slices of at most `size`, `step` apart, from `last` to `first`; none where there is nothing to decide."""
    count = 1 + math.ceil(max(0, last - first - size) / step)
    ends = range(last, last - count * step, -step)
    return [(max(first, end - size), end) for end in ends if end - first > 1]


def _staggered(passes: Sequence[Sequence[tuple[int, int]]], lag: int) -> Iterator[list[tuple[int, int, int]]]:
    """What runs together when each pass starts `lag` windows after the one before: (pass, start, end)."""
    for now in range(max((number * lag + len(each) for number, each in enumerate(passes)), default=0)):
        running = ((number, each, now - number * lag) for number, each in enumerate(passes))
        yield [(number, *each[at]) for number, each, at in running if 0 <= at < len(each)]
