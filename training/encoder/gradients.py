"""Gradients of a loss over a whole batch, computed in micro-batches of texts of like length (GradCache).

Processes that train together share out the texts. Each knows the rows of all, and so the same loss.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist

from ...encoders.batching import plan_batches
from ..processes import find_rank, gather, run_out_together

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
    """Add the gradients of a loss to those of the weights, and give the loss; of several processes each its part.

    `represent` gives for some of the `inputs` a tensor whose rows are theirs; `compute` the loss for the rows of all,
    in their order. As GradCache (Gao et al. 2021) does it: the gradient of the loss by the rows, then micro-batch by
    micro-batch that by the weights. Micro-batches whose states have room in memory are not computed a second time.
    The longest come first, so that what pads is little, and memory that does not suffice shows at once. Memory that
    runs out in one of several processes is `MemoryError` in all.
    """
    number, count = find_rank()
    plans = [
        [[share[place] for place in places] for places in plan_batches([costs[place] for place in share], memory.micro)]
        for share in deal_out(costs, count)
    ]
    states: list[tuple[torch.Tensor | None, _ChanceState]] = []
    leaves: list[torch.Tensor] = []
    room = memory.kept
    with run_out_together():
        for places in plans[number]:
            room -= len(places) * max(costs[place] for place in places)
            chance = _ChanceState()
            with torch.set_grad_enabled(room >= 0):
                made = represent([inputs[place] for place in places])
            states.append((made if room >= 0 else None, chance))
            leaves.append(made.detach())
    everyones = exchange(leaves)
    rows: list[torch.Tensor] = [torch.empty(0)] * len(inputs)
    for planned, given in zip(plans, everyones, strict=True):
        for places, leaf in zip(planned, given, strict=True):
            # No leaf of a frozen model has a gradient; that of the rows is asked for all the same.
            for place, row in zip(places, leaf.requires_grad_().unbind(), strict=True):
                rows[place] = row
    with run_out_together():
        loss = compute(rows)
        if not torch.isfinite(loss):
            return float(loss.detach())
        # Weights that the loss has of itself, a learnt temperature, have their gradients from the main process alone.
        loss.backward(inputs=[leaf for given in everyones for leaf in given] if number else None)
        for position, (places, leaf) in enumerate(zip(plans[number], everyones[number], strict=True)):
            kept, chance = states[position]
            if leaf.grad is None:
                continue
            if kept is None:
                with chance:
                    kept = represent([inputs[place] for place in places])
            kept.backward(leaf.grad)
            states[position] = (None, chance)  # what it kept is no longer needed
    return float(loss.detach())


def deal_out(costs: Sequence[int], count: int) -> list[list[int]]:
    """The places of texts, rising, for each of so many processes: to each as many as to others, of like costs."""
    order = sorted(range(len(costs)), key=lambda place: -costs[place])
    # Dealt out forwards and backwards in turn.
    return [sorted(order[number :: 2 * count] + order[2 * count - 1 - number :: 2 * count]) for number in range(count)]


def exchange(own: Sequence[torch.Tensor]) -> list[list[torch.Tensor]]:
    """The tensors of each process; those of this one are its own."""
    number, count = find_rank()
    if count == 1:
        return [list(own)]
    made = []
    for owner, kinds in enumerate(gather([(each.shape, each.dtype, each.device.type) for each in own])):
        mine = owner == number
        made.append(
            [
                own[place].contiguous() if mine else torch.empty(shape, dtype=dtype, device=device)
                for place, (shape, dtype, device) in enumerate(kinds)
            ]
        )
        for each in made[-1]:
            dist.broadcast(each, owner)
    return made


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
