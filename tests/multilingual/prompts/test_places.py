"""How often a judge chose each place of a set, by language of the prompt."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from crosslens.items import Item
from crosslens.multilingual.judges import Completion
from crosslens.multilingual.prompts import load_prompt
from crosslens.multilingual.prompts.places import describe_places, leave_out_places, read_places

DOCS = tuple(Item(f"d{n}", f"text {n}", lang="rus") for n in range(4))


class Stubborn:
    """Chooses one place, whatever stands there."""

    name, modalities, can, chats = "stubborn", frozenset({"text"}), frozenset({"choose", "generate"}), False

    def __init__(self, place: int, text: str = "") -> None:
        self.place, self.text = place, text

    def choose(self, prompts, labels):
        return np.tile(np.log(np.eye(len(labels))[self.place] * 0.5 + 0.1), (len(prompts), 1))

    def generate(self, prompts, **sampling):
        return [Completion(self.text, 3) for _ in prompts]


@pytest.mark.parametrize(("orders", "asked"), [("given", 30), ("both", 60), ("rotations", 120)])
def test_places_are_counted_as_answers_are_given_by_language_and_size(orders, asked):
    prompt = replace(load_prompt("setwise"), orders=orders, language="document")
    russian, unknown = Item("q", "кошка", lang="rus"), tuple(replace(each, lang=None) for each in DOCS[:3])
    count: Counter[str] = Counter(calls=1)
    prompt.score(Stubborn(2), [(russian, DOCS)] * 30 + [(russian, unknown)] * 2, count)
    small = 2 * len(prompt.list_orders(3))
    assert read_places(count) == {("eng", 3): [0, 0, small], ("rus", 4): [0, 0, asked, 0]}
    assert leave_out_places(count) == {"calls": 1, "prompt_not_in_und": 2}
    (line,) = describe_places(count, "stubborn", "setwise")
    assert line.startswith(
        f"stubborn, prompt setwise in rus: of 4 places it chose each in 0, 0, 100, 0 % of {asked} sets;"
    )
    assert "it does not compare: if they are not in use yet, try orders=both" in line


def test_an_even_judge_is_described_without_advice():
    counts = {f"chosen_eng_{place}_of_2": 30.0 + place for place in (1, 2)}
    (line,) = describe_places(counts, "even", "pairwise")
    assert line == "even, prompt pairwise in eng: of 2 places it chose each in 49, 51 % of 63 sets"


@pytest.mark.parametrize("text", ["", "I'm sorry, I cannot do that.", "no idea whatsoever"])
def test_an_answer_that_ranks_nothing_chooses_no_place(text):
    count: Counter[str] = Counter()
    (scores,) = load_prompt("listwise").score(Stubborn(0, text), [(Item("q", "x"), DOCS)], count)
    assert scores.tolist() == [0.0] * 4
    assert not read_places(count)
    assert sum(count.values()) == 1  # the fault
    (scores,) = load_prompt("listwise").score(Stubborn(0, "[3] > [1] > [2] > [4]"), [(Item("q", "x"), DOCS)], count)
    assert read_places(count) == {("eng", 4): [0, 0, 1, 0]}
