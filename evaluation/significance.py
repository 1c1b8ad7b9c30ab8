"""How far to believe a difference: paired tests, corrections for many comparisons, bootstrap intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from ..errors import InputError, check_at_least, check_known

LEVEL = 0.05  # a corrected p below this is marked
RESAMPLES = 10_000

Test = Literal["t", "randomisation"]
Correction = Literal["holm", "bonferroni"]


def check_statistics(test: str, correction: str, interval: float | None, seed: int) -> None:
    """`InputError` on an unknown test or correction, a confidence not between 0 and 1, and a negative seed."""
    check_known(test, get_args(Test), "test")
    check_known(correction, get_args(Correction), "correction")
    if interval is not None and not 0 < interval < 1:
        raise InputError(f"an interval of confidence {interval}: between 0 and 1, for example 0.95")
    check_at_least(0, seed=seed)


@dataclass(frozen=True)
class Comparison:
    """A system against the baseline on one measure, over all queries or those of a group.

    `difference` is system minus baseline; `p` is two-sided; `corrected` is corrected (Holm 1979, or
    Bonferroni) for all systems compared on this measure. Both are nan for fewer than two queries. On `better` queries
    the system is above the baseline, on `worse` below it, on `equal` neither.
    """

    difference: float
    p: float
    corrected: float
    better: int
    equal: int
    worse: int

    @property
    def significant(self) -> bool:
        return self.corrected < LEVEL


def holm(ps: Sequence[float]) -> list[float]:
    """Holm's (1979) step-down correction of p-values for their number; nan stays nan and does not count."""
    real = sorted((p, i) for i, p in enumerate(ps) if not math.isnan(p))
    corrected = [math.nan] * len(ps)
    highest = 0.0
    for rank, (p, i) in enumerate(real):
        highest = max(highest, min(1.0, (len(real) - rank) * p))
        corrected[i] = highest
    return corrected


def bonferroni(ps: Sequence[float]) -> list[float]:
    """Bonferroni's correction: p times the number of p-values; nan stays nan and does not count."""
    real = sum(not math.isnan(p) for p in ps)
    return [p if math.isnan(p) else min(1.0, real * p) for p in ps]


CORRECTIONS = {"holm": holm, "bonferroni": bonferroni}


def compare_with_baseline(
    values: Mapping[str, np.ndarray], baseline: str, test: Test, correction: Correction, seed: int
) -> dict[str, Comparison]:
    """Every other system against the baseline; `values` are one measure's, float64 [queries] a system."""
    differences = {system: array - values[baseline] for system, array in values.items() if system != baseline}
    ps = [compute_p(difference, test, seed) for difference in differences.values()]
    return {
        system: Comparison(float(d.mean()), p, corrected, int((d > 0).sum()), int((d == 0).sum()), int((d < 0).sum()))
        for (system, d), p, corrected in zip(differences.items(), ps, CORRECTIONS[correction](ps), strict=True)
    }


def compute_p(differences: np.ndarray, test: Test, seed: int = 0) -> float:
    """Two-sided p-value of paired differences, float64 [queries]: nan for fewer than two, 1 where all are 0."""
    import scipy.stats

    if len(differences) < 2:
        return math.nan
    if not differences.any():
        return 1.0
    if test == "t":
        if np.ptp(differences) == 0:
            return 0.0  # the same difference on every query: the statistic is infinite
        return float(scipy.stats.ttest_1samp(differences, 0.0).pvalue)
    result = scipy.stats.permutation_test(
        (differences,), np.mean, permutation_type="samples", n_resamples=RESAMPLES, batch=1_000, rng=seed
    )
    return float(result.pvalue)


def bootstrap(values: np.ndarray, level: float = 0.95, *, seed: int = 0) -> np.ndarray:
    """Percentile intervals (Efron and Tibshirani 1993) of the means of columns, float64 [2, columns].

    `values` is [queries, columns]; whole rows are drawn, so that all columns see the same queries. nan for
    fewer than two queries, and for columns that hold nan.
    """
    import scipy.stats

    queries = len(values)
    ends = np.full((2, values.shape[1]), math.nan)
    defined = ~np.isnan(values).any(axis=0)

    def average(drawn: np.ndarray, axis: int) -> np.ndarray:
        """Means [columns, resamples] of the queries drawn, positions [resamples, queries]."""
        times = np.stack([np.bincount(each, minlength=queries) for each in drawn])
        return (times @ values[:, defined] / queries).T

    if queries > 1 and defined.any():
        # Positions are drawn, not values: counting them is ten times as fast as to average copies of the values.
        ends[:, defined] = scipy.stats.bootstrap(
            (np.arange(queries),), average, method="percentile", confidence_level=level,
            n_resamples=RESAMPLES, batch=500, vectorized=True, rng=seed,
        ).confidence_interval  # fmt: skip
    return ends
