"""What a system costs."""

from __future__ import annotations

import mmap

import pytest
from crosslens.evaluation.experiment.results import Cost, watch_memory
from crosslens.runs import Manifest, Record, Run


def test_the_cost_of_a_run_is_that_of_its_stages():
    one = Record("one", "1", 1.5, {"calls": 2, "prompt_tokens": 10, "peak_bytes": 7})
    other = Record("other", "2", 0.25, {"calls": 1, "generated_tokens": 5, "peak_bytes": 9})
    assert Cost.of_run(Run((), manifest=Manifest((one, other)))) == Cost(1.75, 15, 3, 9)
    assert Cost.of_run(Run((), manifest=Manifest((Record("none", "3", 1.0),)))) == Cost(1.0)


def test_peak_memory_is_that_of_the_block():
    # Not from the heap, which may have freed pages that are resident still.
    own = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    with watch_memory() as highest, mmap.mmap(-1, 80_000_000, flags=own) as held:
        held[::4096] = b"x" * len(held[::4096])
    with_it = highest()
    with watch_memory() as highest:
        pass
    if with_it is None:
        pytest.skip("this system does not count a peak of memory")
    assert with_it - highest() > 60_000_000
