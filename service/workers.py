"""Work of all requests, done by one thread: as much together as has gathered, kinds of work in turn."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from ..errors import InputError
from ..pipeline import watch
from .quotas import Busy, Refused, Unready

log = logging.getLogger("crosslens")

GATHER = 0.003  # seconds that a batch waits for as many as came together before


class Abandoned(BaseException):
    """Nobody waits for the work any more."""


@dataclass(frozen=True)
class WorkKind:
    """One kind of work: `run` gives an answer, or the error instead of one, for each of the jobs that it is given.

    Jobs whose costs (tokens) together stay within `budget` are given to it at once; a single one may cost more.
    `seen` is told the number of jobs, their cost, the longest wait and the seconds that a batch took.
    """

    run: Callable[[Sequence[Any]], Sequence[Any]]
    budget: int
    seen: Callable[[int, int, float, float], None] = lambda jobs, cost, wait, seconds: None


@dataclass(eq=False)
class Job:
    """Something to be done, and who waits for it; one that was cancelled is not done."""

    asked: Any
    cost: int
    answer: Future[Any] = field(default_factory=Future)
    since: float = field(default_factory=time.monotonic)

    @property
    def wanted(self) -> bool:
        """Whether somebody waits for it."""
        return not self.answer.done()


class WorkThread:
    """One thread with a queue for each kind of work, which has the next turn after each batch of another kind.

    A batch waits at most `GATHER` seconds, and only where the one before it held several jobs: one client alone waits
    for nothing. Where a job makes a batch fail, each is done by itself, so that it fails alone. Work that nobody waits
    for any more is left out, and ended at the next answer of a model (`pipeline.advance`) if it has begun.
    """

    def __init__(self, name: str, kinds: Mapping[str, WorkKind], most: int) -> None:
        self.name = name
        self.kinds = kinds
        self.most = most
        self._queues: dict[str, deque[Job]] = {kind: deque() for kind in kinds}
        self._sizes = dict.fromkeys(kinds, 1)  # of the batch before
        self._arrived = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name=f"crosslens-{name}", daemon=True)
        self._thread.start()

    def submit(self, kind: str, asked: Any, cost: int = 1) -> Future[Any]:
        """Where the answer to a job will be; `Busy` where too many wait already, `Unready` where it is closed."""
        job = Job(asked, cost)
        with self._arrived:
            if self._closed:
                raise Unready("the service is ending")
            if self.waiting >= self.most:
                self._forget_unwanted()
            if self.waiting >= self.most:
                raise Busy(f"{self.waiting} requests wait for {self.name} already: try again in a second")
            self._queues[kind].append(job)
            self._arrived.notify()
        return job.answer

    @property
    def waiting(self) -> int:
        """How many jobs have not begun."""
        return sum(map(len, self._queues.values()))

    @property
    def alive(self) -> bool:
        """Whether its thread is there."""
        return self._thread.is_alive()

    def close(self, seconds: float) -> None:
        """Take nothing more on, and wait so long for what is under way; what then waits is refused."""
        with self._arrived:
            self._closed = True
            self._arrived.notify()
        self._thread.join(seconds)
        with self._arrived:
            for queue in self._queues.values():
                while queue:
                    _deliver(queue.popleft(), Unready("the service is ending"))

    def _work(self) -> None:
        turns = deque(self.kinds)
        while True:
            with self._arrived:
                self._arrived.wait_for(lambda: self.waiting or self._closed)
                if self._closed and not self.waiting:
                    return
                name = next(kind for kind in turns if self._queues[kind])
                turns.remove(name)
                turns.append(name)
                before, queue = self._sizes[name], self._queues[name]
                if 1 < before > len(queue):
                    self._arrived.wait_for(lambda: len(queue) >= before or self._closed, GATHER)  # noqa: B023
                batch = self._take(name)
            self._sizes[name] = max(len(batch), before // 2)
            try:
                if batch:
                    self._do(self.kinds[name], batch)
            except BaseException as error:  # the thread goes on, whatever a count or an answer of a model is
                log.exception("%s failed", self.name)
                for job in batch:
                    _deliver(job, error)

    def _forget_unwanted(self) -> None:
        """Make room where a job that does not end has let those behind it grow old."""
        for queue in self._queues.values():
            kept = [job for job in queue if job.wanted]
            queue.clear()
            queue.extend(kept)

    def _take(self, name: str) -> list[Job]:
        """The next jobs of a kind, as many as its budget allows."""
        queue, batch, cost = self._queues[name], list[Job](), 0
        while queue and (not batch or cost + queue[0].cost <= self.kinds[name].budget):
            job = queue.popleft()
            if job.wanted:
                batch.append(job)
                cost += job.cost
        return batch

    def _do(self, kind: WorkKind, batch: Sequence[Job]) -> None:
        started = time.monotonic()

        def stop_unwanted(done: int) -> None:
            if not any(job.wanted for job in batch):
                raise Abandoned

        try:
            with watch(stop_unwanted):
                answers = kind.run([job.asked for job in batch])
        except Abandoned:
            return
        except BaseException as error:
            if len(batch) > 1:
                for job in filter(lambda job: job.wanted, batch):
                    self._do(kind, [job])
                return
            if not isinstance(error, InputError | Refused):
                log.exception("%s failed", self.name)
            _deliver(batch[0], error)
            return
        kind.seen(
            len(batch), sum(job.cost for job in batch), started - min(job.since for job in batch),
            time.monotonic() - started,
        )  # fmt: skip
        for job, answer in zip(batch, answers, strict=True):
            _deliver(job, answer)


def _deliver(job: Job, answer: Any) -> None:
    with suppress(InvalidStateError):  # nobody waits for it any more
        if isinstance(answer, BaseException):
            # Others than these end the event loop, or never reach who waits.
            sent = isinstance(answer, Exception) and not isinstance(answer, StopIteration)
            job.answer.set_exception(answer if sent else RuntimeError(f"a model raised {answer!r}"))
        else:
            job.answer.set_result(answer)
