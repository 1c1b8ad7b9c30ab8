"""Batches of examples: seeded, the same after a kill, languages mixed or apart, no document a negative of its query."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from torch.utils.data import Dataset

from ...errors import InputError
from ...items import Item
from ..data.examples import Example
from ..recipe import EncoderRecipe

Pair = tuple[str, str]  # of languages, of a query and its documents


@dataclass(frozen=True)
class TrainingBatch:
    """What a step learns from: each text once.

    `asked` and `answered`, int64 [n], say which query and which document belong together. `allowed`, bool
    [n, documents], which documents compete for a query: its positive, and all that are not known to be positives too.
    `listed`, int64 [n, most], are the documents that a teacher scored, `scores` float32 [n, most], -inf where there
    are fewer.
    """

    queries: Sequence[Item]
    documents: Sequence[Item]
    asked: torch.Tensor
    answered: torch.Tensor
    allowed: torch.Tensor
    listed: torch.Tensor
    scores: torch.Tensor


@dataclass
class Material:
    """Examples in memory, each text once; numbers stand for texts, and for documents that are the same."""

    texts: list[Item] = field(default_factory=list)
    same: list[int] = field(default_factory=list)  # of each text, by which documents are known to be one
    queries: list[int] = field(default_factory=list)
    positives: list[tuple[int, ...]] = field(default_factory=list)
    negatives: list[tuple[int, ...]] = field(default_factory=list)
    scores: list[tuple[float, ...]] = field(default_factory=list)
    pairs: list[Pair] = field(default_factory=list)
    known: dict[int, set[int]] = field(default_factory=dict)  # query -> `same` of all its positives
    _numbers: dict[object, int] = field(default_factory=dict)
    _ids: dict[tuple[str, str, str], int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.queries)

    def add(self, examples: Iterable[Example], source: str = "") -> range:
        """Add examples and give their numbers; ids of different sources are not compared."""
        first = len(self)
        for example in examples:
            query = self._number("query", example.query, source)
            positives = tuple(self._number("document", each, source) for each in example.positives)
            self.queries.append(query)
            self.positives.append(positives)
            self.negatives.append(tuple(self._number("document", each, source) for each in example.negatives))
            self.scores.append(example.scores)
            self.pairs.append((example.query.lang or "", example.positives[0].lang or ""))
            self.known.setdefault(query, set()).update(self.same[each] for each in positives)
        return range(first, len(self))

    def _number(self, role: str, item: Item, source: str) -> int:
        content = item.text if item.image is None else (item.text, str(item.image), item.id, source)
        number = self._numbers.setdefault((role, content), len(self.texts))
        if number == len(self.texts):
            self.texts.append(item)
            self.same.append(number)
        # A document in several wordings has one id; two ids of one wording are one document.
        self.same[number] = self._ids.setdefault((role, source, item.id), self.same[number])
        return number


class Batches(Dataset[TrainingBatch]):
    """The batches of a whole training, by the number of the step; the same for the same seed, however often asked."""

    def __init__(self, material: Material, own: range, replayed: range, recipe: EncoderRecipe, steps: int) -> None:
        self.material, self.recipe, self.steps = material, recipe, steps
        share = recipe.replay_share if len(replayed) else 0.0
        self.others = round(share * recipe.batch)
        if recipe.batch <= self.others:
            raise InputError(f"a batch of {recipe.batch} with replay_share {share} holds no example of the data itself")
        self._streams = [
            Stream(material, numbers, recipe, size)
            for numbers, size in ((own, recipe.batch - self.others), (replayed, self.others))
            if size
        ]

    def __len__(self) -> int:
        return self.steps

    @property
    def epoch(self) -> int:
        """The number of steps in which each of the data's own examples is seen once."""
        return self._streams[0].steps

    def __iter__(self) -> Iterator[TrainingBatch]:
        return map(self.__getitem__, range(self.steps))

    def __getitem__(self, step: int) -> TrainingBatch:
        chosen = [number for stream in self._streams for number in stream.take(step)]
        return self.join(chosen, np.random.default_rng([self.recipe.seed, 1, step]))

    def join(self, chosen: Sequence[int], rng: np.random.Generator) -> TrainingBatch:
        """The batch of examples: of each its query, one of its positives, and some of its hard negatives."""
        of, most = self.material, self.recipe.negatives
        queries: dict[int, int] = {}
        documents: dict[int, int] = {}
        asked, answered, listed, scores = [], [], [], []
        for number in chosen:
            positives, negatives = of.positives[number], of.negatives[number]
            first = int(rng.integers(len(positives)))
            rest = rng.permutation(len(negatives))[:most].tolist()
            asked.append(queries.setdefault(of.queries[number], len(queries)))
            places = [
                documents.setdefault(each, len(documents)) for each in (positives[first], *(negatives[n] for n in rest))
            ]
            answered.append(places[0])
            listed.append(places)
            given = of.scores[number]
            scores.append([given[first], *(given[len(positives) + n] for n in rest)] if given else [])
        same = np.array([of.same[each] for each in documents])
        rows = [np.isin(same, list(of.known[of.queries[number]]), invert=True) for number in chosen]
        allowed = torch.from_numpy(np.stack(rows))
        allowed[torch.arange(len(chosen)), torch.tensor(answered)] = True
        width = max(map(len, listed))
        return TrainingBatch(
            [of.texts[each] for each in queries],
            [of.texts[each] for each in documents],
            torch.tensor(asked),
            torch.tensor(answered),
            allowed,
            torch.tensor([[*places, *[places[0]] * (width - len(places))] for places in listed]),
            torch.tensor([[*row, *[-torch.inf] * (width - len(row))] for row in scores]),
        )


