"""Fusion: languages keep the ranks that dense search gave them, and spaces are averaged where they have a score."""

from __future__ import annotations

import numpy as np
from crosslens.indexes.fusion import average_scores, fuse_hybrid
from crosslens.pipeline import reciprocal_ranks
from crosslens.runs import rank_hits
from hypothesis import given
from hypothesis import strategies as st

DOCS = [f"{lang}{n}" for lang in ("eng", "zho", "rus") for n in range(4)]
rankings = st.permutations(DOCS).flatmap(lambda order: st.integers(0, len(DOCS)).map(lambda n: order[:n]))


def hits(order):
    return rank_hits((doc, 100.0 - rank) for rank, doc in enumerate(order))


def lang(doc):
    return doc[:3]


def test_by_hand():
    dense = hits(["zho0", "eng0", "eng1", "rus0"])
    lexical = hits(["eng1", "eng2"])
    # eng1 is 2nd and 1st among English, eng0 1st alone, eng2 2nd alone; Chinese and Russian stay where they were.
    assert [hit.id for hit in fuse_hybrid(dense, lexical, lang)] == ["zho0", "eng1", "eng0", "rus0", "eng2"]


@given(rankings, rankings)
def test_languages_keep_their_ranks_and_nothing_is_lost(one, other):
    fused = fuse_hybrid(hits(one), hits(other), lang)
    assert [lang(hit.id) for hit in fused[: len(one)]] == [lang(doc) for doc in one]
    assert sorted(hit.id for hit in fused) == sorted({*one, *other})
    scores = [hit.score for hit in fused]
    assert scores == sorted(set(scores), reverse=True)


@given(rankings, rankings)
def test_in_one_language_it_is_reciprocal_rank_fusion(one, other):
    fused = fuse_hybrid(hits(one), hits(other), lambda doc: "eng")
    expected = reciprocal_ranks([hits(one), hits(other)])
    head = [hit.id for hit in fused]
    assert [expected[doc] for doc in head] == sorted(expected.values(), reverse=True)


def test_full_text_says_nothing_of_documents_in_other_languages_than_the_query():
    dense = hits(["zho0", "eng0", "zho1", "eng1", "rus0"])
    assert [hit.id for hit in fuse_hybrid(dense, hits(["eng1", "eng2"]), lang)] == [
        "zho0",
        "eng1",
        "zho1",
        "eng0",
        "rus0",
        "eng2",
    ]
    assert [hit.id for hit in fuse_hybrid(dense, (), lang)] == [hit.id for hit in dense]


def test_scores_are_averaged_over_the_spaces_that_have_the_document() -> None:
    nan = np.nan
    scores = np.array([[1, nan, nan, -2], [3, 4, nan, nan]], np.float32)
    fused = average_scores(scores)
    assert fused.dtype == np.float32
    np.testing.assert_array_equal(fused, np.array([2, 4, nan, -2], np.float32))
    assert average_scores(np.zeros((0, 3), np.float32)).shape == (3,)
