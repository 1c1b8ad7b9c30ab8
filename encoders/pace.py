"""How many tokens a batch should have on this machine: measured while the first long stream is encoded, and kept.

What suits a CPU depends on its caches, its matrix unit and the precision. With e5-small in bfloat16 an EPYC took a
quarter more time with 4,096 tokens a thread than with 512, and a Xeon with AMX as much more with 512 than with 2,048.
Every batch that is measured is one that had to be encoded anyway, and a query is too short to be one: measuring costs
no time of its own. Vectors mean the same with any budget. Which precision `dtype=auto` takes is not measured: wherever
a CPU multiplies bfloat16 it was the faster by far.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .batching import Budget
from .measured import Measured

STEPS = (512, 1024, 2048, 4096)  # tokens a thread
MOST = 16384  # tokens, however many threads: their states must stay small beside the model
ROUNDS = 3  # each is all steps up and down again, since texts get shorter from batch to batch


def list_candidates(threads: int) -> list[int]:
    """The budgets that are tried; the first is what is used until they are."""
    return [STEPS[0] * threads, *(step * threads for step in STEPS[1:] if step * threads <= MOST)]


@dataclass(frozen=True, kw_only=True)
class Pace(Measured):
    """What was found: the fastest of the budgets, and how many tokens a second the model did with it."""

    budget: int
    tokens_per_second: int

    def check(self) -> None:
        if min(self.budget, self.tokens_per_second) <= 0:
            raise ValueError

    def __str__(self) -> str:
        how = f"{self.about['encoder']} in {self.about['dtype']} by {self.about['backend']}"
        return f"{how}: {self.budget:,} tokens a batch, {self.tokens_per_second:,} tokens/s"


@dataclass
class MeasuredBudget(Budget):
    """A budget that tries `candidates` in turn, batch by batch, until the fastest is known, which is kept.

    What an earlier process kept of the same is taken at once. One budget may serve several streams; threads beside
    each other only blur what is measured.
    """

    describe: Callable[[], Mapping[str, Any]]
    candidates: Sequence[int]
    spent: list[tuple[int, int, float]] = field(default_factory=list)  # budget, tokens, seconds
    about: Mapping[str, Any] | None = None
    known: bool = False

    @classmethod
    def begin(cls, threads: int, describe: Callable[[], Mapping[str, Any]]) -> MeasuredBudget:
        """`describe` gives what `measured.describe_run` does, and is asked with the first batch that is not small."""
        candidates = list_candidates(threads)
        return cls(candidates[0], describe, candidates)

    def learn(self, tokens: int, padded: int, seconds: float) -> None:
        """What a batch took; one that filled less than half of its budget, a window's last, says nothing."""
        if self.known or 2 * padded < self.most:
            return
        if self.about is None:
            self.about = self.describe()
            kept = Pace.read(self.about)
            if kept and kept.budget in self.candidates:
                self.known, self.most = True, kept.budget
            return  # the first batch also pays for what a model does once
        self.spent.append((self.most, tokens, seconds))
        order = [*self.candidates, *reversed(self.candidates)]
        if len(self.spent) < ROUNDS * len(order):
            self.most = order[len(self.spent) % len(order)]
            return
        self.known, self.most = True, self._find_fastest()
        rates = [tokens / seconds for budget, tokens, seconds in self.spent if budget == self.most]
        Pace(about=self.about, budget=self.most, tokens_per_second=round(statistics.median(rates))).keep()

    def shrink(self, most: int) -> None:
        """Memory ran out: what is left is not tried."""
        super().shrink(most)
        self.known = True

    def _find_fastest(self) -> int:
        """By the median of a candidate's seconds a token against those of the batches about it: one pass over all.

        Medians, since other work runs beside; passes up and down, since texts get shorter from batch to batch.
        """
        ratios: dict[int, list[float]] = {each: [] for each in self.candidates}
        for start in range(0, len(self.spent), len(self.candidates)):
            found = {budget: seconds / tokens for budget, tokens, seconds in self.spent[start:][: len(self.candidates)]}
            usual = statistics.median(found.values())
            for budget, slowness in found.items():
                ratios[budget].append(slowness / usual)
        return min(ratios, key=lambda each: statistics.median(ratios[each]))
