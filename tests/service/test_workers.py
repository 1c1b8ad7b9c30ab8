"""The thread that works for all requests: it outlives what fails, and old jobs take no room from new ones."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from crosslens.service.quotas import Busy
from crosslens.service.workers import WorkKind, WorkThread


@pytest.fixture
def held() -> Iterator[threading.Event]:
    event = threading.Event()
    yield event
    event.set()


@pytest.mark.parametrize("raised", [SystemExit(1), KeyboardInterrupt(), StopIteration(), GeneratorExit()])
def test_no_answer_of_a_model_ends_the_thread(raised: BaseException) -> None:
    def run(jobs: list[str]) -> list[str]:
        if "bad" in jobs:
            raise raised
        return jobs if "few" not in jobs else []

    worker = WorkThread("models", {"work": WorkKind(run, 8)}, 8)
    with pytest.raises(RuntimeError, match=type(raised).__name__):  # others would end the event loop
        worker.submit("work", "bad").result(5)
    with pytest.raises(ValueError, match="zip"):
        worker.submit("work", "few").result(5)
    assert worker.submit("work", "good").result(5) == "good"
    assert worker.alive
    worker.close(5)


def test_a_count_that_fails_ends_no_thread() -> None:
    def see(*numbers: float) -> None:
        raise OSError("no space left")

    worker = WorkThread("models", {"work": WorkKind(lambda jobs: jobs, 8, see)}, 8)
    for _ in range(2):
        with pytest.raises(OSError, match="no space"):
            worker.submit("work", "a").result(5)
    worker.close(5)


def test_jobs_that_nobody_waits_for_take_no_room(held: threading.Event) -> None:
    def run(jobs: list[str]) -> list[str]:
        held.wait(10)
        return jobs

    worker = WorkThread("judges", {"work": WorkKind(run, 1)}, 4)
    worker.submit("work", "hangs")
    while worker.waiting:
        pass
    for _ in range(5):  # each time as many as there is room for are given up
        waiting = [worker.submit("work", "late") for _ in range(4)]
        with pytest.raises(Busy):
            worker.submit("work", "too many")
        for job in waiting:
            job.cancel()
    last = worker.submit("work", "last")
    held.set()
    assert last.result(5) == "last"
    worker.close(5)
