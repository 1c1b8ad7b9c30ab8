"""Which documents of a ranking are hard negatives: a margin to the positive, a way of sampling, a mix of languages."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np

from ...errors import InputError, check_at_least
from ...pipeline import standardize
from ...specs import Spec, bind_options, find_factory


@dataclass(frozen=True, slots=True)
class Candidate:
    """A document that may be a negative: its id, its score in the ranking, its language (empty: not known).

    `judged` says that people found it not relevant, so that no rule has to guess.
    """

    id: str
    score: float
    lang: str = ""
    judged: bool = False


@dataclass(frozen=True)
class Margin:
    """How far below the positive's score that of a negative must stay (Moreira et al. 2024, arXiv:2407.15831).

    A `value` from 0 to 1 is a share: at most s - (1 - value) |s|, which is value * s where s is above 0 (TopK-PercPos).
    A negative value is a difference: at most s + value (TopK-MarginPos).
    """

    value: float = 0.95

    def __post_init__(self) -> None:
        if not -math.inf < self.value <= 1:
            raise InputError(
                f"a margin is a share of the positive's score from 0 to 1, as 0.95, or a negative difference, as "
                f"-0.05, or none: not {self.value:g}"
            )

    @classmethod
    def parse(cls, text: str) -> Margin | None:
        """`0.95`, `-0.05`, or `none`."""
        if text == "none":
            return None
        try:
            return cls(float(text))
        except ValueError as error:
            raise error if isinstance(error, InputError) else cls._refuse(text) from None

    @classmethod
    def _refuse(cls, text: str) -> InputError:
        return InputError(f"a margin is a number (0.95, -0.05) or none, not {text!r}")

    def limit(self, positive: float) -> float:
        """The greatest score of a negative, given that of the positive."""
        return positive + self.value if self.value < 0 else positive - (1 - self.value) * abs(positive)


class NegativeSampling(Protocol):
    """The order in which candidates become negatives."""

    def rate(self, scores: np.ndarray, positive: float, noise: np.ndarray) -> np.ndarray:
        """A number a candidate, float64 [n]: those with the highest are taken.

        `scores` are those of the ranking [n], `positive` that of the positive, -inf where it was not found. `noise` is
        uniform in (0, 1), one number a candidate, and all the chance there is.
        """
        ...


@dataclass(frozen=True)
class Hardest:
    """`top`: those that are ranked first."""

    def rate(self, scores: np.ndarray, positive: float, noise: np.ndarray) -> np.ndarray:
        return scores


@dataclass(frozen=True)
class Uniform:
    """`uniform`: each with the same probability."""

    def rate(self, scores: np.ndarray, positive: float, noise: np.ndarray) -> np.ndarray:
        return noise


@dataclass(frozen=True)
class SimANS:
    """`simans?a=&b=`: ambiguous ones, with scores near the positive's (Zhou et al. 2022, arXiv:2210.11773).

    The probability is proportional to exp(-a (s - s+ - b)^2). Here scores count in standard deviations of the
    candidates', so that `a` and `b` mean the same for cosines and BM25. A positive that was not found is taken to score
    as the last candidate, above which it cannot be.
    """

    a: float = 1.0
    b: float = 0.0
    paper: ClassVar[str] = "Zhou et al. 2022, arXiv:2210.11773"

    def __post_init__(self) -> None:
        if not (0 <= self.a < math.inf and math.isfinite(self.b)):
            raise InputError(f"simans: a is a number from 0 on, and b a number, not {self.a:g} and {self.b:g}")

    def rate(self, scores: np.ndarray, positive: float, noise: np.ndarray) -> np.ndarray:
        found = max(positive, float(scores.min(initial=math.inf)))
        units = standardize([*scores, found])
        logs = -self.a * (units[:-1] - units[-1] - self.b) ** 2
        rated: np.ndarray = logs - np.log(-np.log(noise))  # Gumbel's noise draws without replacement
        return rated


# A new way is one class and one line here; other packages add theirs by entry points of `crosslens.samplings`.
SAMPLINGS = {
    "top": "training.data.negatives:Hardest",
    "uniform": "training.data.negatives:Uniform",
    "simans": "training.data.negatives:SimANS",
}


def load_sampling(text: str) -> NegativeSampling:
    """The way that a SPEC names: `top`, `uniform`, `simans?a=1&b=0`, `py:MODULE:NAME`; `InputError` lists them."""
    factory, spec = find_factory(Spec.parse(text), "samplings", SAMPLINGS, "way of sampling negatives")
    sampling: NegativeSampling = factory(**bind_options(spec, factory))
    return sampling


class Picking:
    """The negatives of one query as they are picked: a slot wants a document in its language, and else takes any.

    `ordered` are the candidates in the order in which they are taken; `slots` a language each, None for any.
    """

    def __init__(self, ordered: Iterable[Candidate], slots: Sequence[str | None]) -> None:
        self._left = list(ordered)
        self._open = list(slots)
        self._proposed: list[tuple[str | None, Candidate]] = []
        self.picked: list[Candidate] = []
        self.elsewhere = 0  # slots that took a document in another language

    def propose(self) -> list[Candidate]:
        """A candidate for each slot that is open, as far as there are any; `settle` says what becomes of them."""
        self._proposed = []
        for slot in self._open:
            if not self._left:
                break
            place = next((n for n, each in enumerate(self._left) if slot is None or each.lang == slot), 0)
            self._proposed.append((slot, self._left.pop(place)))
        return [candidate for _, candidate in self._proposed]

    def settle(self, accepted: Sequence[bool]) -> None:
        """Take those of the proposed candidates that are accepted; the slots of the others are open again."""
        self._open = []
        for (slot, candidate), good in zip(self._proposed, accepted, strict=True):
            if good:
                self.picked.append(candidate)
                self.elsewhere += slot is not None and candidate.lang != slot
            else:
                self._open.append(slot)


def find_anchors(positives: Iterable[tuple[str, float]]) -> dict[str, float]:
    """The scores that negatives are held against: the best positive's in each language, and under "" of all.

    An encoder scores one language above another, so that like is compared with like as far as there is any.
    """
    anchors: dict[str, float] = {}
    for lang, score in positives:
        for key in (lang, ""):
            anchors[key] = max(score, anchors.get(key, -math.inf))
    return anchors


def parse_share(text: str) -> float:
    """A number from 0 to 1; `InputError` for anything else."""
    try:
        share = float(text)
    except ValueError:
        share = math.nan
    if not 0 <= share <= 1:
        raise InputError(f"the share of negatives in the positive's language is from 0 to 1, or any, not {text!r}")
    return share


def check_window(first: int, last: int, negatives: int) -> None:
    """`InputError` for ranks that are none, and for more negatives than ranks."""
    check_at_least(1, first=first, last=last, negatives=negatives)
    if last - first + 1 < negatives:
        raise InputError(
            f"ranks {first} to {last} cannot give {negatives} negatives: raise --last, or lower --negatives"
        )
