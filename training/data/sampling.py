"""The order in which examples are trained on: languages balanced, mixed in batches or apart, from any number on."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, get_args

import numpy as np

from ...errors import InputError, check_at_least, check_known
from ...items import group_positions, hash_text
from .example import Example
from .examples import Examples

Batches = Literal["mixed", "apart"]


@dataclass(frozen=True)
class ExampleOrder:
    """An endless order of examples, in epochs, that is the same whenever and from wherever it is read.

    `groups` has a name for each example, such as its languages (`name_languages`). An epoch has as many examples as
    there are, and of each group a number in proportion to n^`exponent`, n being its size: with 1 as many as it has,
    with 0 the same number of each (language-balanced; 0.3 in XLM-R, Conneau et al. 2020, arXiv:1911.02116). Each group
    is gone through as a whole, shuffled, before an example of it comes again. Batches of `batch` are `mixed`, or of one
    group each (`apart`), as multilingual translate-train has both (Lawrie et al. 2023, arXiv:2209.01335). `InputError`
    where groups are to be apart and one is smaller than a batch.
    """

    groups: Sequence[str]
    batch: int = 1
    batches: Batches = "mixed"
    exponent: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        check_at_least(1, batch=self.batch)
        check_known(self.batches, get_args(Batches), "kind of batches")
        if not 0 <= self.exponent <= 1:
            raise InputError(f"the exponent of the languages' sizes is from 0 to 1, not {self.exponent:g}")
        if not self.groups:
            raise InputError("there are no examples to put in an order")
        small = {name: len(held) for name, held in self._held.items() if len(held) < self.batch}
        if self.batches == "apart" and small:
            name, held = min(small.items(), key=lambda each: (each[1], each[0]))
            raise InputError(
                f"{name} has {held} examples, and a batch of its own needs {self.batch}: mix the languages, add "
                "examples, or make batches smaller"
            )

    @cached_property
    def _held(self) -> dict[str, list[int]]:
        return dict(sorted(group_positions(self.groups).items()))

    @cached_property
    def shares(self) -> dict[str, int]:
        """How many examples of each group an epoch has; with batches apart whole batches."""
        weights = {name: len(held) ** self.exponent for name, held in self._held.items()}
        total = math.fsum(weights.values())
        unit = self.batch if self.batches == "apart" else 1
        wanted = {name: len(self.groups) * weight / total / unit for name, weight in weights.items()}
        shares = {name: max(1, math.floor(number + 1e-9)) for name, number in wanted.items()}
        left = max(0, round(math.fsum(wanted.values()) - 1e-9) - sum(shares.values())) if unit == 1 else 0
        for name in sorted(wanted, key=lambda name: (math.floor(wanted[name]) - wanted[name], name))[:left]:
            shares[name] += 1  # the largest remainders
        return {name: number * unit for name, number in shares.items()}

    @property
    def epoch_size(self) -> int:
        """How many examples an epoch has."""
        return sum(self.shares.values())

    def list_epoch(self, epoch: int) -> np.ndarray:
        """The numbers of the examples of an epoch, from 0, in their order: int64 [epoch_size]."""
        drawn = {name: self._draw(name, epoch * share, share) for name, share in self.shares.items()}
        random = self._seeded("epoch", epoch)
        if self.batches == "mixed":
            return random.permutation(np.concatenate([*drawn.values()]))
        batches = np.concatenate([numbers.reshape(-1, self.batch) for numbers in drawn.values()])
        return np.concatenate(random.permutation(batches))

    def iterate(self, start: int = 0) -> Iterator[int]:
        """The numbers of examples without end, from the one at place `start` of the whole order on."""
        check_at_least(0, start=start)
        epoch, place = divmod(start, self.epoch_size)
        while True:
            for number in self.list_epoch(epoch)[place:]:
                yield int(number)
            epoch, place = epoch + 1, 0

    def _draw(self, name: str, start: int, number: int) -> np.ndarray:
        """Some of the numbers of a group, which is shuffled again each time that it has been gone through."""
        held = np.array(self._held[name])
        rounds = range(start // len(held), (start + number - 1) // len(held) + 1)
        shuffled = np.concatenate([self._seeded(name, each).permutation(held) for each in rounds])
        first = start - rounds[0] * len(held)
        return shuffled[first : first + number]

    def _seeded(self, what: str, number: int) -> np.random.Generator:
        return np.random.default_rng(hash_text(f"{self.seed}\0{what}\0{number}"))


def name_languages(example: Example) -> str:
    """The languages of an example's query and its first positive, `?` where it is not known: `eng-rus`."""
    return f"{example.query.lang or '?'}-{example.positives[0].lang or '?'}"


class ExampleStream:
    """Examples in an order, without end, from any place on; `order` says which, by the languages of each.

    The examples are held in memory.
    """

    def __init__(
        self, examples: Examples, *, batch: int = 1, batches: Batches = "mixed", exponent: float = 1.0, seed: int = 0
    ) -> None:
        self._held = list(examples)
        self.order = ExampleOrder([*map(name_languages, self._held)], batch, batches, exponent, seed)

    def __len__(self) -> int:
        """How many examples there are."""
        return len(self._held)

    def __getitem__(self, number: int) -> Example:
        return self._held[number]

    def iterate(self, start: int = 0) -> Iterator[Example]:
        """The examples of `order.iterate(start)`."""
        return (self._held[number] for number in self.order.iterate(start))
