"""`plackett`: a sorter that forgives. Every answer is evidence; none of them is final."""

from __future__ import annotations

import math
from collections.abc import Generator, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import numpy as np

from ...errors import InputError, check_at_least
from ...pipeline import standardize
from ...runs import Hit
from .sorters import Answer, Ask, Candidates, Group, Sorter, Sorting, order_by_score

ROUNDS = 8  # over which the budget is spread, while there are enough sets that tell something
SPREAD = 1.5  # deviation of the log-odds within a set, to which the answers of every judge are brought
WEIGHTIEST = 1000.0  # the first stage as prior, and the least is one by it: beyond, the fit is lost in rounding
PLACES = 1.0  # precision of the prior of a preference for a place, in log-odds


@dataclass(frozen=True, kw_only=True)
class Plackett:
    """Sets of `arity` hits, all their answers fitted at once, the next sets where the order of the first k may change.

    The strengths of a Plackett-Luce model (Plackett 1975) are fitted by Newton's method to all answers as soft
    choices: the cross-entropy of the softmax of a set's scores (a judge's log-probabilities of its labels) and of the
    strengths, a preference for each place in a set being fitted along with them. The scores are brought to one spread
    first, so that neither a judge's over-confidence nor a one-hot answer decides. The first stage's z-scores are the
    prior mean, with precision `prior`: 0.3 counts like one or two comparisons, more trusts the first stage more. A
    round asks for disjoint sets: the first shows every hit once, the following join those hits whose order is still
    uncertain (by the Laplace approximation), so that a swap of them is expected to cost most DCG of the first k. A
    hit stands at the place in the set where it has stood least. Where answers do not depend on places (`unordered`),
    no places are fitted, and no set is asked again in another order, which would tell nothing new.

    Active choice of sets under this model: Chen, Li and Mao 2017 (arXiv:1707.08238), Saha and Gopalan 2018
    (arXiv:1810.10321), both from winners only and with no prior; of pairs for LLMs: Figueiredo Paschmann et al. 2026
    (arXiv:2605.14236).

    With `calls=0` it asks B = 2 ceil((n - 1) / (arity - 1)) questions, twice what finding the best takes. Where no two
    answers contradict each other, it then goes on until the first k follow from them, and is exact: in all at most
    B + the sum over p = 0, ..., k - 1 of ceil((n - 1 - p) / (arity - 1)) questions in as many rounds. For 100 hits
    and k 10 that is about 76 in 20, and 91 in 28 where the judge only names the best. Where answers contradict each
    other, more of them would make nothing certain, and the strengths decide. With `calls` there are at most so many
    questions (fewer only where sets have told all they can), and the strengths always decide: not exact.
    """

    for_pairs: ClassVar = {"arity": 2}
    arity: int = 4
    calls: int = 0
    prior: float = 0.3

    def __post_init__(self) -> None:
        check_at_least(2, "plackett", arity=self.arity)
        check_at_least(0, "plackett", calls=self.calls)
        if not 1 / WEIGHTIEST <= self.prior <= WEIGHTIEST:
            raise InputError(
                f"plackett: prior must be from {1 / WEIGHTIEST:g} to {WEIGHTIEST:g}, not {self.prior:g}; more trusts "
                f"the first stage more"
            )

    @property
    def exact(self) -> bool:
        """Whether a judge that agrees with itself gives the true first k for every k."""
        return not self.calls

    @property
    def most(self) -> int:
        return self.arity

    @property
    def unordered(self) -> Sorter:
        return partial(self, ordered=False)

    def __call__(self, hits: Sequence[Hit], k: int, *, ordered: bool = True) -> Sorting:
        candidates = Candidates(hits)
        n, size, wanted = len(hits), min(self.arity, len(hits)), min(k, len(hits))
        if n < 2:
            return candidates.put_first(range(n))
        strengths = Strengths(standardize([hit.score for hit in hits]), size, self.prior, ordered=ordered)
        seats = Seats(n, size, ordered=ordered)
        left = self.calls or 2 * math.ceil((n - 1) / (size - 1))
        everyone = _deal(n, size)
        rounds = 0
        while left > 0:
            count = math.ceil(left / max(1, ROUNDS - rounds))
            first = rounds == 0 and len(everyone) <= left
            groups = seats.arrange(everyone if first else strengths.choose(count, wanted, seats.spent))
            if not groups:
                break
            yield from candidates.ask(groups)
            strengths.fit(candidates.scores)
            left -= len(groups)
            rounds += 1
        top = [] if self.calls else (yield from _settle(candidates, strengths, seats, wanted))
        strengths.fit(candidates.scores)
        return candidates.put_first([*top, *(each for each in strengths.order if each not in set(top))])


