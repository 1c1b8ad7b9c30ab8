"""Processes that train together, one a device, started by `accelerate launch` or `torchrun`: what they tell each other.

All of this is to be called by all of them, in the same order. A process that is alone is told nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from ..checkpoints.devices import is_out_of_memory, resolve_device
from .session import require_packages

T = TypeVar("T")


def join_processes(device: str) -> Any:
    """accelerate's state of the processes; `InputError` for a device that is not there."""
    where = resolve_device(device)
    require_packages("accelerate")
    from accelerate import PartialState

    return PartialState(cpu=where.type == "cpu")


def find_rank() -> tuple[int, int]:
    """The number of this process, from 0, which is the main one; and how many there are."""
    if not (dist.is_available() and dist.is_initialized()):
        return 0, 1
    return dist.get_rank(), dist.get_world_size()


def agree(value: T) -> T:
    """What the main process has."""
    held = [value]
    if find_rank()[1] > 1:
        dist.broadcast_object_list(held)
    return held[0]


def gather(value: T) -> list[T]:
    """What each of the processes has."""
    if (count := find_rank()[1]) == 1:
        return [value]
    held: list[Any] = [None] * count
    dist.all_gather_object(held, value)
    return held


def wait_for_all() -> None:
    """Go on once all processes are here."""
    gather(None)


@contextmanager
def run_out_together() -> Iterator[None]:
    """Where memory runs out inside the block of one process, that is `MemoryError` for all of them."""
    short = False
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if find_rank()[1] == 1 or not is_out_of_memory(error):
            raise
        short = True
    if any(gather(short)):
        raise MemoryError("out of memory in one of the processes")


@torch.no_grad()
def share_weights(weights: Sequence[torch.Tensor]) -> None:
    """Let weights be those of the main process, also what was drawn by lot."""
    if find_rank()[1] > 1:
        for each in weights:
            dist.broadcast(each, 0)


def sum_gradients(weights: Sequence[torch.Tensor]) -> None:
    """Let the gradients of weights be the sums of all processes'; what has none in any of them has none after it."""
    if find_rank()[1] == 1:
        return
    there = torch.tensor([each.grad is not None for each in weights], dtype=torch.int32, device=weights[0].device)
    dist.all_reduce(there, dist.ReduceOp.MAX)
    waiting = []
    for each, held in zip(weights, there.tolist(), strict=True):
        if held:
            if each.grad is None:
                each.grad = torch.zeros_like(each)
            waiting.append(dist.all_reduce(each.grad, async_op=True))
    for work in waiting:
        work.wait()