class Stream:
    """The order in which examples come, in batches of one size, epoch after epoch."""

    def __init__(self, material: Material, numbers: range, recipe: EncoderRecipe, size: int) -> None:
        if not len(numbers):
            raise InputError("no examples to train on")
        self.recipe, self.size, self.count = recipe, size, len(numbers)
        groups: dict[Pair, list[int]] = {}
        for number in numbers:
            groups.setdefault(material.pairs[number], []).append(number)
        self.groups = [np.array(group) for _, group in sorted(groups.items())]
        self.first = numbers.start
        self._epoch: tuple[int, list[list[int]]] | None = None

    @cached_property
    def steps(self) -> int:
        """Batches an epoch; the same number each epoch."""
        return len(self.plan(0))

    def take(self, step: int) -> list[int]:
        """The examples of a step."""
        epoch, place = divmod(step, self.steps)
        if self._epoch is None or self._epoch[0] != epoch:
            self._epoch = epoch, self.plan(epoch)
        return self._epoch[1][place]

    def plan(self, epoch: int) -> list[list[int]]:
        """The batches of an epoch: every example once, or where languages are balanced as many of each pair."""
        rng = np.random.default_rng([self.recipe.seed, 0, self.first, epoch])
        groups = [rng.permutation(group) for group in self.groups]
        if self.recipe.balance:
            each = -(-self.count // len(groups))
            groups = [_repeat(group, each, rng) for group in groups]
        if self.recipe.languages == "apart":
            batches = [batch for group in groups for batch in self._cut(group)]
        else:
            batches = self._cut(rng.permutation(np.concatenate(groups)))
        return [batches[place] for place in rng.permutation(len(batches))]

    def _cut(self, order: np.ndarray) -> list[list[int]]:
        """Batches of one size; what is left over is made up from the beginning, so that no example is left out."""
        count = -(-len(order) // self.size)
        return np.resize(order, (count, self.size)).tolist()


def _repeat(group: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """So many of a group: all of it as often as it goes in, and a sample of the rest."""
    rounds, rest = divmod(count, len(group))
    return np.concatenate([*(rng.permutation(group) for _ in range(rounds)), rng.permutation(group)[:rest]])
