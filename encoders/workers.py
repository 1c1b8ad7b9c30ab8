"""An encoder on several devices, or in several processes on a CPU: each process encodes a part of the items."""

from __future__ import annotations

import logging
import multiprocessing
import os
import pickle
import signal
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager
from multiprocessing import connection
from typing import Any, Self

import numpy as np

from ..checkpoints.sharing import share_cores
from ..errors import CrosslensError, InputError
from ..items import Batch, Item, Role, windows
from .base import Encoder, EncoderSpec, Tokenizes, check_modalities
from .batching import Row, join_rows, plan_batches, split_rows
from .registry import load_encoder

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
    with ExitStack() as stack:
        for spec in specs:
            encoders.append(load_for_index(spec, device=device, trust_remote_code=trust_remote_code))
            if isinstance(encoders[-1], Workers):
                stack.enter_context(encoders[-1])
        yield encoders


class Workers:
    """One SPEC loaded in a process for each of `devices` (`encoders.base.Encoder`, and `Tokenizes` if the SPEC is).

    Items are dealt out in chunks of about equal length, longest first, to whoever is free; batches come in the order
    of the input, so that tables are the same as with one process. Vectors are equal up to rounding, as they are in
    another batch: in float32 by about 1e-7, in bfloat16 by 1e-3 (cosine above 0.9999, with e5-small). On a CPU each
    process keeps to its part of the cores.

    Close it, or use it with `with`. The processes end with this one, however it ends. A script that makes one needs
    `if __name__ == "__main__":`, as the processes import it. With e5-small on 2 cores two processes were no faster than
    one with two threads: 600 texts took 21.2 and 19.5 s, and 20.0 and 22.0 s.
    """

    def __init__(self, text: str, devices: Sequence[str], *, trust_remote_code: bool = False) -> None:
        """`devices` are single ones (`cpu`, `cuda:1`), `cpu` as often as it is to have processes.

        The first process loads the SPEC alone, so that a checkpoint is fetched or converted once, and its errors are
        raised once. The others load it while the first one works.
        """
        self._workers: list[_Worker] = []
        self.processes = len(devices)
        self.chunk = CHUNK[devices[0].partition(":")[0]]
        try:
            with _uninterrupted():
                for number, cores in enumerate(share_cores(len(devices))):
                    several = f", process {number + 1} of {len(devices)}" if devices[number] == "cpu" else ""
                    self._workers.append(_Worker(devices[number] + several, devices[number], cores))
            with self._explain_loss():
                for number, worker in enumerate(self._workers):
                    # All of them would give the same warnings.
                    worker.loading = worker.submit(_load, text, devices[number], trust_remote_code, number > 0)
                    if number == 0:
                        self.spec: EncoderSpec = worker.loading.result()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the processes; they hold nothing that could be lost."""
        for worker in self._workers:
            worker.executor.shutdown(wait=False, cancel_futures=True)
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
            check_modalities(group, self.spec)
            with self._explain_loss():
                batch = self._encode_window(group, role)
            yield batch

    def token_spans(self, texts: Sequence[str]) -> list[np.ndarray]:
        """The tokens of each text, int64 [tokens, 2] (`encoders.base.Tokenizes`)."""
        return list(self._ask_tokenizer("token_spans", list(texts)))

    def room(self, role: Role = "document") -> int:
        """How many tokens of a text fit, beside the special tokens and the prompt (`encoders.base.Tokenizes`)."""
        return int(self._ask_tokenizer("room", role))

    def _ask_tokenizer(self, what: str, given: object) -> Any:
        self._require_open()
        with self._explain_loss():
            return self._workers[0].submit(_ask_tokenizer, what, given).result()

    def _require_open(self) -> None:
        if not self._workers:
            raise InputError("the processes of this encoder have been closed; load it again")

    def _encode_window(self, group: Sequence[Item], role: Role) -> Batch:
        """Deal out a window, and put what comes back in order."""
        costs = [_estimate_cost(item) for item in group]
        budget = min(self.chunk, max(sum(costs) // (SHARES * len(self._workers)), 1))
        chunks = deque(plan_batches(costs, budget))
        running: dict[Future[list[Batch]], tuple[_Worker, list[int]]] = {}
        rows: dict[int, Row] = {}
        while chunks or running:
            ready = [worker for worker in self._workers if worker.loading.done()]
            for worker in ready:
                worker.loading.result().require(self.spec)
            busy = [worker for worker, _ in running.values()]
            for held in range(AHEAD):
                for worker in ready:
                    if chunks and busy.count(worker) == held:
                        busy.append(worker)
                        places = chunks.popleft()
                        items = [group[place] for place in places]
                        running[worker.submit(_encode, items, role)] = worker, places
            expected: list[Future[Any]] = [*running]
            expected += [worker.loading for worker in self._workers if worker not in ready]
            done, _ = wait(expected, return_when=FIRST_COMPLETED)
            for future in done & running.keys():
                _, places = running.pop(future)
                made = [row for batch in future.result() for row in split_rows(batch)]
                rows.update(zip(places, made, strict=True))
        return join_rows([item.id for item in group], [rows[place] for place in range(len(group))], self.spec)

    @contextmanager
    def _explain_loss(self) -> Iterator[None]:
        """A process that ends in the block is an error that names its device and says how it ended."""
        try:
            yield
        except BrokenProcessPool:
            ended = connection.wait([worker.process.sentinel for worker in self._workers], PATIENCE)
            lost = next(worker for worker in self._workers if worker.process.sentinel in ended)
            while (code := lost.process.exitcode) is None:  # until the thread that waited for it has noted it
                time.sleep(0.01)
            self.close()
            how = f"ended by signal {-code}" if code < 0 else f"ended with status {code}"
            if code == -signal.SIGKILL:
                how = "was killed (signal 9), by the system if memory ran out"
            raise CrosslensError(
                f"the process that encoded on {lost.name} {how}; what is stored stays, and the same command goes on "
                "from there (fewer devices take less memory)"
            ) from None


class _Worker:
    """A process as its owner sees it; `loading` gives the spec of the encoder in it."""

    loading: Future[EncoderSpec]

    def __init__(self, name: str, device: str, cores: Sequence[int]) -> None:
        self.name = name
        context = multiprocessing.get_context("spawn")
        self.executor = ProcessPoolExecutor(1, context, _start, (device, cores))
        before = set(multiprocessing.active_children())
        self.executor.submit(os.getpid)  # with which the process starts
        (self.process,) = set(multiprocessing.active_children()) - before

    def submit(self, function: Callable[..., Any], *given: object) -> Future[Any]:
        return self.executor.submit(_answer, function, *given)


# In the processes

_DEVICE = ""
_ENCODER: Encoder


def _start(device: str, cores: Sequence[int]) -> None:
    global _DEVICE
    _DEVICE = device
    # Ctrl-C goes to all processes of a terminal; the owner ends this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_owner, daemon=True).start()
    if device == "cpu" and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores)
    logging.basicConfig(format="crosslens: %(message)s", level=logging.WARNING)
    import torch

    torch.set_num_threads(len(cores))


def _end_with_owner() -> None:
    owner = multiprocessing.parent_process()
    assert owner is not None
    connection.wait([owner.sentinel])
    os._exit(0)


def _answer(function: Callable[..., Any], *given: object) -> Any:
    """What the function gives; its exception as one that can be sent, with a note of where it was raised."""
    try:
        return function(*given)
    except Exception as error:
        note = f"in the process on {_DEVICE}:\n" + "".join(traceback.format_exception(error))
        try:
            pickle.loads(pickle.dumps(error))
        except Exception:  # some take more to be made than their text
            error = RuntimeError(f"{type(error).__name__}: {error}")
        error.add_note(note)
        raise error from None


def _load(text: str, device: str, trust_remote_code: bool, quiet: bool) -> EncoderSpec:
    global _ENCODER
    logging.disable(logging.WARNING if quiet else logging.NOTSET)
    _ENCODER = load_encoder(text, device=device, trust_remote_code=trust_remote_code)
    logging.disable(logging.NOTSET)
    return _ENCODER.spec


def _encode(items: Sequence[Item], role: Role) -> list[Batch]:
    batches = list(_ENCODER.encode(items, role))
    ids = [id for batch in batches for id in batch.ids]
    if ids != [item.id for item in items]:
        raise CrosslensError(
            f"{_ENCODER.spec.name} gave {len(ids)} vectors for {len(items)} items, or in another order"
        )
    return batches


def _ask_tokenizer(what: str, given: object) -> Any:
    if not isinstance(_ENCODER, Tokenizes):
        raise InputError(f"{_ENCODER.spec.name} does not say where its tokens are")
    return getattr(_ENCODER, what)(given)


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


def _estimate_cost(item: Item) -> int:
    """About how long an item takes, in bytes of UTF-8: tokens are nearer to one length in them than in characters."""
    text = len((item.text or "").encode("utf-8", "surrogatepass"))
    return max(text, LEAST) + MEDIUM * sum(value is not None for value in item.contents.values())