class Strengths:
    """The strengths of n hits under a Plackett-Luce model, and how sure they are: the normal posterior of Laplace."""

    def __init__(self, mean: np.ndarray, size: int, prior: float, *, ordered: bool = True) -> None:
        n = len(mean)
        self.size, self.ordered = size, ordered
        self._mean = np.concatenate([mean, np.zeros(size)])
        self._precision = np.diag([prior] * n + [PLACES] * size)
        self._value = self._mean.copy()  # strengths of the hits, then preferences for the places
        self._covariance = np.eye(n) / prior

    @property
    def order(self) -> list[int]:
        """The hits by strength, best first; first-stage order breaks ties."""
        return order_by_score(range(len(self._covariance)), self._value[: len(self._covariance)])

    @property
    def preferences(self) -> np.ndarray:
        """How much each place is preferred, log-odds [size]."""
        return self._value[len(self._covariance) :]

    def fit(self, answers: Mapping[Group, np.ndarray]) -> None:
        """Fit them to the scores of all sets of full size."""
        n, size = len(self._covariance), self.size
        sets = [group for group in answers if len(group) == size]
        chosen = _choices(np.array([answers[group] for group in sets]).reshape(-1, size))
        if chosen is None:
            return
        hits = np.array(sets)
        places = [np.broadcast_to(n + np.arange(size), hits.shape)] if self.ordered else []
        columns = np.concatenate([hits, *places], axis=1)
        parts = 1 + len(places)
        diagonal = np.arange(size)
        for _ in range(50):
            expected = _softmax(self._value[hits] + self._value[n:])
            gradient = self._precision @ (self._value - self._mean)
            np.add.at(gradient, columns, np.tile(expected - chosen, parts))
            blocks = -expected[:, :, None] * expected[:, None, :]
            blocks[:, diagonal, diagonal] += expected
            hessian = self._precision.copy()
            np.add.at(hessian, (columns[:, :, None], columns[:, None, :]), np.tile(blocks, (1, parts, parts)))
            step = np.linalg.solve(hessian, gradient)
            farthest = np.abs(step).max()
            self._value = self._value - step * min(1.0, 3 / max(farthest, 1e-9))  # far from the optimum it overshoots
            if farthest < 1e-4:
                break
        covariance = np.linalg.inv(hessian)[:n, :n]
        # Symmetric to the last bit: rounding must not choose which of two hits is the first of a set.
        self._covariance = (covariance + covariance.T) / 2

    def choose(self, count: int, k: int, spent: Set[Group] = frozenset()) -> list[Group]:
        """At most `count` disjoint sets that join the hits whose swaps are expected to cost most DCG of the first k.

        None of them is `spent`: these are sets, as sorted positions, that have nothing more to tell.
        """
        cost = self._cost_swaps(k)
        free = np.ones(len(cost), bool)
        sets: list[Group] = []
        while len(sets) < count:
            one, other = np.unravel_index(int(np.where(np.outer(free, free), cost, 0).argmax()), cost.shape)
            if not (free[one] and free[other] and cost[one, other] > 0):
                break
            members = [int(one), int(other)][:: -1 if (one + other) % 2 else 1]  # neither is always the first
            if not self._complete(members, cost, free, spent):
                cost[one, other] = cost[other, one] = 0
                continue
            free[members] = False
            sets.append(tuple(members))
        return sets

    def _complete(self, members: list[int], cost: np.ndarray, free: np.ndarray, spent: Set[Group]) -> bool:
        """Fill up a set with the hits whose swaps cost most beside its members; false where every such set is spent."""
        while len(members) < self.size:
            worth = cost[members].sum(axis=0)
            worth -= np.where(free, 0, worth.max() + 1)  # those of other sets only where no others are left
            worth[members] = -np.inf
            worth[[each for each in range(len(worth)) if tuple(sorted((*members, each))) in spent]] = -np.inf
            if worth.max() == -np.inf:
                return False
            members.append(int(worth.argmax()))
        return tuple(sorted(members)) not in spent

    def _cost_swaps(self, k: int) -> np.ndarray:
        """What it is expected to cost that two hits are in the wrong order, [n, n].

        With a difference of strengths that is normal, the expected gain of swapping them (expected improvement, Jones
        et al. 1998), weighed by the difference of their discounts in DCG@k.
        """
        from scipy.special import ndtr

        n = len(self._covariance)
        value, variance = self._value[:n], np.diag(self._covariance)
        discounts = np.zeros(n)
        discounts[self.order[:k]] = 1 / np.log2(np.arange(k) + 2)
        deviation = np.sqrt(np.maximum(variance[:, None] + variance - 2 * self._covariance, 1e-12))
        lead = np.abs(value[:, None] - value) / deviation
        gain = deviation * (np.exp(-(lead**2) / 2) / math.sqrt(2 * math.pi) - lead * ndtr(-lead))
        costs: np.ndarray = np.maximum(gain, 0) * np.abs(discounts[:, None] - discounts)
        return costs


