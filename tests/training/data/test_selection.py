"""Samples of documents: the same for a seed in any order, balanced, and refused in words where nothing is left."""

from __future__ import annotations

from collections import Counter

import pytest
from crosslens.errors import InputError
from crosslens.items import Item
from crosslens.training.data.selection import Selection, share_evenly
from hypothesis import given
from hypothesis import strategies as st

ITEMS = [Item(f"d{n}", "x" * (n + 1), lang=("eng", "zho", "rus")[(n % 10) // 4]) for n in range(100)]  # 40, 40, 20


@given(st.permutations(ITEMS), st.integers(1, 120), st.booleans(), st.integers(0, 3))
def test_a_sample_depends_on_seed_and_ids_alone(items, number, balance, seed):
    selection = Selection(number, balance=balance, seed=seed)
    one, other = selection.choose(ITEMS, "c"), selection.choose(items, "c")
    chosen = {item.id for item in ITEMS if item.id in one.ids}
    assert chosen == {item.id for item in items if item.id in other.ids}
    assert len(chosen) == one.number == min(number, 100)
    assert one.langs == Counter(item.lang for item in ITEMS if item.id in chosen)
    if balance:
        assert one.langs == {
            lang: n for lang, n in share_evenly(number, {"eng": 40, "zho": 40, "rus": 20}).items() if n
        }


@given(st.integers(0, 200), st.dictionaries(st.text(max_size=3), st.integers(1, 40), max_size=6))
def test_shares_are_even_as_far_as_there_is_enough(number, held):
    shares = share_evenly(number, held)
    assert sum(shares.values()) == min(number, sum(held.values()))
    assert all(0 <= shares[group] <= held[group] for group in held)
    short = [shares[group] for group in held if shares[group] < held[group]]
    assert not short or max(shares.values()) - min(short) <= 1


def test_languages_and_lengths():
    choice = Selection(langs=("zho", "rus"), shortest=11, longest=90).choose([*ITEMS, Item("photo", image=b"x")], "c")
    assert choice.langs == {"rus": 16, "zho": 32}
    assert choice.passed_over == {"other_language": 40, "too_long": 6, "too_short": 6, "without_text": 1}
    assert choice.read == 101


@pytest.mark.parametrize(
    ("selection", "items", "part"),
    [
        ({}, [], "c has no documents"),
        ({"langs": ("fra", "deu")}, ITEMS, "c has no documents in fra, deu, only in eng, zho, rus"),
        ({"shortest": 500}, ITEMS, "none of the 100 documents of c can get a query: 100 too short"),
        ({}, [Item("photo", image=b"x")], "none of the 1 documents of c can get a query: 1 without text"),
    ],
)
def test_nothing_is_left(selection, items, part):
    with pytest.raises(InputError) as error:
        Selection(**selection).choose(items, "c")
    assert part in str(error.value)


@pytest.mark.parametrize("wrong", [{"documents": 0}, {"shortest": 9, "longest": 8}, {"balance": True}, {"shortest": 0}])
def test_what_no_selection_can_be(wrong):
    with pytest.raises(InputError):
        Selection(**wrong)
