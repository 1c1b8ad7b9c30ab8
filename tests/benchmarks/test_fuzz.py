"""`benchmarks/fuzz.py`: a few hundred of its damaged inputs, and that it sees what it looks for."""

from __future__ import annotations

import importlib
import sys
import time
from pathlib import Path

import pytest
from crosslens.errors import InputError

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
NAMES = ("fuzz", "fuzz_readers", "fuzz_strict", "measurements")
SLOW = ("checkpoints", "vector caches")  # looked at by the whole benchmark


@pytest.fixture(scope="module")
def fuzz():
    before = {name: sys.modules.pop(name, None) for name in NAMES}  # a checkout may have such a name, too
    sys.path.insert(0, str(BENCHMARKS))
    yield importlib.import_module("fuzz")
    sys.path.remove(str(BENCHMARKS))
    for name, module in before.items():
        del sys.modules[name]
        if module is not None:
            sys.modules[name] = module


@pytest.fixture(scope="module")
def readers(fuzz, tmp_path_factory):
    return fuzz.list_readers(tmp_path_factory.mktemp("made"))


def test_no_damaged_input_ends_badly(fuzz, readers, tmp_path):
    for reader in readers:
        for number, seed in enumerate(reader.seeds):
            assert fuzz.try_input(
                reader, seed, tmp_path / f"{reader.file.replace('/', '-')}-{number}-{id(reader)}"
            ) == ("read", "")
        if not reader.name.startswith(SLOW):
            tally = fuzz.fuzz_reader(reader, range(16), 0, tmp_path)
            assert not tally.worst, (reader.name, tally.worst)


def test_inputs_are_the_same_everywhere(fuzz, readers):
    (runs,) = (reader for reader in readers if reader.name == "runs")
    assert fuzz.make_input(runs, 7, 0) == fuzz.make_input(runs, 7, 0)
    assert len({fuzz.make_input(runs, number, 0) for number in range(50)}) > 40
    assert sum(fuzz.share(readers, 10_000).values()) == 10_000


def refuse(path):
    raise InputError("no")


def wait(path):
    while True:
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("read", "strict", "outcome"),
    [
        (lambda path: 5, lambda content: 5, "read"),
        (lambda path: 5, lambda content: 5.0, "reinterpreted"),
        (lambda path: 5, lambda content: {}["x"], "reinterpreted"),
        (lambda path: 1 / 0, None, "traceback"),
        (refuse, None, "refused"),
        (wait, None, "hang"),
    ],
)
def test_each_way_to_end_is_seen(fuzz, readers, tmp_path, monkeypatch, read, strict, outcome):
    monkeypatch.setattr(fuzz, "LONGEST", 0.02)
    reader = type(readers[0])("made up", (b"x",), read, strict)
    assert fuzz.try_input(reader, b"x", tmp_path / "c")[0] == outcome
