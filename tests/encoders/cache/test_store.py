"""The files of the vector cache: no trouble with them stops a job, and none gives a wrong vector."""

from __future__ import annotations

import logging
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from crosslens.encoders.base import EncoderSpec
from crosslens.encoders.cache import store as cache_store
from crosslens.encoders.cache.contents import prune_cache, read_contents
from crosslens.encoders.cache.encoder import CachedEncoder, close_caches
from crosslens.encoders.cache.store import VectorStore, locate_vector_cache, locate_vectors
from tiny.counting import Counting, numbered, rows


@pytest.fixture
def warnings(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.WARNING, "crosslens")
    return caplog


# No trouble with it stops a job, and none gives a wrong vector


def file() -> Path:
    (found,) = locate_vector_cache().glob("*.sqlite")
    return found


def test_a_damaged_vector_is_encoded_anew_and_kept_again(warnings):
    items = numbered(50)
    bare = rows(CachedEncoder(Counting()), items)
    with sqlite3.connect(file()) as db:
        db.execute("UPDATE vectors SET vector = zeroblob(length(vector)) WHERE row = 7")
        db.execute("UPDATE vectors SET vector = substr(vector, 1, 252) WHERE row = 8")
        db.execute("UPDATE vectors SET vector = 'text' WHERE row = 9")
        # A sound vector under another one's key.
        db.execute("UPDATE vectors SET (sum, vector) = (SELECT sum, vector FROM vectors WHERE row = 1) WHERE row = 10")
        db.execute("DELETE FROM vectors WHERE row = 11")
    db.close()
    encoder = Counting()
    assert rows(CachedEncoder(encoder), items) == bare
    assert sorted(encoder.asked) == sorted(f"text {n}" for n in (6, 7, 8, 9, 10))
    assert [record.message.count("damaged") for record in warnings.records] == [1]
    again = Counting()
    assert rows(CachedEncoder(again), items) == bare
    assert not again.asked


def spoilt(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 4 :] = os.urandom(len(data) - len(data) // 4)
    path.write_bytes(data)


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(b"no database" * 1000),
        lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
        spoilt,
    ],
    ids=["garbage", "cut", "scrambled"],
)
def test_a_damaged_file_is_one_warning_and_can_be_pruned(damage, warnings):
    items = numbered(3000)
    first = CachedEncoder(Counting())
    bare = rows(first, items)
    close_caches([first])
    damage(file())
    encoder = Counting()
    assert rows(CachedEncoder(encoder), items) == bare
    assert encoder.asked
    messages = [record.message for record in warnings.records if "going on without" in record.message]
    assert len(messages) == 1
    assert f"crosslens cache --prune --encoder {encoder.spec.fingerprint}" in messages[0]
    prune_cache(encoder=encoder.spec.fingerprint)
    assert not list(locate_vector_cache().iterdir())
    rows(CachedEncoder(Counting()), items)
    again = Counting()
    assert rows(CachedEncoder(again), items) == bare
    assert not again.asked


