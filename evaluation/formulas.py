"""Measures computed here from their published formulas, as nothing that ir_measures calls has them right for all qrels.

Each takes the measure, the grades of a query (those below 0 mark documents that nobody judged), its ranking (document
ids, best first) and the highest grade of the scale; it gives the query's value.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

Grades = Mapping[str, int]
Formula = Callable[[Any, Grades, Sequence[str], int], float]

SCALE = 4  # the highest grade that gdeval knows; a scale that ends below it is taken for one that ends there
TINY = 0.00001  # trec_eval's INFAP_EPSILON
ALWAYS = ("NumQ", "NumRel")  # which do not depend on the ranking: they count queries without hits, too


def choose_formula(measure: Any) -> Formula | None:
    """How the measure is computed here; None where ir_measures' own code is used."""
    if measure.NAME == "nDCG":
        return _compute_exponential_ndcg if measure["dcg"] == "exp-log2" else None
    if measure.NAME == "RR":
        return _compute_rr if "cutoff" in measure.params else None
    return _FORMULAS.get(measure.NAME)


def find_scale(qrels: Mapping[str, Grades]) -> int:
    """The highest grade of the scale that the qrels use: 4, or what they have above it."""
    return max((grade for grades in qrels.values() for grade in grades.values()), default=SCALE)


def _compute_err(measure: Any, grades: Grades, ranking: Sequence[str], highest: int) -> float:
    """Expected reciprocal rank (Chapelle et al. 2009), as gdeval: a document satisfies with (2^grade - 1) / 2^highest.

    gdeval's scale always ends at 4, and it stops at a grade above that; here the scale grows with the qrels.
    """
    gains = _list_grades(grades, ranking[: _cutoff(measure)])
    top = max(SCALE, highest)
    stops = np.exp2(gains - top) - np.exp2(-float(top))
    reached = np.cumprod(np.append(1.0, 1 - stops[:-1])) if len(stops) else stops
    return float(np.sum(stops * reached / np.arange(1, len(stops) + 1)))


def _compute_exponential_ndcg(measure: Any, grades: Grades, ranking: Sequence[str], highest: int) -> float:
    """nDCG with gains 2^grade - 1 (Burges et al. 2005), discounted by log2(rank + 1), as gdeval."""
    cutoff = _cutoff(measure)
    if measure["judged_only"]:
        ranking = _keep_judged(grades, ranking)
    best = max([*grades.values(), 0])
    if best == 0:
        return 0.0

    def discount(gains: np.ndarray) -> float:
        # All times 2^-best, so that no grade is too high for a float.
        return float(np.sum((np.exp2(gains - best) - np.exp2(-float(best))) / np.log2(np.arange(2, len(gains) + 2))))

    ideal = np.array(sorted((max(grade, 0) for grade in grades.values()), reverse=True)[:cutoff], np.float64)
    return discount(_list_grades(grades, ranking[:cutoff])) / discount(ideal)


def _compute_accuracy(measure: Any, grades: Grades, ranking: Sequence[str], highest: int) -> float:
    """Of all pairs of a relevant and another document that were found, the part in which the relevant one is first.

    1 where all that was found is relevant, 0 where nothing is.
    """
    relevant = _list_grades(grades, ranking[: _cutoff(measure)]) >= measure["rel"]
    found = int(relevant.sum())
    others = len(relevant) - found
    if not found or not others:
        return float(found > 0)
    return 1 - float(np.cumsum(~relevant)[relevant].sum()) / (found * others)


def _compute_infap(measure: Any, grades: Grades, ranking: Sequence[str], highest: int) -> float:
    """Inferred average precision (Yilmaz and Aslam 2006), as trec_eval; documents graded below 0 are of the pool."""
    total = 0.0
    relevant = others = unjudged = 0
    for rank, doc in enumerate(ranking):
        grade = grades.get(doc)
        if grade is None:
            continue
        if grade < 0:
            unjudged += 1
        elif grade < measure["rel"]:
            others += 1
        else:
            judged = (relevant + TINY) / (relevant + others + 2 * TINY)
            total += (1 + (relevant + others + unjudged) * judged) / (rank + 1) if rank else 1.0
            relevant += 1
    held = _count_relevant(measure, grades)
    return total / held if held else 0.0


def _compute_rr(measure: Any, grades: Grades, ranking: Sequence[str], highest: int) -> float:
    """One over the rank of the first relevant document, 0 if it stands below the cutoff."""
    if measure["judged_only"]:
        ranking = _keep_judged(grades, ranking)
    ranks = (rank for rank, doc in enumerate(ranking[: _cutoff(measure)], 1) if grades.get(doc, 0) >= measure["rel"])
    return 1 / next(ranks, math.inf)


def _compute_rbp(measure: Any, grades: Grades, ranking: Sequence[str], highest: int) -> float:
    """Rank-biased precision (Moffat and Zobel 2008), binary gain."""
    persistence, least = measure["p"], measure["rel"]
    places = (place for place, doc in enumerate(ranking[: _cutoff(measure)]) if grades.get(doc, 0) >= least)
    return (1 - persistence) * math.fsum(persistence**place for place in places)


def _compute_set_f(measure: Any, grades: Grades, ranking: Sequence[str], highest: int) -> float:
    """(1 + beta) P R / (beta P + R) of the set that was found, as trec_eval's set_F."""
    if measure["judged_only"]:
        ranking = _keep_judged(grades, ranking)
    both = sum(grades.get(doc, 0) >= measure["rel"] for doc in ranking)
    if not both:
        return 0.0
    precision, recall = both / len(ranking), both / _count_relevant(measure, grades)
    return (1 + measure["beta"]) * precision * recall / (measure["beta"] * precision + recall)


def _count_query(measure: Any, grades: Grades, ranking: Sequence[str], highest: int) -> float:
    return 1.0


def _count_all_relevant(measure: Any, grades: Grades, ranking: Sequence[str], highest: int) -> float:
    return float(_count_relevant(measure, grades))


def _count_found(measure: Any, grades: Grades, ranking: Sequence[str], highest: int) -> float:
    """Of the documents found all, or where `rel` is given the relevant ones."""
    least: int | None = measure.params.get("rel")
    return float(sum(least is None or grades.get(doc, 0) >= least for doc in ranking))


def _count_relevant(measure: Any, grades: Grades) -> int:
    return sum(grade >= measure["rel"] for grade in grades.values())


def _list_grades(grades: Grades, ranking: Sequence[str]) -> np.ndarray:
    """The grade of each document, float64; 0 where it is lower or there is none."""
    return np.array([max(grades.get(doc, 0), 0) for doc in ranking], np.float64)


def _keep_judged(grades: Grades, ranking: Sequence[str]) -> list[str]:
    return [doc for doc in ranking if grades.get(doc, -1) >= 0]


def _cutoff(measure: Any) -> int | None:
    cutoff: int | None = measure.params.get("cutoff")
    return cutoff


_FORMULAS: Mapping[str, Formula] = {
    "Accuracy": _compute_accuracy,
    "ERR": _compute_err,
    "infAP": _compute_infap,
    "NumQ": _count_query,
    "NumRel": _count_all_relevant,
    "NumRet": _count_found,
    "RBP": _compute_rbp,
    "SetF": _compute_set_f,
}
