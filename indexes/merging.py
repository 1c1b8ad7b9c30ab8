"""The documents of all languages in one ranking: how near each language comes to a query is evened out, in part."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from numbers import Real

import numpy as np

from ..errors import InputError
from ..runs import Rankings
from .moments import Moments
from .storage.filters import Where, list_spellings, list_values

# Chosen with e5-small on the dev halves of LibreOffice's help in 2 languages and of Debian's descriptions in 4, as they
# are and with each page in one of the languages only (benchmarks/merging.py): of strengths 0.25, 0.5, 0.75 and 1 the
# second is best, or within 0.001 of the best. On pages of the help in 10 languages the 5 best documents in place of 20
# were better where all languages answer and worse where one does, and 50 the other way round.
STRENGTH = 0.5
BEST = 20
# A language of so many documents is brought half as far as one of very many; smaller ones than FEWEST stay as they are.
TRUST = 100
FEWEST = 50


def check_merge(merge: float) -> None:
    """`InputError` unless it is a number from 0 to 1."""
    if not isinstance(merge, Real) or isinstance(merge, bool) or not 0 <= merge <= 1 or math.isnan(merge):
        raise InputError(f"merge must be a number from 0 (scores as they are) to 1, not {merge!r}")


def count_languages(moments: Moments, where: Where | None, stored: Iterable[str]) -> dict[str, int]:
    """How many texts a space has of each language that a filter lets through; `stored` are the index's languages."""
    wanted = {code for each in list_values(where, "lang") for code in list_spellings(str(each), stored)}
    counts = {lang: total.count for lang, total in moments.languages.items()}
    return {lang: count for lang, count in counts.items() if not wanted or lang in wanted}


def list_large(counts: Mapping[str, int]) -> list[str]:
    """The languages that are merged, of those with so many documents: none, or at least two."""
    large = [lang for lang, count in counts.items() if lang and count >= FEWEST]
    return large if len(large) > 1 else []


def merge_languages(found: Mapping[str | None, Rankings], counts: Mapping[str, int], strength: float) -> Rankings:
    """The best documents of each query, in no order, from those `found` by language (20 or more), others under None.

    A query's level in a language is the mean score of its 20 best documents there. Scores of a language are lowered
    by `strength` times its level's distance to the mean of the levels, in the proportion n / (n + 100) of its
    documents `counts[lang]`. Languages with fewer than 50 documents, and those of which fewer than 20 match, keep
    their scores. So equal evidence counts alike in all languages, and a language that alone answers a query stays
    ahead of the others as long as `strength` is below 1.
    """
    merged: Rankings = []
    for row in range(len(found[None])):
        steps = find_steps(found, row, counts, strength)
        hits: list[tuple[str, float]] = []
        for lang, rankings in found.items():
            step = steps.get(lang, 0.0)
            hits += [(doc, score - step) for doc, score in rankings[row]]
        merged.append(hits)
    return merged


def find_steps(
    found: Mapping[str | None, Rankings], row: int, counts: Mapping[str, int], strength: float
) -> dict[str | None, float]:
    """By how much the scores of a query are lowered in each language that is."""
    best = {lang: rankings[row] for lang, rankings in found.items() if lang and len(rankings[row]) >= BEST}
    levels = {lang: _find_level(ranking) for lang, ranking in best.items()}
    middle = float(np.mean(list(levels.values()))) if levels else 0.0
    return {lang: strength * counts[lang] / (counts[lang] + TRUST) * (level - middle) for lang, level in levels.items()}


def _find_level(ranking: Sequence[tuple[str, float]]) -> float:
    return float(np.mean(sorted((score for _, score in ranking), reverse=True)[:BEST]))
