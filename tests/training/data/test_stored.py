"""Examples on disk: equal to those that were given, each item once, in a file that nobody sees."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import PIL.Image
import pytest
from crosslens.items import Item
from crosslens.training.data import stored
from crosslens.training.data.example import Example
from crosslens.training.data.stored import DigestTable, StoredExamples

from ..drawn import draw_examples


def test_examples_come_back_as_they_were(tmp_path: Path):
    examples = draw_examples(300, 1)
    picture = Item("p", image=PIL.Image.new("RGB", (2, 2)))
    examples += [Example(Item("q", "", lang="eng"), (picture, replace(picture, id="b", image=b"x"))), examples[7]]
    held = StoredExamples(examples, tmp_path)
    assert list(held) == held[:] == examples
    assert held[7] == held[-1]
    assert len(held.items) == len({repr(each) for some in examples for each in (some.query, *some.documents)})
    held.keep(lambda example: bool(example.negatives))
    held.keep(lambda example: example.query.lang == "deu")
    assert list(held) == [each for each in examples if each.negatives and each.query.lang == "deu"]
    assert not list(tmp_path.iterdir())
    held.close()


def test_digests_find_the_numbers_of_a_dictionary(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(stored, "MOVED", 100)
    lots, plain, table = random.Random(0), {}, DigestTable()
    # Multiples of the size come to one slot, and the last slots are followed by the first.
    near = [0, 1024, 1023, -5, *(1024 * lots.randrange(9**9) + 1020 for _ in range(300))]
    for digest in (*near, *(lots.randrange(2**60) for _ in range(5000)), *near):
        number = lots.randrange(3000)
        assert table.setdefault(digest, number) == plain.setdefault(digest, number)
    assert all(table.setdefault(digest, 5000) == number for digest, number in plain.items())
