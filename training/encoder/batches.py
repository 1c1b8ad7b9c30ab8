"""Batches of examples: seeded, the same after a kill, languages mixed or apart, no document a negative of its query."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset

from ...errors import InputError
from ...items import Item, Modality
from ..data.examples import Example
from ..data.stored import DigestTable, ItemStore, RaggedArray
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


class Material:
    """Examples whose texts lie in a file in `folder`, each once; numbers stand for texts, and for what is the same.

    In memory are about 50 bytes an example and 12 a text, and until `finish` is called 18 to 54 more of each text.
    `OSError` where the disk is full.
    """

    def __init__(self, folder: Path) -> None:
        self.items = ItemStore(folder)
        self.same = array("I")  # of each item, by which documents are known to be one
        self.queries = array("I")
        self.positives, self.negatives = RaggedArray[int]("I"), RaggedArray[int]("I")
        self.scores = RaggedArray[float]("d")
        self.modalities: set[Modality] = set()  # of all items
        self._answers = RaggedArray[int]("I")  # `same` of the positives, as it was known when they were added
        self._pairs = array("I")
        self._pair_numbers: dict[Pair, int] = {}
        self.finish()

    def __len__(self) -> int:
        return len(self.queries)

    def add(self, examples: Iterable[Example], source: str = "") -> range:
        """Add examples and give their numbers; ids of different sources are not compared."""
        first = len(self)
        for example in examples:
            query = self._number("query", example.query, source)
            positives = [self._number("document", each, source) for each in example.positives]
            self.queries.append(query)
            self.positives.append(positives)
            self.negatives.append([self._number("document", each, source) for each in example.negatives])
            self.scores.append(example.scores)
            self._answers.append([self.same[each] for each in positives])
            pair = example.query.lang or "", example.positives[0].lang or ""
            self._pairs.append(self._pair_numbers.setdefault(pair, len(self._pair_numbers)))
        self.__dict__.pop("_by_query", None)
        return range(first, len(self))

    def finish(self) -> None:
        """Forget which texts and ids there are, once all examples are added."""
        self._numbers, self._ids = DigestTable(), DigestTable()

    def close(self) -> None:
        """Give the disk's room back."""
        self.items.close()

    def list_queries(self, numbers: range) -> Iterator[Item]:
        """The queries of examples, each once, in the order of their numbers."""
        return map(self.items.__getitem__, np.unique(self.queries[numbers.start : numbers.stop]).tolist())

    def group(self, numbers: range) -> list[np.ndarray]:
        """Examples by their pair of languages, int64 each, pairs in order."""
        pairs = np.frombuffer(self._pairs, np.uint32)[numbers.start : numbers.stop]
        groups = [np.flatnonzero(pairs == each) + numbers.start for _, each in sorted(self._pair_numbers.items())]
        return [group for group in groups if len(group)]

    def find_answers(self, query: int) -> np.ndarray:
        """`same` of all positives of a query, whichever examples have it."""
        order, queries = self._by_query
        # Of another type, numbers would have all of `queries` copied.
        first, end = queries.searchsorted(np.array([query, query + 1], queries.dtype))
        return np.concatenate([self._answers[each] for each in order[first:end].tolist()])

    @cached_property
    def _by_query(self) -> tuple[np.ndarray, np.ndarray]:
        queries = np.frombuffer(self.queries, np.uint32)
        order = np.argsort(queries, kind="stable").astype(np.uint32)
        return order, queries[order]

    def _number(self, role: str, item: Item, source: str) -> int:
        count = len(self.items)
        content = item.text if item.image is None else (item.text, str(item.image), item.id, source)
        number = self._numbers.setdefault((role, content), count)
        if number == count:
            self.items.append(item)
            self.same.append(number)
            self.modalities |= item.modalities
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
        rows = [np.isin(same, of.find_answers(of.queries[number]), invert=True) for number in chosen]
        allowed = torch.from_numpy(np.stack(rows))
        allowed[torch.arange(len(chosen)), torch.tensor(answered)] = True
        width = max(map(len, listed))
        return TrainingBatch(
            [of.items[each] for each in queries],
            [of.items[each] for each in documents],
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
        self.groups = material.group(numbers)
        self.first = numbers.start
        self._epoch: tuple[int, np.ndarray] | None = None

    @cached_property
    def steps(self) -> int:
        """Batches an epoch; the same number each epoch."""
        return len(self.plan(0))

    def take(self, step: int) -> list[int]:
        """The examples of a step."""
        epoch, place = divmod(step, self.steps)
        if self._epoch is None or self._epoch[0] != epoch:
            self._epoch = epoch, self.plan(epoch)
        return list(self._epoch[1][place].tolist())

    def plan(self, epoch: int) -> np.ndarray:
        """The batches of an epoch, int64 [steps, size]: every example once, or as many of each pair of languages."""
        rng = np.random.default_rng([self.recipe.seed, 0, self.first, epoch])
        groups = [rng.permutation(group) for group in self.groups]
        if self.recipe.balance:
            each = -(-self.count // len(groups))
            groups = [_repeat(group, each, rng) for group in groups]
        if self.recipe.languages == "apart":
            batches = np.concatenate([self._cut(group) for group in groups])
        else:
            batches = self._cut(rng.permutation(np.concatenate(groups)))
        return batches[rng.permutation(len(batches))]

    def _cut(self, order: np.ndarray) -> np.ndarray:
        """Batches of one size; what is left over is made up from the beginning, so that no example is left out."""
        count = -(-len(order) // self.size)
        return np.resize(order, (count, self.size))


def _repeat(group: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """So many of a group: all of it as often as it goes in, and a sample of the rest."""
    rounds, rest = divmod(count, len(group))
    return np.concatenate([*(rng.permutation(group) for _ in range(rounds)), rng.permutation(group)[:rest]])
