"""Languages brought to one level: what moves, and what stays."""

from __future__ import annotations

import math
from typing import Any

import pytest
from crosslens.errors import InputError
from crosslens.indexes.merging import BEST, FEWEST, check_merge, list_large, merge_languages

COUNTS = {"deu": 300, "rus": 300, "swa": 49, "": 500}


def search(lang: str | None, depth: int) -> Any:
    """German is 0.2 nearer to the query than Russian; Swahili and what has no language are the others."""
    first = {"deu": 0.9, "rus": 0.7, None: 0.8}[lang]
    return [[(f"{lang}{n}", first - n / 1000) for n in range(min(depth, 100))]]


def test_small_languages_and_those_without_one_keep_their_scores() -> None:
    assert list_large(COUNTS) == ["deu", "rus"]
    assert list_large({"deu": FEWEST, "rus": FEWEST - 1}) == []
    for strength in (0, 0.5, 1):
        (hits,) = merge_languages(search, COUNTS, 3, strength)
        scores = dict(hits)
        moved = strength * 0.1 * 300 / 400  # half of the distance of their levels
        assert scores["deu0"] == pytest.approx(0.9 - moved)
        assert scores["rus0"] == pytest.approx(0.7 + moved)
        assert scores["None0"] == 0.8


def test_a_language_of_which_few_documents_match_is_left_as_it_is() -> None:
    def filtered(lang: str | None, depth: int) -> Any:
        return [ranking[: BEST - 1] if lang == "rus" else ranking for ranking in search(lang, depth)]

    (hits,) = merge_languages(filtered, COUNTS, 3, 1)
    assert dict(hits)["rus0"] == 0.7
    assert dict(hits)["deu0"] == pytest.approx(0.9)  # it alone is the middle


@pytest.mark.parametrize("merge", [-0.1, 1.1, math.nan, True, "raw"])
def test_a_strength_is_a_number_from_0_to_1(merge: Any) -> None:
    with pytest.raises(InputError, match="merge must be a number from 0"):
        check_merge(merge)
