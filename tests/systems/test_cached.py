"""`crosslens cache`: all that lies in the cache, shown and pruned; nothing in use and nothing else goes."""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from crosslens.checkpoints.offline import packages
from crosslens.checkpoints.uses import hold, remove_unheld
from crosslens.files import lock_directory
from crosslens.systems.cached import prune_all, read_cache

Command = Callable[..., tuple[int, str, str]]
DAY = 86400


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One of each kind, 1000 bytes each, used 1, 2, 3... days ago; the first model is one whose package is gone."""
    where = tmp_path / "cache"
    for name in ("CACHE", "TEXTS", "VECTORS"):
        own = {"TEXTS": where / "texts", "VECTORS": where / "vectors"}
        monkeypatch.setenv(f"CROSSLENS_{name}", str(own.get(name, where)))
    gone, there = (packages.MODELS[name].directory for name in ("e5-small", "gemma"))
    monkeypatch.setattr("crosslens.systems.cached.is_installed", lambda name: name != "e5-small")
    files = [
        gone / "model.safetensors",
        there / "model.safetensors",
        where / "int8" / f"{there.name}-0123abcd-v1.safetensors",
        where / "conse-0123.safetensors",
        where / "texts" / "abc.journal",
        where / "served" / "demo.index" / "crosslens.json",
        where / "offline" / ".partial-gemma-1" / "model.safetensors",
        where / "int8" / "qwen-0123456789ab-c1-0123abcd-v1.safetensors",
        where / "openvino" / f"{there.name}-0123abcd-v1" / "model.xml",
        where / "languages-0.0.1.safetensors",
        where / "mine" / "thesis.txt",
    ]
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "kept").write_text("x")
    for days, path in enumerate(files, 1):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * 1000)
        for each in (path, path.parent):
            os.utime(each, (time.time() - days * DAY,) * 2)
    (where / "texts" / "linked.journal").symlink_to(tmp_path / "elsewhere")
    (where / "offline.lock").touch()
    return where


def list_left() -> dict[str, int]:
    return {each.path.name: each.bytes for each in read_cache().things if each.kind != "other"}


def test_all_of_it_is_shown(cache: Path, crosslens: Command) -> None:
    found = json.loads(crosslens("cache", "--json")[1])
    kinds = {each["kind"]: (each["number"], each["bytes"]) for each in found["kinds"]}
    link = (cache / "texts" / "linked.journal").lstat().st_size
    assert kinds == {
        "models": (2, 2000), "int8": (2, 2000), "classes": (1, 1000), "texts": (2, 1000 + link), "demo": (1, 1000),
        "leftovers": (1, 1000), "other": (1, 1000), "openvino": (1, 1000), "languages": (1, 1000),
    }  # fmt: skip
    unused = {Path(each["path"]).name: each["unused"] for each in found["things"] if each["unused"]}
    assert sorted(unused.values()) == [
        "its checkpoint is gone",
        "its package is gone",
        "left by a killed process",
        "of another py3langid",
    ]
    status, out, err = crosslens("cache")
    assert (status, err) == (0, "--prune --unused removes what nothing installed needs\n")
    assert f"{packages.MODELS['e5-small'].directory.name}: 1.0 KB, its package is gone" in out


def test_what_nothing_needs_goes_first_and_then_the_longest_unused(cache: Path, tmp_path: Path) -> None:
    everything = list_left()
    assert list(prune_all(older_than=30).removed or ()) == []
    prune_all(to="7KB")  # of 11 KB
    gone = {
        packages.MODELS["e5-small"].directory.name,
        ".partial-gemma-1",
        "qwen-0123456789ab-c1-0123abcd-v1.safetensors",
        "languages-0.0.1.safetensors",
    }
    assert everything.keys() - list_left().keys() == gone
    prune_all(to="4.5KB")
    openvino = f"{packages.MODELS['gemma'].directory.name}-0123abcd-v1"
    assert everything.keys() - list_left().keys() == {*gone, openvino, "demo.index"}
    prune_all(kinds=["classes"])
    assert "conse-0123.safetensors" not in list_left()
    assert prune_all().freed >= 2000
    assert list_left() == {}
    assert (cache / "mine" / "thesis.txt").exists()
    assert (tmp_path / "elsewhere" / "kept").exists()


def test_what_only_nothing_needs_is_removed(cache: Path, crosslens: Command) -> None:
    status, out, _ = crosslens("cache", "--prune", "--unused", "--kind", "models", "--json")
    assert (status, json.loads(out)["removed"]) == (0, [packages.MODELS["e5-small"].directory.name])
    assert len(list_left()) == 10
    assert len(prune_all(unused=True).removed or ()) == 3


def test_what_was_measured_here_is_shown_and_removed(cache: Path) -> None:
    measured = [cache / "pace" / "0123.json", cache / "vectors" / "rates-cpu.json"]
    for path in measured:
        path.parent.mkdir(exist_ok=True)
        path.write_text("{}")
    assert {each.path for each in read_cache().things if each.kind == "pace"} == set(measured)
    assert [each.path.name for each in read_cache().things if each.kind == "other"] == ["mine"]
    assert set(prune_all(kinds=["pace"]).removed or ()) == {path.name for path in measured}
    assert not any(path.exists() for path in measured)


def test_what_another_process_uses_is_kept(cache: Path) -> None:
    weights = packages.MODELS["gemma"].directory / "model.safetensors"
    with weights.open() as used, lock_directory(cache / "served" / "demo.index"):
        fcntl.flock(used, fcntl.LOCK_SH)  # as `hold` has it until its process ends
        assert set(prune_all().kept) == {weights.parent.name, "demo.index"}
        assert weights.exists()
    assert prune_all(kinds=["models"]).kept == ()
    assert not weights.exists()
    assert not hold(weights)


def test_this_process_holds_what_it_loads_and_gone_is_gone(tmp_path: Path) -> None:
    thing = tmp_path / "thing"
    thing.write_text("x")
    before = time.time() - 2 * DAY
    os.utime(thing, (before, before))
    assert hold(thing)
    assert hold(thing)
    assert not remove_unheld(thing, thing)
    assert thing.stat().st_atime > before + DAY
    assert list(tmp_path.iterdir()) == [thing]