class Seats:
    """Where hits stand in the sets that show them: by turns, so that a preference for a place cancels.

    `spent` are the sets, as sorted positions, that tell nothing new in any order: those shown, if not `ordered`.
    """

    def __init__(self, n: int, size: int, *, ordered: bool = True) -> None:
        self.ordered = ordered
        self.spent: set[Group] = set()
        self._taken = np.zeros((n, size), int)
        self._seen: set[Group] = set()

    def arrange(self, sets: Iterable[Group]) -> list[Group]:
        """Each set turned so that its hits stand where they stood least; none that was shown in all its turns."""
        groups = []
        for members in sets:
            if tuple(sorted(members)) in self.spent:
                continue
            turns = [members[shift:] + members[:shift] for shift in range(len(members))]
            if new := [turn for turn in turns if turn not in self._seen]:
                group = min(new, key=lambda turn: int(self._taken[list(turn), range(len(turn))].sum()))
                self._taken[list(group), range(len(group))] += 1
                self._seen.add(group)
                if not self.ordered:
                    self.spent.add(tuple(sorted(group)))
                groups.append(group)
        return groups


class Precedence:
    """Which hit comes before which, as far as it follows from the answers, and whether they agree."""

    def __init__(self, n: int, answers: Mapping[Group, np.ndarray]) -> None:
        self.before = np.eye(n, dtype=bool)
        self.agrees = True
        for group, scores in answers.items():
            self.add(group, scores)

    def add(self, group: Group, scores: np.ndarray) -> None:
        """The best (of equals the first in first-stage order) comes before all others, these before what is below."""
        said = dict(zip(group, _finite(scores).tolist(), strict=True))
        ranked = order_by_score(group, _finite(scores))
        for place, one in enumerate(ranked):
            for other in ranked[place + 1 :]:
                if place == 0 or said[one] > said[other]:
                    self.agrees &= not self.before[other, one]
                    if not self.before[one, other]:
                        self.before |= np.outer(self.before[:, one], self.before[other])

    def find_first(self, left: Sequence[int]) -> list[int]:
        """Those of the hits before which none of the others comes."""
        among = self.before[np.ix_(left, left)]
        return [left[each] for each in np.flatnonzero(among.sum(axis=0) == 1).tolist()]


def _settle(
    candidates: Candidates, strengths: Strengths, seats: Seats, wanted: int
) -> Generator[Ask, Answer, list[int]]:
    """The first `wanted` as they follow from the answers, asking for what is missing; none if answers disagree."""
    order = strengths.order
    known = Precedence(len(order), candidates.scores)
    top: list[int] = []
    while known.agrees and len(top) < wanted:
        field = known.find_first([each for each in order if each not in top])
        if len(field) == 1:
            top += field
            continue
        size = min(strengths.size, len(field))
        heats = [tuple(field[start : start + size]) for start in range(0, len(field) - size + 1, size)]
        groups = seats.arrange(heats)
        for group, scores in zip(groups, (yield from candidates.ask(groups)), strict=True):
            known.add(group, scores)
    return top if known.agrees else []


def _deal(n: int, size: int) -> list[Group]:
    """All hits in as few sets as can be, dealt out in turn; what a set lacks are the first hits."""
    count = math.ceil(n / size)
    dealt = [list(range(start, n, count)) for start in range(count)]
    return [(*members, *[each for each in range(n) if each not in members][: size - len(members)]) for members in dealt]


def _choices(scores: np.ndarray) -> np.ndarray | None:
    """The probability of each hit of each set to be chosen, [sets, size]; None where the answers say nothing."""
    scores = np.clip(_finite(scores), -1e100, 1e100)
    centred = scores - scores.mean(axis=1, keepdims=True)
    spreads = centred.std(axis=1)
    told = spreads[spreads > 1e-9]
    return _softmax(centred * (SPREAD / np.median(told))) if len(told) else None


def _softmax(values: np.ndarray) -> np.ndarray:
    shares = np.exp(values - values.max(axis=1, keepdims=True))
    normed: np.ndarray = shares / shares.sum(axis=1, keepdims=True)
    return normed


def _finite(scores: np.ndarray) -> np.ndarray:
    """The scores with the largest numbers in place of infinities, and the lowest in place of what is none."""
    lowest, highest = np.finfo(np.float64).min, np.finfo(np.float64).max
    return np.nan_to_num(scores, nan=lowest, neginf=lowest, posinf=highest)
