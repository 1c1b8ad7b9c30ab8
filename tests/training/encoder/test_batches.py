"""Batches: the same for the same seed, languages as asked, and no document against a query that it answers."""

from __future__ import annotations

import tempfile
from collections import Counter
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from crosslens.errors import InputError
from crosslens.items import Item
from crosslens.training.data.examples import Example
from crosslens.training.encoder.batches import Batches, Material
from crosslens.training.recipe import EncoderRecipe

from ..drawn import draw_examples
from .conftest import make_examples

RECIPE = EncoderRecipe(batch=8, negatives=2)


def plan(examples: list[Example], recipe: EncoderRecipe, steps: int = 10, replayed: list[Example] | None = None):
    material = Material(Path(tempfile.gettempdir()))
    own = material.add(examples)
    return Batches(material, own, material.add(replayed or [], "replay"), recipe, steps)


def langs(batch) -> list[str]:
    return [batch.queries[place].lang for place in batch.asked.tolist()]


def test_an_epoch_has_every_example_and_the_order_is_the_seeds():
    batches = plan(make_examples(40), RECIPE)
    assert batches.epoch == 5
    ids = [[each.id for each in batch.queries] for batch in batches]
    for epoch in (ids[:5], ids[5:]):
        assert sorted(id for batch in epoch for id in batch) == sorted(f"q{n}" for n in range(40))
    assert ids[:5] != ids[5:]
    later = plan(make_examples(40), RECIPE)
    assert [each.id for each in later[7].queries] == ids[7]  # as when a training goes on from there
    assert [each.id for each in plan(make_examples(40), replace(RECIPE, seed=1))[0].queries] != ids[0]


def test_languages_are_mixed_or_apart():
    mixed = [set(langs(batch)) for batch in plan(make_examples(40), RECIPE)]
    apart = [set(langs(batch)) for batch in plan(make_examples(40), replace(RECIPE, languages="apart"))]
    assert {"eng", "deu"} in mixed
    assert all(len(spoken) == 1 for spoken in apart)
    assert {"eng"} in apart
    assert {"deu"} in apart


def test_balanced_languages_are_seen_equally_often():
    few = [each for n, each in enumerate(make_examples(40)) if each.query.lang == "eng" or n < 8]
    for balance, least, most in ((False, 0.1, 0.25), (True, 0.45, 0.55)):
        batches = plan(few, replace(RECIPE, balance=balance), steps=plan(few, RECIPE).epoch)
        counts = Counter(lang for batch in batches for lang in langs(batch))
        assert least <= counts["deu"] / counts.total() <= most


def test_what_answers_a_query_never_competes_for_it():
    shared = Item("s", "shared text")
    examples = [
        Example(Item("q1", "one"), (Item("a", "text a"),), (Item("n1", "text n"),)),
        Example(Item("q1b", "one"), (Item("b", "text b"),)),  # the same query in other words' id
        Example(Item("q2", "two"), (shared,), (Item("a", "text a"),)),  # a positive of q1 is its hard negative
        Example(Item("q3", "three"), (Item("other", "shared text"),)),  # the same text under another id
        Example(Item("q4", "four"), (Item("s", "shared text, translated"),)),  # the same id in another wording
    ]
    batch = plan(examples, replace(RECIPE, batch=5), 1)[0]
    texts = [each.text for each in batch.documents]
    assert len(texts) == len(set(texts)) == 5
    assert len(batch.queries) == 4
    competing = {
        batch.queries[asked].text: {text for text, may in zip(texts, row, strict=True) if may}
        for asked, row in zip(batch.asked.tolist(), batch.allowed.tolist(), strict=True)
        if batch.queries[asked].text != "one"
    }
    assert competing["two"] == {"shared text", "text a", "text b", "text n"}
    assert competing["three"] == {"shared text", "text a", "text b", "text n"}
    assert competing["four"] == {"shared text, translated", "text a", "text b", "text n"}
    ones = [
        row
        for asked, row in zip(batch.asked.tolist(), batch.allowed, strict=True)
        if batch.queries[asked].text == "one"
    ]
    assert [int(row.sum()) for row in ones] == [4, 4]  # of its two positives only the one of the example