def test_no_flipped_bit_gives_another_vector():
    items = numbered(60)
    first = CachedEncoder(Counting())
    bare = rows(first, items)
    close_caches([first])
    whole = file().read_bytes()
    for at in range(0, len(whole), len(whole) // 120):
        flipped = bytearray(whole)
        flipped[at] ^= 1 << at % 8
        for left in locate_vector_cache().iterdir():
            left.unlink()
        locate_vectors(first.spec).write_bytes(flipped)
        layer = CachedEncoder(Counting())
        assert rows(layer, items) == bare
        close_caches([layer])


def test_a_cache_that_cannot_be_made_is_one_warning(monkeypatch, tmp_path, warnings):
    (tmp_path / "file").write_text("no directory")
    monkeypatch.setenv("CROSSLENS_VECTORS", str(tmp_path / "file" / "vectors"))
    items = numbered(1500)
    layer = CachedEncoder(Counting())
    assert rows(layer, items) == rows(Counting(), items)
    assert rows(layer, items) == rows(Counting(), items)
    (record,) = warnings.records
    assert "going on without the cache" in record.message
    assert "CROSSLENS_VECTORS" in record.message


def test_a_full_disk_is_one_warning_and_what_is_there_is_found(monkeypatch, warnings):
    rows(CachedEncoder(Counting()), numbered(500))
    open_vectors = cache_store.open_vectors

    def full(path: Path) -> sqlite3.Connection:
        db = open_vectors(path)
        db.execute(f"PRAGMA max_page_count = {db.execute('PRAGMA page_count').fetchone()[0]}")
        return db

    monkeypatch.setattr(cache_store, "open_vectors", full)
    encoder = Counting()
    items = numbered(5000)
    assert rows(CachedEncoder(encoder), items) == rows(Counting(), items)
    assert "text 499" not in encoder.asked
    (record,) = warnings.records
    assert "full" in record.message
    assert "--prune" in record.message


def test_a_file_of_another_encoder_or_format_is_left_alone(warnings):
    layer = CachedEncoder(Counting())
    rows(layer, numbered(5))
    close_caches([layer])
    other = Counting(name="other")
    file().rename(locate_vectors(other.spec))
    assert rows(CachedEncoder(other), numbered(5)) == rows(Counting(), numbered(5))
    assert len(other.asked) == 5
    assert "another encoder" in warnings.records[-1].message
    locate_vectors(other.spec).rename(locate_vectors(Counting().spec))
    with sqlite3.connect(file()) as db:
        db.execute(f"PRAGMA user_version = {cache_store.FORMAT + 1}")
    db.close()
    newer = Counting()
    rows(CachedEncoder(newer), numbered(5))
    assert len(newer.asked) == 5
    assert "format" in warnings.records[-1].message


WRITER = """
import sys, time
from crosslens.encoders.base import EncoderSpec
from crosslens.encoders.cache.store import VectorStore, locate_vectors
spec = EncoderSpec("count:x", "count", ("text",), 384)
first, count = map(int, sys.argv[1:])
store = VectorStore(locate_vectors(spec), spec)
print("ready", flush=True)
sys.stdin.readline()
for start in range(first, first + count, 20):
    store.put({n.to_bytes(16, "big"): n.to_bytes(4, "big") * 384 for n in range(start, start + 20)})
    print(start + 20, flush=True)
"""


def writer(first: int, count: int) -> subprocess.Popen[str]:
    program = [sys.executable, "-c", WRITER, str(first), str(count)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(program, text=True, **pipes)  # type: ignore[call-overload, no-any-return]


def checked(upto: int) -> int:
    """How many of the first writers' vectors are there; all of them right."""
    spec = EncoderSpec("count:x", "count", ("text",), 384)
    store = VectorStore(locate_vectors(spec), spec)
    found = store.get([n.to_bytes(16, "big") for n in range(upto)])
    store.close()
    for key, value in found.items():
        assert value == int.from_bytes(key, "big").to_bytes(4, "big") * 384
    return len(found)


def test_killed_at_any_moment_all_that_was_put_is_there():
    done = 0
    for attempt in range(4):
        process = writer(done, 1_000_000)
        assert process.stdout
        assert process.stdin
        process.stdout.readline()
        process.stdin.write("\n")
        process.stdin.flush()
        for _ in range(1 + 5 * attempt):
            process.stdout.readline()
        time.sleep(0.003 * attempt)
        process.send_signal(signal.SIGKILL)
        # What was printed after the lines that were read; the last one may be cut.
        lines = [str(done + 20 * (1 + 5 * attempt)), *process.stdout.read().split("\n")[:-1]]
        process.wait()
        held = checked(int(lines[-1]) + 40)
        assert held - int(lines[-1]) in (0, 20)  # at most the last put is not printed
        done = held
    with sqlite3.connect(file()) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    db.close()


def test_several_processes_write_the_same_and_other_vectors_at_once():
    processes = [writer(first, 2000) for first in (0, 1000, 0)]
    for process in processes:
        assert process.stdout
        assert process.stdin
        process.stdout.readline()
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
    for process in processes:
        _, err = process.communicate(timeout=60)
        assert (process.returncode, err) == (0, "")
    assert checked(4000) == 3000
    (file,) = read_contents().files
    assert file.vectors == 3000
