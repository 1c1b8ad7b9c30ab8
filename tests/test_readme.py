"""The README's examples of reranking, run as they stand but for the model."""

from __future__ import annotations

import re
from pathlib import Path

import crosslens
import pytest
from crosslens import Item, rank

README = Path(crosslens.__file__).with_name("README.md").read_text("utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.fixture
def example(tiny_judge):
    def run(holding: str):
        (block,) = [block for block in BLOCKS if holding in block]
        assert "offline:gemma" in block
        names = {}
        exec(block.replace("offline:gemma", f"hf:{tiny_judge}"), names)
        return names, block

    return run


def test_rank_of_texts(example):
    names, _ = example("hits = rank(")
    assert sorted(hit.id for hit in names["hits"]) == ["0", "1"]


def test_a_sorter_of_twelve_lines_sorts_with_a_real_judge(example):
    names, block = example("def quicksort")
    lines = block[block.index("def quicksort") :].split("\n\n\n")[0].splitlines()
    assert len(lines) <= 12
    texts = [f"The cat sleeps {n} hours a day." for n in range(9)]
    hits = rank(
        "how long do cats sleep", [Item(f"d{n}", text) for n, text in enumerate(texts)], names["stage"]
    )
    assert sorted(hit.id for hit in hits) == [f"d{n}" for n in range(9)]
    assert len({hit.score for hit in hits}) == 9


@pytest.mark.parametrize("n", [0, 1, 2, 30])
@pytest.mark.parametrize("k", [1, 5, 40])
def test_that_sorter_finds_the_true_order(example, n, k):
    import numpy as np
    from crosslens import Hit

    sort = example("def quicksort")[0]["quicksort"]
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
