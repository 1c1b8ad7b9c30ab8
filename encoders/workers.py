"""An encoder on several devices, or in several processes on a CPU: each has a process that encodes a part of the items."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import threading
import traceback
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from operator import itemgetter
from queue import SimpleQueue
from typing import Any, Self

import numpy as np

from ..checkpoints.cores import share_cores
from ..errors import CrosslensError, InputError
from ..items import Batch, Item, Role, windows
from .base import Encoder, EncoderSpec, Tokenizes, check_modalities
from .batching import plan_batches
from .registry import load_encoder
from .rows import join_rows, split_rows

WINDOW = 512  # items a process that are read ahead and dealt out
# Bytes of text dealt at a time: two of a model's batches.
CHUNK = {"cpu": 1 << 15, "cuda": 1 << 19, "mps": 1 << 17}
SHARES = 4  # chunks a process at least, so that all of them end at about one time
MEDIUM = 4096  # bytes of text that take about as long as a picture, or another medium
LEAST = 32  # bytes that take as long as the special tokens
AHEAD = 2  # chunks that a process has before it: one in work, and one so that it need not wait
PATIENCE = 10  # seconds that a process which is gone may take until its exit status is known


def load_for_index(text: str, *, device: str = "auto", trust_remote_code: bool = False) -> Encoder:
    """The encoder that a SPEC names: as `Workers` where `device` means several, else as `load_encoder` has it.

    `InputError` as there, and for a device that is not there.
    """
    from ..checkpoints.devices import resolve_devices

    devices = resolve_devices(device)
    if len(devices) > 1:
        return Workers(text, devices, trust_remote_code=trust_remote_code)
    return load_encoder(text, device=devices[0], trust_remote_code=trust_remote_code)


@contextmanager
def open_encoders(
    specs: Sequence[str], *, device: str = "auto", trust_remote_code: bool = False
) -> Iterator[list[Encoder]]:
    """`load_for_index` for each SPEC; processes end when the block does."""
    encoders: list[Encoder] = []
    try:
        for spec in specs:
            encoders.append(load_for_index(spec, device=device, trust_remote_code=trust_remote_code))
        yield encoders
    finally:
        for encoder in encoders:
            if isinstance(encoder, Workers):
                encoder.close()


class Workers:
    """One SPEC loaded in a process for each of `devices` (`encoders.base.Encoder`, and `Tokenizes` if the SPEC is).

    Items are dealt out in chunks of about equal length, longest first, to whoever is free; batches come in the order
    of the input, so that tables are the same as with one process. Vectors are equal up to rounding, as they are in
    another batch: in float32 by about 1e-7, in bfloat16 by 1e-3 (cosine above 0.9999, with e5-small). On a CPU each
    process keeps to its part of the cores.

    Close it, or use it with `with`. The processes end with this one, however it ends. A script that makes one needs
    `if __name__ == "__main__":`, as the processes import it. With e5-small on 2 cores, two processes were no faster than
    one with two threads: 600 texts took 21.2 and 19.5 s, and 20.0 and 22.0 s.
    """

    def __init__(self, text: str, devices: Sequence[str], *, trust_remote_code: bool = False) -> None:
        """`devices` are single ones (`cpu`, `cuda:1`), `cpu` as often as it is to have processes.

        The first process loads the SPEC alone, so that a checkpoint is fetched or converted once, and its errors are
        told once. The others load it while the first one works.
        """
        self._numbers = count()
        self._workers: list[_Worker] = []
        context = multiprocessing.get_context("spawn")
        try:
            with _uninterrupted():
                for number, (device, share) in enumerate(
                    zip(devices, share_cores(len(devices)), strict=True)
                ):
                    mine, theirs = context.Pipe()
                    process = context.Process(
                        target=_work, args=(theirs, device, share, number > 0), name=device, daemon=True
                    )
                    process.start()
                    theirs.close()  # so that the pipe ends with the process
                    several = f", process {number + 1} of {len(devices)}" if device == "cpu" else ""
                    self._workers.append(_Worker(device + several, process, mine))
            self.chunk = CHUNK[devices[0].partition(":")[0]]
            self.spec: EncoderSpec = self._call(self._workers[0], "load", text, devices[0], trust_remote_code)
            for worker, device in zip(self._workers[1:], devices[1:], strict=True):
                self._ask(worker, "load", text, device, trust_remote_code)
        except BaseException:
            self.close()
            raise

    @property
    def processes(self) -> int:
        return len(self._workers)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the processes; they hold nothing that could be lost."""
        for worker in self._workers:
            worker.pipe.close()
            worker.process.kill()
        for worker in self._workers:
            worker.process.join()
        self._workers.clear()

    def encode(self, items: Iterable[Item], role: Role) -> Iterator[Batch]:
        """One batch a window of items, of the kind that the encoder makes.

        `CrosslensError` naming the device if its process dies.
        """
        self._require_open()
        for group in windows(items, WINDOW * len(self._workers)):
            for item in group:
                check_modalities(item, self.spec)
            yield self._gathered(group, role)

    def token_spans(self, texts: Sequence[str]) -> list[np.ndarray]:
        """The tokens of each text, int64 [tokens, 2] (`encoders.base.Tokenizes`)."""
        self._require_open()
        spans: list[np.ndarray] = self._call(self._workers[0], "token_spans", list(texts))
        return spans

    def room(self, role: Role = "document") -> int:
        """How many tokens of a text fit, beside the special tokens and the prompt (`encoders.base.Tokenizes`)."""
        self._require_open()
        tokens: int = self._call(self._workers[0], "room", role)
        return tokens

    def _require_open(self) -> None:
        if not self._workers:
            raise InputError("the processes of this encoder have been closed; load it again")

    def _gathered(self, group: Sequence[Item], role: Role) -> Batch:
        """Deal out a window, and put what comes back in order."""
        costs = [_cost(item) for item in group]
        budget = min(self.chunk, max(sum(costs) // (SHARES * len(self._workers)), 1))
        waiting = deque(plan_batches(costs, budget))
        asked: dict[int, list[int]] = {}
        rows: list[int] = []
        parts: list[Batch] = []
        while waiting or asked:
            for held in range(AHEAD):
                for worker in self._workers:
                    if waiting and worker.ready and len(worker.asked) == held:
                        chunk = waiting.popleft()
                        asked[self._ask(worker, "encode", [group[row] for row in chunk], role)] = chunk
            for number, answer in self._answers():
                # What is not known was asked by a call that has been given up.
                if number in asked:
                    parts += _value(answer)
                    rows += asked.pop(number)
        return _order(parts, rows, [item.id for item in group], self.spec)

    # Questions and answers

    def _ask(self, worker: _Worker, what: str, *given: object) -> int:
        number = next(self._numbers)
        try:
            worker.pipe.send((number, what, given))
        except OSError:
            raise self._lost(worker) from None
        worker.asked.add(number)
        return number

    def _call(self, worker: _Worker, what: str, *given: object) -> Any:
        number = self._ask(worker, what, *given)
        while True:
            for answered, answer in self._answers():
                if answered == number:
                    return _value(answer)

    def _answers(self) -> Iterator[tuple[int, Any]]:
        """Wait until there is one."""
        by = {worker.pipe: worker for worker in self._workers}
        for pipe in wait(list(by)):
            worker = by[pipe]  # type: ignore[index]
            try:
                number, answer = worker.pipe.recv()
            except (EOFError, OSError):
                raise self._lost(worker) from None
            worker.asked.discard(number)
            if not worker.ready:  # the first answer is to `load`
                spec: EncoderSpec = _value(answer)
                if worker is not self._workers[0]:
                    spec.require(self.spec)
                worker.ready = True
            yield number, answer

    def _lost(self, worker: _Worker) -> CrosslensError:
        worker.process.join(PATIENCE)
        code = worker.process.exitcode
        self.close()
        if code == -signal.SIGKILL:
            how = "was killed (signal 9), by the system if memory ran out"
        else:
            how = f"ended by signal {-code}" if code and code < 0 else f"ended with status {code}"
        return CrosslensError(
            f"the process that encoded on {worker.name} {how}; what is stored stays, and the same command goes on "
            "from there (fewer devices take less memory)"
        )


@dataclass(eq=False)
class _Worker:
    """A process as its owner sees it; `asked` are the numbers of the questions that it has not answered."""

    name: str
    process: SpawnProcess
    pipe: Connection
    asked: set[int] = field(default_factory=set)
    ready: bool = False


@dataclass(frozen=True)
class _Failure:
    """An exception on its way out of a process."""

    error: Exception
    where: str

    @classmethod
    def of(cls, error: Exception, device: str) -> _Failure:
        where = f"in the process on {device}:\n" + "".join(traceback.format_exception(error))
        try:
            pickle.loads(pickle.dumps(error))
        except Exception:
            # Some take more to be made than their text.
            error = RuntimeError(f"{type(error).__name__}: {error}")
        return cls(error, where)


def _value(answer: Any) -> Any:
    if isinstance(answer, _Failure):
        answer.error.add_note(answer.where)
        raise answer.error
    return answer


def _work(pipe: Connection, device: str, share: Sequence[int], quiet: bool) -> None:
    """What a process does: it answers questions, one after the other, until its owner is gone."""
    import logging

    # Ctrl-C goes to all processes of a terminal; the owner ends this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if device == "cpu" and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, share)
    logging.basicConfig(format="crosslens: %(message)s", level=logging.WARNING)
    questions: SimpleQueue[tuple[int, str, tuple[Any, ...]]] = SimpleQueue()
    threading.Thread(target=_listen, args=(pipe, questions), daemon=True).start()

    import torch

    torch.set_num_threads(len(share))
    encoder: Any = None
    while True:
        number, what, given = questions.get()
        answer: Any
        try:
            if what == "load":
                text, where, trust = given
                # All of them would give the same warnings.
                logging.disable(logging.WARNING if quiet else logging.NOTSET)
                encoder = load_encoder(text, device=where, trust_remote_code=trust)
                logging.disable(logging.NOTSET)
                answer = encoder.spec
            elif what == "encode":
                answer = list(encoder.encode(*given))
            elif isinstance(encoder, Tokenizes):
                answer = getattr(encoder, what)(*given)
            else:
                raise InputError(f"{encoder.spec.name} cannot tell where its tokens are")
        except Exception as error:
            answer = _Failure.of(error, device)
        pipe.send((number, answer))


def _listen(pipe: Connection, questions: SimpleQueue[tuple[int, str, tuple[Any, ...]]]) -> None:
    """Take questions in at once, so that their owner never waits for an answer to be done; end when it is gone."""
    with suppress(EOFError, OSError):
        while True:
            questions.put(pipe.recv())
    os._exit(0)


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Ctrl-C waits until the block is left; processes started in it never see it."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _cost(item: Item) -> int:
    """About how long an item takes, in bytes of UTF-8: tokens are nearer to one length in them than in characters."""
    text = len((item.text or "").encode("utf-8", "surrogatepass"))
    return max(text, LEAST) + MEDIUM * sum(value is not None for value in item.contents.values())


def _order(parts: Sequence[Batch], places: Sequence[int], ids: Sequence[str], spec: EncoderSpec) -> Batch:
    """One batch of parts that hold the items at these places, in that order; in the order of `ids`."""
    found = [id for part in parts for id in part.ids]
    if found != [ids[place] for place in places]:
        raise CrosslensError(
            f"an encoder gave {len(found)} vectors for {len(places)} items, or in another order"
        )
    rows = [row for part in parts for row in split_rows(part)]
    return join_rows(ids, [row for _, row in sorted(zip(places, rows, strict=True), key=itemgetter(0))], spec)
