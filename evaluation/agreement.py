"""Agreement of a judge's grades with human ones: kappa, confusion, and rank correlation of the systems they order."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import InputError
from ..multilingual.fairness import UNKNOWN
from ..runs import Qrels, Run
from .evaluate import evaluate
from .table import ALL, replace_nan

FEWEST = 3  # systems: two have only two orders, and either is right by chance half the time
THRESHOLDS = (1, 2)  # from these grades on a document counts as relevant in binary kappa


def kappa(confusion: np.ndarray, weights: np.ndarray | None = None) -> float:
    """Agreement beyond chance of two raters (Cohen 1960), or, with `weights`, weighted kappa (Cohen 1968).

    `confusion` [grades, grades] counts pairs, one rater's grades in the rows and the other's in the columns;
    `weights`, of its shape, say how bad each disagreement is (unweighted: 1 off the diagonal, else 0). At most 1;
    0 is chance; nan for no pairs, or where both raters gave one and the same grade to all.
    """
    weights = 1.0 - np.eye(len(confusion)) if weights is None else weights
    total = confusion.sum()
    expected = np.outer(confusion.sum(axis=1), confusion.sum(axis=0)) / max(total, 1)
    by_chance = float((weights * expected).sum())
    return 1.0 - float((weights * confusion).sum()) / by_chance if by_chance else math.nan


def tau_ap(truth: Sequence[float], estimate: Sequence[float]) -> float:
    """AP rank correlation (Yilmaz, Aslam and Robertson 2008), in -1..1: as Kendall's tau, but the top counts most.

    For each system below the first of the estimated ranking, the share of those above it that are above it in truth
    too; the mean of these, scaled as tau is. nan with ties in either, for which it is not defined, or below two.
    """
    if len(truth) < 2 or len(set(truth)) < len(truth) or len(set(estimate)) < len(estimate):
        return math.nan
    ordered = np.asarray(truth)[np.argsort(-np.asarray(estimate))]
    shares = [float((ordered[:place] > ordered[place]).mean()) for place in range(1, len(ordered))]
    return 2 * float(np.mean(shares)) - 1


@dataclass(frozen=True)
class Agreement:
    """Grades of the pairs that both judged: `confusion[h][j]` counts human `grades[h]` and the judge's `grades[j]`.

    `lacking` counts pairs that only humans judged, `extra` those that only the judge did.
    """

    grades: tuple[int, ...]
    confusion: tuple[tuple[int, ...], ...]
    lacking: int = 0
    extra: int = 0

    @property
    def pairs(self) -> int:
        return sum(map(sum, self.confusion))

    @property
    def exact(self) -> float:
        """Share of pairs with the same grade, in 0..1; nan without pairs."""
        return float(np.trace(self._counts)) / self.pairs if self.pairs else math.nan

    @property
    def mean_absolute_error(self) -> float:
        """Mean distance of the grades, in grades; nan without pairs."""
        return float((self._counts * abs(self._apart)).sum()) / self.pairs if self.pairs else math.nan

    @property
    def kappa(self) -> float:
        """Cohen's (1960) kappa over the grades as names: a miss by one counts as one by three."""
        return kappa(self._counts)

    @property
    def quadratic(self) -> float:
        """Cohen's (1968) weighted kappa; a disagreement weighs the square of the grades' distance."""
        return kappa(self._counts, self._apart**2.0)

    def binary(self, threshold: int) -> float:
        """Cohen's kappa of relevant (a grade of `threshold` or more) against not."""
        relevant = np.array([grade >= threshold for grade in self.grades], dtype=bool)
        sides = np.stack([~relevant, relevant]).astype(np.int64)
        return kappa(sides @ self._counts @ sides.T)

    @property
    def _counts(self) -> np.ndarray:
        return np.array(self.confusion, dtype=np.int64).reshape(len(self.grades), len(self.grades))

    @property
    def _apart(self) -> np.ndarray:
        return np.subtract.outer(self.grades, self.grades)

    def to_json(self) -> dict[str, object]:
        """A dict for JSON; what is not defined is None."""
        return replace_nan(
            {
                "pairs": self.pairs,
                "lacking": self.lacking,
                "extra": self.extra,
                "exact": self.exact,
                "mean_absolute_error": self.mean_absolute_error,
                "kappa": self.kappa,
                "kappa_quadratic": self.quadratic,
                "kappa_binary": {str(least): self.binary(least) for least in THRESHOLDS},
                "grades": list(self.grades),
                "confusion": [list(row) for row in self.confusion],
            }
        )


