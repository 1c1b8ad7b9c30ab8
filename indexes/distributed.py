"""Indexing on a Ray cluster: workers encode shards and write them as Lance fragments, this process commits them.

lance-ray commits all of a write at its end, so that a killed run would lose it whole. Here the fragments of each shard
are committed as they come, by Lance's own operation, and a rerun encodes only what is missing.
"""

from __future__ import annotations

import json
import logging
import math
import os
import socket
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import KW_ONLY, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa

from ..encoders.base import Encoder, EncoderSpec, Tokenizes
from ..encoders.registry import load_encoder
from ..errors import CrosslensError, InputError
from ..items import Batch, Item, Role
from .base import WINDOW
from .kinds.base import Kind
from .registry import find_kind
from .storage.card import Card
from .storage.place import DATABASE, MEMORY, translate_errors
from .storage.resume import ItemState, Portion
from .storage.storage import Storage
from .storage.tables import DOCUMENTS

AHEAD = 2  # shards that a worker has before it, so that it never waits
BEHIND = 4  # times as many may be done and wait for an earlier one, which a retry holds up
FREED = 50  # tenths of a second to wait for resources
RETRIES = 3  # times that Ray starts a worker, and a shard, again before it gives up
log = logging.getLogger("crosslens")


@dataclass(eq=False)
class Cluster:
    """Encoders in the processes of a Ray cluster: one a GPU or, without GPUs (or with `device` `cpu`), one a CPU.

    `address` is `local` (a cluster on this machine for as long as the block lasts), `auto`, `HOST:PORT` or
    `ray://HOST:PORT`. Workers need the same crosslens, and read index and pictures at the same places as this process;
    what they need of the environment (keys of an object store) is that of the cluster. Give it to `add` as `cluster`,
    with its `encoders`. At most as many are started as `documents` have shards. `InputError` where ray is
    not installed, the cluster cannot be reached or has nothing free, and on a SPEC that a worker cannot load.
    """

    address: str
    specs: Sequence[str]
    _: KW_ONLY
    device: str = "auto"
    trust_remote_code: bool = False
    documents: int | None = None
    workers: list[Any] = field(default_factory=list, init=False)
    _mine: bool = field(default=False, init=False)  # whether Ray was started or joined for it, and is to be left

    def __enter__(self) -> Self:
        try:
            import lance  # noqa: F401
            import ray
        except ImportError as error:
            raise InputError(
                f"--ray needs {error.name}, which is not installed: pip install 'crosslens[dist]'"
            ) from None
        self.ray = ray
        try:
            self._connect()
            device, count = self._count_slots()
            actor = self.ray.remote(Worker).options(
                num_cpus=1, num_gpus=int(device == "cuda"), max_restarts=RETRIES, max_task_retries=RETRIES
            )
            self.workers = [actor.remote(self.specs, device, self.trust_remote_code, os.getcwd()) for _ in range(count)]
            found = _get_answer(self.ray, self.workers[0].specs.remote())
            self.encoders = [_Away(self, number, spec) for number, spec in enumerate(found)]
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        for actor in self.workers:
            self.ray.kill(actor)
        self.workers = []
        if self._mine:
            self.ray.shutdown()
            self._mine = False

    def store(self, storage: Storage, portions: Iterable[Portion]) -> Iterator[Portion]:
        """Encode and commit the items of each portion; yields them, in their order, once they are stored.

        Shards are committed as they are done, in any order. What is new is appended as fragments, all that are ready
        in one commit; what replaces stored rows comes here as rows. A shard whose worker dies is done again.
        """
        if storage.path == MEMORY:
            raise InputError("workers cannot write to an index in memory: give a directory")
        shards = _Shards(self, storage)
        most = AHEAD * len(self.workers)
        for portion in portions:
            shards.start(portion)
            while shards.running and (len(shards.running) >= most or len(shards.queue) > BEHIND * most):
                shards.collect()
            yield from shards.take_done()
        while shards.queue:
            if shards.running:
                shards.collect()
            yield from shards.take_done()

    def _connect(self) -> None:
        ray = self.ray
        if ray.is_initialized():
            return
        # A cluster of our own is gone in a moment: it sends no statistics about itself.
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        # Ray prints what workers say on stdout, which is for results.
        options = {"log_to_driver": False, "logging_level": "ERROR"}
        if self.address == "local":
            options |= {"include_dashboard": False}
        try:
            _check_address(self.address)
            ray.init(address=self.address, **options)
        except (ConnectionError, RuntimeError, ValueError, OSError, ImportError) as error:
            cause = " ".join(str(error).split())[:200]
            raise InputError(
                f"cannot reach a Ray cluster at {self.address!r} ({cause}); give `local`, `auto`, HOST:PORT or "
                "ray://HOST:PORT"
            ) from None
        self._mine = True

    def _count_slots(self) -> tuple[str, int]:
        """The workers' device, and how many there can be."""
        if self.device not in ("auto", "cpu", "cuda"):
            raise InputError(
                f"Ray gives the workers their devices: with it the device is auto, cpu or cuda, not {self.device!r}"
            )
        has_gpus = self.ray.cluster_resources().get("GPU", 0) >= 1
        if self.device == "cuda" and not has_gpus:
            raise InputError(f"the Ray cluster at {self.address!r} has no GPU; give --device cpu")
        device = "cuda" if has_gpus and self.device != "cpu" else "cpu"
        needed = ("CPU", "GPU") if device == "cuda" else ("CPU",)
        for _ in range(FREED):  # what just ended may still be held
            free = self.ray.available_resources()
            if slots := min(int(free.get(each, 0)) for each in needed):
                break
            time.sleep(0.1)
        else:
            raise InputError(f"the Ray cluster at {self.address!r} has no free {' or '.join(needed)}")
        if self.documents is not None:
            slots = max(1, min(slots, math.ceil(self.documents / WINDOW)))
        return device, slots


