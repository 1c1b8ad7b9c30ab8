"""An encoder in several processes: the same vectors, errors in one line, and nothing that outlives its owner."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from crosslens.checkpoints import devices, sharing
from crosslens.checkpoints.sharing import share_cores
from crosslens.encoders import registry
from crosslens.encoders.base import Encoder, Tokenizes, encode_matrix
from crosslens.encoders.workers import WINDOW, Workers, load_for_index
from crosslens.errors import CrosslensError, InputError
from crosslens.indexes.registry import create_index, open_index
from crosslens.items import Dense, Item
from stand_ins.table import table

TWO = ["cpu", "cpu"]
several_cores = pytest.mark.skipif(len(sharing.list_cores()) < 2, reason="two processes need two cores")


@pytest.fixture(scope="module")
def spec(tiny_encoder: Path) -> str:
    return f"hf:{tiny_encoder}?pooling=mean&dtype=float32"


@pytest.fixture(scope="module")
def two(spec: str) -> Iterator[Workers]:
    with Workers(spec, TWO) as workers:
        yield workers


def collection(count: int) -> list[Item]:
    """Texts of very different lengths, so that sorting them matters."""
    return [Item(f"d{n}", text=f"document {n} about the cat " * (n * 7 % 23 + 1), lang="eng") for n in range(count)]


# Devices


@pytest.fixture
def four_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(devices, "list_cores", lambda: list(range(6)))


@pytest.mark.usefixtures("four_gpus")
@table(
    ("device", "meant"),
    [
        ("auto", ["cuda:0", "cuda:1", "cuda:2", "cuda:3"]),
        ("cuda", ["cuda"]),
        ("cuda:3", ["cuda:3"]),
        ("cuda:2,0", ["cuda:2", "cuda:0"]),
        ("cpu", ["cpu"]),
        ("cpu:3", ["cpu", "cpu", "cpu"]),
    ],
)
def test_a_device_may_be_several(device: str, meant: list[str]) -> None:
    assert devices.resolve_devices(device) == meant
    first = devices.resolve_device(device)
    assert str(first) == ("cuda" if device == "auto" else meant[0])


def test_auto_is_one_device_without_several_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert devices.resolve_devices("auto") == ["cuda"]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert devices.resolve_devices("auto") == [str(devices.resolve_device("auto"))]


@pytest.mark.usefixtures("four_gpus")
@table(
    ("device", "says"),
    [
        ("cuda:1,4", "there is no device 'cuda:4' here .4 CUDA devices.; use --device auto"),
        ("cuda:1,1", "names one twice"),
        ("cuda:", "unknown device 'cuda:'"),
        ("cuda:0,", "unknown device"),
        ("cuda:-1", "unknown device"),
        ("cpu:0", "unknown device 'cpu:0'"),
        ("cpu:1,2", "unknown device"),
        ("cpu:7", "'cpu:7' is 7 processes, and there are 6 CPU cores here: write cpu:6"),
        ("tpu", "unknown device 'tpu'; write auto, cpu, cpu:N"),
        ("", "unknown device ''"),
    ],
)
def test_a_device_that_is_not_there_is_one_line(device: str, says: str) -> None:
    for resolve in (devices.resolve_devices, devices.resolve_device):
        with pytest.raises(InputError, match=says):
            resolve(device)


@pytest.mark.usefixtures("four_gpus")
def test_what_takes_one_device_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "crosslens"):
        assert [str(devices.resolve_device("cuda:3,1")) for _ in range(3)] == ["cuda:3"] * 3
    assert caplog.messages == ["--device cuda:3,1: an index is encoded on all of it, the rest runs on cuda:3"]


@table(("count", "processes"), [(2, 2), (7, 3), (64, 4), (4, 1), (2, 8)])
def test_cores_are_dealt_out(monkeypatch: pytest.MonkeyPatch, count: int, processes: int) -> None:
    held = list(range(10, 10 + count))
    monkeypatch.setattr(sharing, "list_cores", lambda: held)
    shares = share_cores(processes)
    assert len(shares) == processes
    assert all(shares)
    if processes <= count:
        assert [core for share in shares for core in share] == held
        assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_one_device_needs_no_processes(spec: str) -> None:
    assert not isinstance(load_for_index(spec, device="cpu"), Workers)


# Encoding


@several_cores
def test_it_is_the_encoder_that_it_loads(two: Workers, spec: str) -> None:
    alone = registry.load_encoder(spec, device="cpu")
    assert isinstance(alone, Tokenizes)
    assert isinstance(two, Encoder)
    assert isinstance(two, Tokenizes)
    assert two.spec.to_json() == alone.spec.to_json()
    texts = ["the cat sleeps", "猫整天睡觉", ""]
    for mine, theirs in zip(two.token_spans(texts), alone.token_spans(texts), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert two.room() == alone.room()


@several_cores
def test_vectors_and_order_are_those_of_one_process(two: Workers, spec: str) -> None:
    items = collection(2 * WINDOW * len(TWO) + 100)
    read = 0

    def counted() -> Iterator[Item]:
        nonlocal read
        for item in items:
            read += 1
            yield item

    ids: list[str] = []
    blocks = []
    for batch in two.encode(counted(), "document"):
        assert isinstance(batch, Dense)
        assert batch.vectors.dtype == np.float32
        ids += batch.ids
        blocks.append(batch.vectors)
        assert read <= len(ids) + WINDOW * len(TWO)
    assert ids == [item.id for item in items]
    vectors = np.concatenate(blocks)
    np.testing.assert_allclose(
        vectors, encode_matrix(registry.load_encoder(spec, device="cpu"), items, "document"), atol=1e-5
    )
    # Whoever encodes what; batches are as large as a process has measured to be best, which may move the last bits.
    np.testing.assert_allclose(vectors, encode_matrix(two, items, "document"), rtol=0, atol=1e-6)
    np.testing.assert_allclose(encode_matrix(two, items[:3], "query"), vectors[:3], atol=1e-5)
    assert list(two.encode([], "document")) == []


@several_cores
def test_each_process_keeps_to_its_cores(two: Workers) -> None:
    encode_matrix(two, collection(600), "document")
    held = [os.sched_getaffinity(process.pid or 0) for process in multiprocessing.active_children()]
    held = [each for each in held if each < set(sharing.list_cores())]
    assert len(held) == 2
    assert not held[0] & held[1]
    assert held[0] | held[1] == set(sharing.list_cores())


FAULTY = """
import numpy as np
from crosslens.encoders.base import EncoderSpec
from crosslens.errors import InputError
from crosslens.items import Dense