def test_replayed_examples_are_a_share_of_each_batch():
    others = [Example(Item(f"r{n}", f"replay {n}"), (Item(f"d{n}", f"replayed {n}"),)) for n in range(9)]
    batches = plan(make_examples(40), replace(RECIPE, replay="x", replay_share=0.25), 12, others)
    assert [sum(query.id[0] == "r" for query in batch.queries) for batch in batches] == [2] * 12
    with pytest.raises(InputError, match="holds no example of the data itself"):
        plan(make_examples(40), replace(RECIPE, batch=1, replay="x", replay_share=0.9), 1, others)


def test_scores_follow_their_documents():
    batch = plan(make_examples(16, negatives=3, scored=True), RECIPE, 1)[0]
    assert batch.listed.shape == batch.scores.shape == (8, 3)  # a positive and two of three
    for places, scores in zip(batch.listed.tolist(), batch.scores.tolist(), strict=True):
        ids = [batch.documents[place].id for place in places]
        assert scores == [2.0 if id[0] == "d" else -float(id.rpartition("-")[2]) for id in ids]
    bare = plan(make_examples(16), RECIPE, 1)[0]
    assert bare.scores.numel() == 0 or torch.isinf(bare.scores).all()


class InMemory:
    """What `Material` was before its texts lay on disk, in the plainest way: `Batches` draw the same from both."""

    def __init__(self) -> None:
        self.items: list[Item] = []
        self.same, self.queries, self.positives, self.negatives, self.scores, self.pairs = ([] for _ in range(6))
        self.known: dict[int, set[int]] = {}
        self.numbers: dict[object, int] = {}
        self.ids: dict[object, int] = {}

    def add(self, examples: list[Example], source: str = "") -> range:
        first = len(self.queries)
        for example in examples:
            query = self.number("query", example.query, source)
            positives = [self.number("document", each, source) for each in example.positives]
            self.queries.append(query)
            self.positives.append(positives)
            self.negatives.append([self.number("document", each, source) for each in example.negatives])
            self.scores.append(example.scores)
            self.pairs.append((example.query.lang or "", example.positives[0].lang or ""))
            self.known.setdefault(query, set()).update(self.same[each] for each in positives)
        return range(first, len(self.queries))

    def number(self, role: str, item: Item, source: str) -> int:
        content = item.text if item.image is None else (item.text, str(item.image), item.id, source)
        number = self.numbers.setdefault((role, content), len(self.items))
        if number == len(self.items):
            self.items.append(item)
            self.same.append(number)
        self.same[number] = self.ids.setdefault((role, source, item.id), self.same[number])
        return number

    def find_answers(self, query: int) -> list[int]:
        return list(self.known[query])

    def group(self, numbers: range) -> list[np.ndarray]:
        groups: dict[tuple[str, str], list[int]] = {}
        for number in numbers:
            groups.setdefault(self.pairs[number], []).append(number)
        return [np.array(group) for _, group in sorted(groups.items())]


@pytest.mark.parametrize("how", [{}, {"languages": "apart"}, {"balance": True, "seed": 3}, {"replay_share": 0.25}])
def test_batches_are_those_of_examples_in_memory(how: dict[str, object], tmp_path: Path):
    recipe = replace(RECIPE, **how)
    made = []
    for material in (Material(tmp_path), InMemory()):
        own = material.add(draw_examples(1500, 1))
        replayed = material.add(draw_examples(200, 2), "replay")
        if isinstance(material, Material):
            material.finish()
        made.append(Batches(material, own, replayed if how.get("replay_share") else range(0), recipe, 500))
    assert made[0].epoch == made[1].epoch < 400  # so that there is a second one
    for ours, plain in zip(*made, strict=True):
        for field in fields(ours):
            one, other = getattr(ours, field.name), getattr(plain, field.name)
            assert torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other
    assert not list(tmp_path.iterdir())  # the file has no name that a kill could leave
