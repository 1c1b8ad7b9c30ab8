"""Fusion: languages keep the ranks that dense search gave them, and spaces are averaged where they have a score."""

from __future__ import annotations

import numpy as np
import pytest
from crosslens.indexes.fusion import average_scores, fuse_hybrid, lift_holders, weigh_names
from crosslens.pipeline import reciprocal_ranks
from crosslens.runs import Hit, rank_hits
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


def test_documents_that_hold_a_name_rise_within_their_language_by_how_rare_it_is() -> None:
    dense = [
        Hit(doc, score) for doc, score in (("zho0", 9.0), ("rus0", 8.0), ("rus1", 7.9), ("zho1", 7.5), ("rus2", 5.0))
    ]
    counts = {"rus": 1000, "zho": 3}
    holders = weigh_names([[Hit("rus1", 2.0), Hit("zho1", 1.0), Hit("rus9", 3.0)]], lang, counts)
    # In 2 of 1,000 and 1 of 3 documents; of the equal ones the one with the better score comes first.
    assert [hit.id for hit in holders] == ["rus9", "rus1", "zho1"]
    assert [hit.score for hit in holders] == pytest.approx([np.log(1 + 998.5 / 2.5)] * 2 + [np.log(1 + 2.5 / 1.5)])
    lifted = lift_holders(dense, holders, lang)
    assert [hit.id for hit in lifted] == ["zho0", "rus1", "rus9", "zho1", "rus0", "rus2"]
    assert [hit.score for hit in lifted[:5]] == [9.0, 8.0, 7.9, 7.5, 5.0]
    assert lifted[5].score < 5
    # A name that all documents hold changes nothing, and one of no document neither.
    common = weigh_names([[Hit(f"rus{n}", 1.0) for n in (2, 1, 0)]], lang, {"rus": 3})
    assert [hit.id for hit in lift_holders(dense, common, lang)] == [hit.id for hit in dense]
    assert lift_holders(dense, [], lang) == dense
    assert lift_holders([], holders, lang) == []


@given(rankings, st.lists(st.sampled_from(DOCS), unique=True), st.integers(1, 6))
def test_lifting_keeps_languages_at_their_places_however_deep_the_ranking_goes(order, held, head) -> None:
    dense, holders = hits(order), [Hit(doc, 3.0) for doc in held]
    lifted = lift_holders(dense, holders, lang, head)
    assert [lang(hit.id) for hit in lifted[: len(order)]] == [lang(doc) for doc in order]
    assert not order or sorted(hit.id for hit in lifted) == sorted({*order, *held})
    first, places = lift_holders(dense[:head], holders, lang, head), len(order[:head])
    assert [hit.id for hit in first[:places]] == [hit.id for hit in lifted[:places]]