class Faulty:
    def __init__(self):
        self.spec = EncoderSpec("faulty", "1", ("text",), 2)

    def encode(self, items, role):
        for item in items:
            if item.text == "input":
                raise InputError(f"item {item.id!r} is refused")
            if item.text == "type":
                raise TypeError("not so")
            if item.text == "odd":
                raise type("Odd", (Exception,), {"__init__": lambda self, a, b: None})(1, 2)
        ids = [item.id for item in items]
        yield Dense(ids[::-1] if "swapped" in ids else ids, np.ones((len(items), 2), np.float32))
"""


@several_cores
def test_errors_of_a_process_arrive_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "faulty.py").write_text(FAULTY)
    monkeypatch.syspath_prepend(str(tmp_path))
    with Workers("py:faulty:Faulty", TWO) as workers:
        with pytest.raises(InputError, match="item 'empty' holds neither text nor image"):
            list(workers.encode([*collection(3), Item("empty")], "document"))
        with pytest.raises(InputError, match=r"^item 'bad' is refused") as refused:
            list(workers.encode([Item("bad", "input")], "document"))
        assert "in the process on cpu:\nTraceback" in refused.value.__notes__[0]
        with pytest.raises(TypeError, match="not so"):
            list(workers.encode([*collection(9), Item("bad", "type")], "document"))
        with pytest.raises(RuntimeError, match="^Odd: "):  # which cannot be sent as it is
            list(workers.encode([Item("bad", "odd")], "document"))
        with pytest.raises(InputError, match="Faulty.* does not say where its tokens are"):
            workers.room()
        assert encode_matrix(workers, collection(40), "document").shape == (40, 2)
        with pytest.raises(CrosslensError, match="another order"):
            list(workers.encode([*collection(9), Item("swapped", "text")], "document"))


def test_a_spec_that_does_not_load_is_one_line_and_leaves_no_process(tmp_path: Path) -> None:
    before = children(os.getpid())
    with pytest.raises(InputError, match=f"there is no directory {tmp_path}/nothing"):
        Workers(f"hf:{tmp_path}/nothing", TWO[: min(2, len(sharing.list_cores()))])
    assert children(os.getpid()) - before <= trackers()


# What ends


@several_cores
def test_a_process_that_dies_is_named_and_what_is_stored_stays(tmp_path: Path) -> None:
    spec = "py:stand_ins.cheap_encoder:Cheap"  # for which its processes need not import transformers
    window = WINDOW * len(TWO)
    items = collection(3 * window)

    def deadly() -> Iterator[Item]:
        for number, item in enumerate(items):
            if number == 2 * window + 100:  # the first window is stored, and perhaps the second
                os.kill(pids[1], signal.SIGKILL)
            yield item

    index = create_index(tmp_path / "index")
    before = set(multiprocessing.active_children())
    with Workers(spec, TWO) as workers:
        pids = sorted(process.pid or 0 for process in set(multiprocessing.active_children()) - before)
        died = r"encoded on cpu, process 2 of 2 was killed \(signal 9\), by the system if memory ran out; what is"
        with pytest.raises(CrosslensError, match=died):
            index.add(deadly(), workers)
        assert not set(pids) & children(os.getpid())
        with pytest.raises(InputError, match="have been closed; load it again"):
            next(workers.encode(items, "document"))
    alone = registry.load_encoder(spec, device="cpu")
    assert create_index(tmp_path / "index").add(items, alone) in (window, 2 * window)
    whole = create_index(tmp_path / "whole")
    whole.add(items, alone)
    same_tables(tmp_path / "index", tmp_path / "whole")


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Enough documents for a signal to arrive in the middle, and an encoder that takes its time."""
    where = tmp_path_factory.mktemp("large")
    rows = ({"id": item.id, "lang": "eng", "text": item.text} for item in collection(8000))
    (where / "docs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (where / "slow_encoder.py").write_text(SLOW)
    return where


SLOW = """
import time
from stand_ins.cheap_encoder import Cheap

class Slow(Cheap):
    def encode(self, items, role):
        for batch in super().encode(items, role):
            time.sleep(0.001)
            yield batch
"""


@several_cores
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="processes are counted in /proc")
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_no_process_outlives_the_command(large: Path, tmp_path: Path, how: signal.Signals) -> None:
    index = tmp_path / "index"
    program = "from crosslens.commands.app import script; script()"
    options = ["index", large, index, "--encoder", "py:slow_encoder:Slow", "--device", "cpu:2", "--no-cache"]
    process = subprocess.Popen(
        [sys.executable, "-c", program, *map(str, options)],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(large), *sys.path])},
        start_new_session=True,  # as a shell does, whose Ctrl-C goes to all of them
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None and documents(index) < 1024:
        time.sleep(0.02)
    begun = {process.pid} | children(process.pid)
    assert len(begun) >= 3
    if how is signal.SIGINT:
        os.killpg(process.pid, how)
    else:
        process.kill()
    _, err = process.communicate(timeout=60)
    assert process.returncode == (1 if how is signal.SIGINT else -how), err
    assert "Traceback" not in err
    assert err.count("crosslens: interrupted") == (how is signal.SIGINT)
    deadline = time.monotonic() + 30
    while (left := {pid for pid in begun if alive(pid)}) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not left
    assert 1024 <= documents(index) < 8000


def children(pid: int) -> set[int]:
    return {int(child) for task in Path(f"/proc/{pid}/task").glob("*/children") for child in task.read_text().split()}


def trackers() -> set[int]:
    """Python's own process that watches over what several processes share; it ends with this one."""
    from multiprocessing import resource_tracker

    return {resource_tracker._resource_tracker._pid}  # type: ignore[attr-defined]  # noqa: SLF001


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def documents(index: Path) -> int:
    import lancedb

    try:
        return int(lancedb.connect(index).open_table("documents").count_rows())
    except Exception:  # not made yet
        return 0


def same_tables(one: Path, other: Path) -> None:
    """Equal ids in equal order, and equal vectors up to the rounding of float16."""
    mine, theirs = open_index(one), open_index(other)
    assert mine.card.content == theirs.card.content
    for space in mine.card.spaces:
        blocks = [list(index.storage.tables.blocks(space, False)) for index in (mine, theirs)]
        ids = [[id for block in each for id in block[0]] for each in blocks]
        assert ids[0] == ids[1]
        vectors = [np.concatenate([block[3] for block in each]) for each in blocks]
        np.testing.assert_allclose(vectors[0], vectors[1], atol=1e-3)
