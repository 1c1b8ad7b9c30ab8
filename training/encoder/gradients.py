"""Gradients of a loss over a whole batch, computed in micro-batches of texts of like length (GradCache)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ...encoders.batching import plan_batches

Represent = Callable[[Sequence[Any]], torch.Tensor]


@dataclass
class TokenLimits:
    """How many padded tokens go through a model at once, and of how many the states are kept for the way back.

    Both fall to half when memory runs out, for the rest of the training.
    """

    micro: int
    kept: int

    def halve(self) -> None:
        self.micro, self.kept = max(self.micro // 2, 1), self.kept // 2


def backpropagate(
    represent: Represent,
    inputs: Sequence[Any],
    costs: Sequence[int],
    compute: Callable[[list[torch.Tensor]], torch.Tensor],
    memory: TokenLimits,
) -> float:
    """Add the gradients of a loss to those of the weights, and give the loss.

    `represent` gives for some of the `inputs` a tensor whose rows are theirs; `compute` the loss for the rows of all,
    in their order. As GradCache (Gao et al. 2021) does it: the gradient of the loss by the rows, then micro-batch by
    micro-batch that by the weights. Micro-batches whose states have room in memory are not computed a second time.
    The longest come first, so that what pads is little, and memory that does not suffice shows at once.
    """
    plans = list(plan_batches(costs, memory.micro))
    whole: list[tuple[torch.Tensor | None, torch.Tensor, Any]] = []
    rows: list[torch.Tensor] = [torch.empty(0)] * len(inputs)
    room = memory.kept
    for places in plans:
        room -= len(places) * max(costs[place] for place in places)
        chance = _ChanceState()
        with torch.set_grad_enabled(room >= 0):
            made = represent([inputs[place] for place in places])
        # No leaf of a frozen model has a gradient; that of the rows is asked for all the same.
        leaf = made.detach().requires_grad_()
        whole.append((made if room >= 0 else None, leaf, chance))
        for place, row in zip(places, leaf.unbind(), strict=True):
            rows[place] = row
    loss = compute(rows)
    if not torch.isfinite(loss):
        return float(loss.detach())
    loss.backward()
    for position, places in enumerate(plans):
        kept, leaf, chance = whole[position]
        if leaf.grad is None:
            continue
        if kept is None:
            with chance:
                kept = represent([inputs[place] for place in places])
        kept.backward(leaf.grad)
        whole[position] = (None, leaf, chance)  # its states are no longer needed
    return float(loss.detach())


class _ChanceState:
    """The state of random numbers at one time; inside the block they are drawn as they were from then on."""

    def __init__(self) -> None:
        self.cpu = torch.get_rng_state()
        self.cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []

    def __enter__(self) -> None:
        self._fork = torch.random.fork_rng(devices=range(len(self.cuda)))
        self._fork.__enter__()
        torch.set_rng_state(self.cpu)
        if self.cuda:
            torch.cuda.set_rng_state_all(self.cuda)

    def __exit__(self, *error: object) -> None:
        self._fork.__exit__(*error)  # type: ignore[arg-type]
