"""The cores that this process may use, and each of its processes."""

from __future__ import annotations

import os
from itertools import pairwise


def list_cores() -> list[int]:
    """The numbers of the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def share_cores(processes: int) -> list[list[int]]:
    """The cores of this process for each of several: neighbours, which share caches, go together."""
    held = list_cores()
    if processes > len(held):  # several GPUs on a small machine
        return [[held[number % len(held)]] for number in range(processes)]
    bounds = [round(number * len(held) / processes) for number in range(processes + 1)]
    return [held[start:end] for start, end in pairwise(bounds)]