def compare_grades(human: Qrels, judged: Qrels, langs: Mapping[str, str] | None = None) -> dict[str, Agreement]:
    """Agreement over all pairs, under `all`, and for each language of the documents where `langs` has any.

    Human grades below 0 mark what nobody judged. A document whose language is not known is `unknown`.
    """
    by_human = {(q, doc): grade for q, grades in human.items() for doc, grade in grades.items() if grade >= 0}
    by_judge = {(q, doc): grade for q, grades in judged.items() for doc, grade in grades.items()}
    groups = {ALL: by_human.keys() | by_judge.keys()}
    for pair in sorted(groups[ALL]) if langs else ():
        groups.setdefault((langs or {}).get(pair[1], UNKNOWN), set()).add(pair)
    found = {}
    for group in sorted(groups, key=lambda group: (group != ALL, group == UNKNOWN, group)):
        pairs = groups[group]
        times = Counter((by_human[pair], by_judge[pair]) for pair in pairs & by_human.keys() & by_judge.keys())
        grades = tuple(sorted({grade for both in times for grade in both}))
        confusion = tuple(tuple(times[by_one, by_other] for by_other in grades) for by_one in grades)
        found[group] = Agreement(grades, confusion, len(pairs - by_judge.keys()), len(pairs - by_human.keys()))
    return found


@dataclass(frozen=True)
class SystemAgreement:
    """Systems under two sets of judgements: by name the mean of `measure` under the human and the judge's qrels.

    Both means are over the `topics` that both judged. `tau` is Kendall's tau-b (1945), in -1..1 and nan where all
    are tied; `tau_ap` takes the human order as the truth.
    """

    measure: str
    topics: int
    scores: Mapping[str, tuple[float, float]]
    tau: float
    tau_ap: float

    def to_json(self) -> dict[str, object]:
        """A dict for JSON; what is not defined is None."""
        return {
            "measure": self.measure,
            "topics": self.topics,
            "scores": {name: {"human": human, "judge": judge} for name, (human, judge) in self.scores.items()},
            "kendall_tau": replace_nan(self.tau),
            "tau_ap": replace_nan(self.tau_ap),
        }


def compare_systems(runs: Mapping[str, Run], human: Qrels, judged: Qrels, measure: str) -> SystemAgreement:
    """How alike two sets of judgements order the systems; `InputError` below three, or without a common topic."""
    if len(runs) < FEWEST:
        raise InputError(f"a ranking of systems needs {FEWEST} runs or more, not {len(runs)}")
    topics = human.keys() & judged.keys()
    if not topics:
        raise InputError("the two sets of judgements have no topic in common")
    import scipy.stats

    columns = []
    for qrels in (human, judged):
        table = evaluate(runs, {topic: qrels[topic] for topic in topics}, (measure,))
        columns.append([table.mean(system, table.measures[0]) for system in runs])
    scores = dict(zip(runs, zip(*columns, strict=True), strict=True))
    tau = float(scipy.stats.kendalltau(*columns).statistic)
    return SystemAgreement(table.measures[0], len(topics), scores, tau, tau_ap(*columns))


def format_agreement(groups: Mapping[str, Agreement], systems: SystemAgreement | None = None) -> Iterator[str]:
    """Lines for people: measures of each group, the confusion of the first (`all`), and the systems."""
    head = ["", "pairs", "no grade", "no human", "exact", "MAE", "κ", "quadratic κ"]
    rows = []
    for group, each in groups.items():
        counts = map(str, (each.pairs, each.lacking, each.extra))
        measures = (each.exact, each.mean_absolute_error, each.kappa, each.quadratic)
        rows.append([group, *counts, *map(_show, (*measures, *map(each.binary, THRESHOLDS)))])
    yield from _align([*head, *(f"κ of ≥{least}" for least in THRESHOLDS)], *rows)
    whole = next(iter(groups.values()))
    yield ""
    yield "pairs by human grade (rows) and the judge's (columns)"
    counted = zip(whole.grades, whole.confusion, strict=True)
    yield from _align(["", *map(str, whole.grades)], *([str(grade), *map(str, row)] for grade, row in counted))
    if systems is not None:
        yield ""
        yield f"systems by {systems.measure} over {systems.topics} topics"
        scores = ([name, *map(_show, pair)] for name, pair in systems.scores.items())
        yield from _align(["", "human", "judge"], *scores)
        yield f"Kendall's τ {_show(systems.tau)}, τ_AP {_show(systems.tau_ap)}"


def _align(*lines: Sequence[str]) -> Iterator[str]:
    """The first column to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for first, *rest in lines:
        numbers = (cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True))
        yield "  ".join(["", first.ljust(widths[0]), *numbers]).rstrip()


def _show(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3f}"