class Worker:
    """What runs in a process of the cluster: the encoders, loaded once, and the index that they write to."""

    def __init__(self, specs: Sequence[str], device: str, trust_remote_code: bool, folder: str) -> None:
        with suppress(OSError):  # so that relative paths are those of the process that gave them
            os.chdir(folder)
        self._specs, self._device, self._trust = specs, device, trust_remote_code
        self._target: object = None
        self._kind: Kind

    # Not in `__init__`: of an error there Ray reports only that the worker died.
    @cached_property
    def _encoders(self) -> list[Encoder]:
        return [load_encoder(spec, device=self._device, trust_remote_code=self._trust) for spec in self._specs]

    def specs(self) -> list[EncoderSpec]:
        return [encoder.spec for encoder in self._encoders]

    def encode(self, number: int, items: Sequence[Item], role: Role) -> list[Batch]:
        return list(self._encoders[number].encode(items, role))

    def rows(
        self,
        path: str,
        card: Card,
        columns: Sequence[str],
        items: Sequence[Item],
        states: Sequence[ItemState],
        write: bool,
    ) -> list[str] | pa.Table:
        """The rows of `items`, encoded; with `write` they are in the storage, and what comes are their fragments.

        `columns` are those that the documents have now: when there are more of them, the table is opened again.
        """
        if self._target != (path, columns):
            found, detail = find_kind(card.kind)
            self._kind = found(Storage(path, card, pinned=False), self._device, detail)
            self._target = (path, columns)
        spaces = [card.space(encoder.spec) for encoder in self._encoders]
        block = self._kind.rows(items, states, spaces, self._encoders)
        if not write:
            return block
        import lance.fragment

        with translate_errors("write", path):
            data = lance.dataset(_name_dataset(path))
            made = lance.fragment.write_fragments(
                block, data, schema=block.schema, data_storage_version=data.data_storage_version
            )
        return [json.dumps(each.to_json()) for each in made]


@dataclass
class _Shard:
    portion: Portion
    stored: bool = False


