"""A query alone: computed by whichever way this machine does it soonest, measured once and kept.

Beside the model as it is there are `checkpoints.lean.LeanBert`s that differ in who multiplies. Which is the fastest
depends on the CPU and on the versions of three libraries: on an EPYC with AVX2, e5-small's products of 20 tokens take
numpy three quarters of the time that they take torch. The first queries are computed in all ways, and what is the
fastest is kept in `pace` under CROSSLENS_CACHE: by the processor's time of this thread, which waits for its helpers,
since in a busy minute a clock measures other work. Vectors are the same but for the last digits, which is checked on
the first of them.
"""

from __future__ import annotations

import logging
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from threading import Lock
from time import thread_time
from typing import Any
from weakref import WeakKeyDictionary

import torch

from ..checkpoints.lean import LeanBert, list_products
from ..checkpoints.open import OpenModel
from .measured import Measured

log = logging.getLogger("crosslens")

MOST = 128  # tokens; a longer text is as fast in the model as it is
ROUNDS = 9  # texts that are computed in all ways, after one that warms them up
GAIN = 0.9  # of the model's own time: for less no copy of its weights is held
ALIKE = {torch.float32: 0.9999, torch.bfloat16: 0.999}  # cosines of states to those of the model as it is
WHOLE = "transformers"  # the name of the model as it is


@dataclass(frozen=True, kw_only=True)
class Way(Measured):
    """What was found: the name of the fastest way, and the milliseconds that each took in the middle."""

    name: str
    milliseconds: Mapping[str, float]

    def check(self) -> None:
        if self.milliseconds.get(self.name, 0) <= 0:
            raise ValueError

    def __str__(self) -> str:
        how = f"{self.about['encoder']} in {self.about['dtype']}"
        times = ", ".join(f"{name} {spent:.1f} ms" for name, spent in self.milliseconds.items())
        return f"{how}, a text alone: by {self.name} ({times})"


@dataclass
class Alone:
    """The ways to compute a text alone with one model, and which of them is taken.

    Several threads may ask; while one of them measures, the others take the model as it is.
    """

    model: torch.nn.Module
    describe: Callable[[], Mapping[str, Any]]
    chosen: LeanBert | None = None
    known: bool = False  # whether it is settled; without one that is chosen the model is taken as it is
    ways: dict[str, LeanBert] = field(default_factory=dict)
    spent: dict[str, list[float]] = field(default_factory=dict)
    about: Mapping[str, Any] | None = None
    measuring: Lock = field(default_factory=Lock)

    def compute_states(self, ids: Sequence[int]) -> torch.Tensor | None:
        """The states [tokens, hidden] of one text; None where the model is to be taken as it is."""
        if self.chosen is not None and len(ids) <= MOST:
            return self.chosen.compute_states(ids)
        if self.known or len(ids) > MOST or not self.measuring.acquire(blocking=False):
            return None
        try:
            return self._measure(ids)
        finally:
            self.measuring.release()

    def _measure(self, ids: Sequence[int]) -> torch.Tensor | None:
        if self.known:  # by another thread, just now
            return None
        first = self.about is None
        if self.about is None:
            self.about = {**self.describe(), "for": "a text alone"}
            self._begin(Way.read(self.about))
            if self.known:
                return None
        whole, spent = _time(self._compute_whole, ids)
        times = {WHOLE: spent}
        for name, way in list(self.ways.items()):
            made, times[name] = _time(way.compute_states, ids)
            if first and not _is_alike(made, whole):
                log.debug("%s by %s gives other states", self.about["encoder"], name)
                del self.ways[name]
        if not first:  # which pays for what a library does once
            for name in (WHOLE, *self.ways):
                self.spent.setdefault(name, []).append(times[name])
        if not self.ways or len(self.spent.get(WHOLE, ())) >= ROUNDS:
            self._choose()
        return whole

    def _begin(self, kept: Way | None) -> None:
        """Make the ways that are measured, or the one that was chosen before."""
        products = list_products(self.model)
        if kept is not None and (kept.name == WHOLE or kept.name in products):
            self.known = True
            self.chosen = LeanBert(self.model, products[kept.name]) if kept.name != WHOLE else None
        else:
            self.ways = {name: LeanBert(self.model, multiply) for name, multiply in products.items()}
            self.known = not self.ways

    def _choose(self) -> None:
        """By the median over texts of the time against that of the model as it is: other work runs beside."""
        ratios = {
            name: statistics.median(ours / whole for ours, whole in zip(spent, self.spent[WHOLE], strict=True))
            for name, spent in self.spent.items()
            if name != WHOLE and min(self.spent[WHOLE]) > 0  # some systems count in steps of 10 ms
        }
        best = min(ratios, key=ratios.__getitem__, default=WHOLE)
        name = best if best != WHOLE and ratios[best] <= GAIN else WHOLE
        self.chosen, self.known = self.ways.get(name), True
        self.ways = {}
        if self.spent and self.about is not None:
            middle = {each: round(1000 * statistics.median(spent), 2) for each, spent in self.spent.items()}
            Way(about=self.about, name=name, milliseconds=middle).keep()

    def _compute_whole(self, ids: Sequence[int]) -> torch.Tensor:
        inputs = torch.tensor([ids])
        made: torch.Tensor = self.model(input_ids=inputs, attention_mask=torch.ones_like(inputs)).last_hidden_state
        return made[0]


_HELD: WeakKeyDictionary[OpenModel, Alone] = WeakKeyDictionary()


def find_alone(opened: OpenModel, describe: Callable[[], Mapping[str, Any]]) -> Alone | None:
    """What encoders of one model in memory share; None on other devices than CPUs, and where torch computes nothing.

    `describe` gives what `measured.describe_run` does, is asked with the first text, and must not hold `opened`.
    """
    if opened.device.type != "cpu" or opened.backend != "torch" or not list_products(opened.model):
        return None
    return _HELD.setdefault(opened, Alone(opened.model, describe))


def _time(compute: Callable[[Sequence[int]], torch.Tensor], ids: Sequence[int]) -> tuple[torch.Tensor, float]:
    started = thread_time()
    made = compute(ids)
    return made, thread_time() - started


def _is_alike(one: torch.Tensor, other: torch.Tensor) -> bool:
    lowest = torch.cosine_similarity(one.float(), other.float(), dim=-1).min()
    return bool(lowest >= ALIKE[other.dtype])
