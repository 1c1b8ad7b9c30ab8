"""How recall is measured."""

from __future__ import annotations

from crosslens.indexes.kinds.recall import choose_filter, measure_recall
from crosslens.indexes.storage.card import Card


def test_recall_counts_ties_and_no_others() -> None:
    truth = [[("a", 0.9), ("b", 0.8), ("c", 0.8), ("d", 0.1)]]
    assert measure_recall([[("a", 9.0), ("c", 7.0)]], truth, 2) == 1.0
    assert measure_recall([[("a", 9.0), ("d", 8.0)]], truth, 2) == 0.5
    assert measure_recall([[]], truth, 2) == 0.0
    # Of two that tie for the second place only one can have it.
    assert measure_recall([[("b", 1.0), ("c", 1.0)]], truth, 2) == 0.5


def test_the_filter_to_measure_with_keeps_about_a_twentieth() -> None:
    card = Card("lance", documents=1000, langs={"eng": 600, "zho": 340, "swa": 60})
    assert choose_filter(card) == ("swa", 0.06)
    assert choose_filter(Card("lance", documents=3)) is None