@dataclass
class _Shards:
    """The shards of one run: under way, and done but not yet handed on."""

    cluster: Cluster
    storage: Storage
    queue: deque[_Shard] = field(default_factory=deque)  # in the order of the portions
    running: dict[Any, tuple[_Shard, Any]] = field(default_factory=dict)

    def start(self, portion: Portion) -> None:
        shard = _Shard(portion, stored=not portion.items)
        self.queue.append(shard)
        if not shard.stored:
            self._send(shard)

    def take_done(self) -> Iterator[Portion]:
        while self.queue and self.queue[0].stored:
            yield self.queue.popleft().portion

    def collect(self) -> None:
        """Wait for a shard, and commit all that are done by then."""
        ray = self.cluster.ray
        ray.wait(list(self.running), num_returns=1)
        ready, _ = ray.wait(list(self.running), num_returns=len(self.running), timeout=0)
        finished: list[tuple[_Shard, list[str] | pa.Table]] = []
        failed: Exception | None = None
        for reference in ready:
            shard, actor = self.running.pop(reference)
            try:
                finished.append((shard, _get_answer(ray, reference)))
            except ray.exceptions.RayActorError:
                self._lost(shard, actor)
            except Exception as error:  # what the others have made is stored first
                failed = failed or error
        if finished:
            self.storage.begin_change()
        if fragments := [each for _, made in finished if isinstance(made, list) for each in made]:
            _commit(self.storage, fragments)
        for shard, made in finished:
            if not isinstance(made, list):
                # No compaction: it removes files that no version names yet, those of the shards under way among them.
                self.storage.tables.write(made, new=False, compacting=False)
            shard.stored = True
        if failed is not None:
            raise failed

    def _send(self, shard: _Shard) -> None:
        loads = Counter(id(actor) for _, actor in self.running.values())
        actor = min(self.cluster.workers, key=lambda each: loads[id(each)])
        portion, storage = shard.portion, self.storage
        write = portion.new and not storage.path.startswith(DATABASE)  # a database gives nobody its files
        path, columns = _resolve_path(storage.path), list(storage.tables.documents.schema.names)
        reference = actor.rows.remote(path, storage.card, columns, portion.items, portion.states, write)
        self.running[reference] = (shard, actor)

    def _lost(self, shard: _Shard, actor: Any) -> None:
        """Give the shard of a worker that Ray has given up to another one."""
        self.cluster.workers = left = [each for each in self.cluster.workers if each is not actor]
        first, last = shard.portion.items[0].id, shard.portion.items[-1].id
        if not left:
            raise CrosslensError(
                f"the last worker died {RETRIES + 1} times, the last time over the items {first!r} to {last!r}; is "
                "there too little memory? What is stored is kept: rerun `crosslens index` to go on"
            )
        log.warning("a worker is lost, over the items %r to %r: going on with %d", first, last, len(left))
        self._send(shard)


@dataclass(eq=False)
class _Away:
    """An encoder that workers hold, while they do; loaded here, on the CPU, only where tokens must be counted."""

    cluster: Cluster
    number: int
    spec: EncoderSpec

    def encode(self, items: Iterable[Item], role: Role) -> Iterator[Batch]:
        """What the index itself encodes, queries and openings of documents: one worker does it."""
        if not self.cluster.workers:
            raise InputError("the workers of this index are gone: open it again to search it")
        yield from _get_answer(self.cluster.ray, self.cluster.workers[0].encode.remote(self.number, list(items), role))

    def token_spans(self, texts: Sequence[str]) -> list[np.ndarray]:
        return self._tokenizer.token_spans(texts)

    def room(self, role: Role = "document") -> int:
        return self._tokenizer.room(role)

    @cached_property
    def _tokenizer(self) -> Tokenizes:
        encoder = load_encoder(self.spec.name, device="cpu")
        if not isinstance(encoder, Tokenizes):
            raise InputError(f"{self.spec.name} cannot say where its tokens are")
        return encoder


def _commit(storage: Storage, fragments: Sequence[str]) -> None:
    """Append fragments that workers have written to the documents, in one version."""
    import lance.fragment

    made = [lance.fragment.FragmentMetadata.from_json(each) for each in fragments]
    with translate_errors("write", storage.path):
        name = _name_dataset(_resolve_path(storage.path))
        version = lance.dataset(name).version
        lance.LanceDataset.commit(name, lance.LanceOperation.Append(made), read_version=version)
        storage.tables.documents.checkout_latest()


def _check_address(address: str) -> None:
    """`OSError` where nobody listens at `HOST:PORT`: Ray itself would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()


def _get_answer(ray: Any, reference: Any) -> Any:
    """What a worker gave back; an error of crosslens there is raised as itself."""
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, CrosslensError):
            raise error.cause from None
        raise


def _resolve_path(path: str) -> str:
    """Where workers find the index: their working directory is another."""
    return path if "://" in path else str(Path(path).resolve())


def _name_dataset(path: str) -> str:
    return f"{path}/{DOCUMENTS}.lance"
