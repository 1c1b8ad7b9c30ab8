"""The sorter of docs/extending.md: as short as the page says, and it sorts."""

from __future__ import annotations

import numpy as np
import pytest
from crosslens import Hit, Item, rank

from .pages import ROOT, read_blocks


@pytest.fixture
def example(tiny_judge):
    """The names of the example, and its text."""
    (block,) = [each for each in read_blocks(ROOT / "docs/extending.md") if "def quicksort" in each.text]
    names = {}
    exec(block.text.replace("offline:gemma", f"hf:{tiny_judge}"), names)
    return names, block.text


def test_a_sorter_of_twelve_lines_sorts_with_a_real_judge(example):
    names, text = example
    lines = text[text.index("def quicksort") :].split("\n\n\n")[0].splitlines()
    assert len(lines) <= 12
    texts = [f"The cat sleeps {n} hours a day." for n in range(9)]
    hits = rank("how long do cats sleep", [Item(f"d{n}", text) for n, text in enumerate(texts)], names["stage"])
    assert sorted(hit.id for hit in hits) == [f"d{n}" for n in range(9)]
    assert [hit.score for hit in hits] == [9, 8, 7, 6, 5, 4, 3, 2, 1]


@pytest.mark.parametrize("n", [0, 1, 2, 30])
@pytest.mark.parametrize("k", [1, 5, 40])
def test_that_sorter_finds_the_true_order(example, n, k):
    sort = example[0]["quicksort"]
    hits = [Hit(f"d{m}", float((m * 7) % 31)) for m in range(n)]
    sorting, answer = sort(hits, k), None
    while True:
        try:
            ask = sorting.send(answer)
        except StopIteration as stop:
            found = stop.value
            break
        answer = [np.array([hit.score for hit in group]) for group in ask.groups]
    assert found[:k] == sorted(hits, key=lambda hit: -hit.score)[:k]
    assert sorted(found) == sorted(hits)
