"""The vector cache: what is found is what was encoded, nothing is encoded twice, and no trouble with it stops a job."""

from __future__ import annotations

import json
import logging
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse
from crosslens.encoders.base import Encoder, EncoderSpec, Tokenizes, matrix
from crosslens.encoders.cache import store as cache_store
from crosslens.encoders.cache.contents import CacheContents, parse_size, prune_cache, read_contents
from crosslens.encoders.cache.encoder import HELD, CachedEncoder, add_caches, close_caches
from crosslens.encoders.cache.keys import compute_key
from crosslens.encoders.cache.store import VectorStore, locate_vector_cache, locate_vectors
from crosslens.encoders.registry import load_encoder
from crosslens.errors import InputError
from crosslens.items import Batch, Dense, Item, Multi, Role, Sparse, windows
from PIL import Image

DIM = 64


def vector(text: str) -> np.ndarray:
    """What the counting encoder makes of a text."""
    return np.random.default_rng(list(text.encode())).standard_normal(DIM).astype(np.float32)


class Counting:
    """An encoder that says what it was asked for, `window` items at a time as the engine does."""

    def __init__(self, kind: str = "dense", window: int = 100, name: str = "count", dtype: str = "float32"):
        self.spec = EncoderSpec(f"{name}:x", name, ("text",), DIM, kind=kind, dtype=dtype)  # type: ignore[arg-type]
        self.window = window
        self.asked: Counter[str] = Counter()
        self.streams = 0

    def encode(self, items: Iterable[Item], role: Role) -> Iterator[Batch]:
        self.streams += 1
        for group in windows(items, self.window):
            self.asked.update(item.text or "" for item in group)
            yield self.batch(group)

    def batch(self, group: list[Item]) -> Batch:
        ids = [item.id for item in group]
        made = [vector(item.text or "") for item in group]
        if self.spec.kind == "dense":
            return Dense(ids, np.stack(made))
        if self.spec.kind == "multi":
            return Multi(
                ids,
                [
                    np.outer(np.arange(len(i.text or "") % 5, dtype=np.float32), m)
                    for i, m in zip(group, made, strict=True)
                ],
            )
        thinned = np.where(np.stack(made) > 0.5, np.stack(made), 0)
        return Sparse(ids, scipy.sparse.csr_matrix(thinned))


def documents(*texts: str, lang: str | None = "eng") -> list[Item]:
    return [Item(f"d{number}", text, lang=lang) for number, text in enumerate(texts)]


def numbered(count: int, start: int = 0) -> list[Item]:
    return [Item(f"n{number}", f"text {number}", lang="eng") for number in range(start, start + count)]


def rows(encoder: Encoder, items: Iterable[Item]) -> list[tuple[str, bytes]]:
    """The id of each item and all that its vector says."""
    found = []
    for batch in encoder.encode(items, "document"):
        if isinstance(batch, Sparse):
            assert batch.vectors.shape == (len(batch.ids), encoder.spec.dim)
            for row, id in enumerate(batch.ids):
                one = batch.vectors[row]
                assert one.dtype == np.float32
                found.append((id, one.indices.astype("i4").tobytes() + one.data.tobytes()))
        else:
            for id, each in zip(batch.ids, batch.vectors, strict=True):
                assert each.dtype == np.float32
                found.append((id, repr(each.shape).encode() + each.tobytes()))
    return found


@pytest.fixture
def warnings(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.WARNING, "crosslens")
    return caplog


# What is found is what was encoded


@pytest.mark.parametrize("kind", ["dense", "multi", "sparse"])
def test_vectors_are_found_again_bit_for_bit_and_in_order(kind):
    items = numbered(1300)
    random.Random(0).shuffle(items)
    bare = rows(Counting(kind), items)
    encoder = Counting(kind)
    assert rows(CachedEncoder(encoder), items) == bare
    assert set(encoder.asked.values()) == {1}
    again = Counting(kind)
    assert rows(CachedEncoder(again), reversed(items)) == bare[::-1]
    assert not again.asked
    assert again.streams == 0


SPECS = [
    ("hf", "tiny_encoder", "hf:{}?dtype=float32"),
    ("late", "tiny_colbert", "late:{}?dtype=float32"),
    ("splade", "tiny_splade", "splade:{}?dtype=float32"),
]


@pytest.mark.parametrize(("family", "checkpoint", "spec"), SPECS, ids=[each[0] for each in SPECS])
def test_real_encoders_are_found_bit_for_bit(family, checkpoint, spec, request):
    encoder = load_encoder(spec.format(request.getfixturevalue(checkpoint)))
    items = [Item(f"d{n}", f"the cat number {n} " * (1 + n % 7)) for n in range(40)]
    bare = rows(encoder, items)
    first, second = CachedEncoder(encoder), CachedEncoder(encoder)
    assert rows(first, items) == bare
    assert rows(second, items) == bare
    assert (first.found, second.found) == (0, 40)


def test_an_encoder_tells_its_tokens_through_the_cache_or_not_at_all(tiny_encoder):
    encoder = load_encoder(f"hf:{tiny_encoder}?dtype=float32")
    told, mute = add_caches([encoder, Counting()])
    assert isinstance(told, Tokenizes)
    assert not isinstance(mute, Tokenizes)
    assert (told.token_spans(["a cat"])[0] == encoder.token_spans(["a cat"])[0]).all()
    assert told.room() == encoder.room()
    assert told.room("query") == encoder.room("query")
    assert told.spec == encoder.spec
    encoder.processes = 3  # type: ignore[attr-defined]
    assert [each.processes for each in (CachedEncoder(encoder), CachedEncoder(Counting()))] == [3, 1]


# Nothing is encoded twice


def test_equal_content_is_encoded_once_within_a_window_and_across_runs_and_collections():
    encoder = Counting(window=3)
    first = documents("one", "two", "one", "three", "two", "one", "four", "four")
    layer = CachedEncoder(encoder)
    found = rows(layer, first)
    assert [id for id, _ in found] == [item.id for item in first]
    assert [each for _, each in found] == [
        repr((DIM,)).encode() + vector(str(i.text)).tobytes() for i in first
    ]
    assert set(encoder.asked.values()) == {1}
    assert layer.found == 4
    other = [Item(f"other-{item.id}", item.text, lang="eng", meta={"url": "x"}) for item in first]
    assert rows(CachedEncoder(encoder), [*other, Item("new", "five")])[-1][0] == "new"
    assert encoder.asked == Counter(["one", "two", "three", "four", "five"])


def test_many_equal_items_wait_for_one_and_for_no_more_than_a_window():
    encoder = Counting(window=10_000)
    read = 0

    def stream() -> Iterator[Item]:
        nonlocal read
        for number in range(5000):
            read += 1
            yield Item(f"d{number}", "the same" if number else "first")

    out = CachedEncoder(encoder).encode(stream(), "document")
    next(out)
    assert read <= 2 * HELD["dense"] + 2
    assert sum(len(batch.ids) for batch in out) == 5000 - HELD["dense"]
    assert encoder.asked == Counter(["first", "the same"])


def test_a_new_collection_goes_to_the_encoder_as_one_stream():
    encoder = Counting()
    rows(CachedEncoder(encoder), numbered(4000))
    assert encoder.streams == 1
    rows(CachedEncoder(encoder), numbered(4000))  # all found: it is not asked at all
    assert encoder.streams == 1


def test_where_most_is_found_little_is_read_ahead():
    rows(CachedEncoder(Counting()), numbered(6000))
    rare = [Item(f"n{n}", f"text {n}" if n % 997 else f"new {n}", lang="eng") for n in range(6000)]
    encoder = Counting(window=10_000)
    read = given = 0

    def stream() -> Iterator[Item]:
        nonlocal read
        for item in rare:
            read += 1
            yield item

    found = []
    for batch in CachedEncoder(encoder).encode(stream(), "document"):
        given += len(batch.ids)
        found += batch.ids
        assert read - given <= 3 * HELD["dense"]
    assert found == [item.id for item in rare]
    assert sorted(encoder.asked) == sorted(f"new {n}" for n in range(0, 6000, 997))


def test_an_encoder_may_read_its_input_in_a_thread():
    class Threaded(Counting):
        def encode(self, items: Iterable[Item], role: Role) -> Iterator[Batch]:
            import queue

            waiting: queue.Queue[list[Item] | None] = queue.Queue(2)

            def read() -> None:
                for group in windows(items, 50):
                    waiting.put(group)
                waiting.put(None)

            thread = threading.Thread(target=read)
            thread.start()
            while (group := waiting.get()) is not None:
                self.asked.update(item.text or "" for item in group)
                yield self.batch(group)
            thread.join()

    rows(CachedEncoder(Counting()), numbered(1000, 500))
    items = numbered(3000) + [replace(item, id=f"again-{item.id}") for item in numbered(3000)]
    encoder = Threaded()
    assert rows(CachedEncoder(encoder), items) == rows(Counting(), items)
    assert set(encoder.asked.values()) == {1}
    assert len(encoder.asked) == 2000


def test_what_decides_a_vector_decides_what_is_found(tmp_path):
    encoder = Counting()
    base = documents("text")
    rows(CachedEncoder(encoder), base)
    for other in (Counting(name="other"), Counting(dtype="bfloat16")):
        rows(CachedEncoder(other), base)
        assert other.asked == Counter(["text"])
    rows(CachedEncoder(encoder), documents("text", lang="deu"))
    assert encoder.asked == Counter({"text": 2})
    rows(CachedEncoder(encoder), documents("text", lang="deu"))
    assert encoder.asked == Counter({"text": 2})
    rows(CachedEncoder(encoder), [replace(base[0], image=tmp_path / "read by no one.png")])
    assert encoder.asked == Counter({"text": 2})
    for _ in range(2):
        list(CachedEncoder(encoder).encode(base, "query"))
    assert encoder.asked == Counter({"text": 4})


def test_pictures_are_known_by_their_content(tmp_path):
    def key(item: Item) -> bytes | None:
        return compute_key(item, ("text", "image"))

    def drawn(name: str, shade: int) -> Path:
        Image.new("RGB", (9, 7), (shade, 0, 0)).save(tmp_path / name)
        return tmp_path / name

    first, copy, other = drawn("a.bmp", 1), drawn("b.bmp", 1), drawn("c.bmp", 2)
    assert (
        key(Item("x", image=first)) == key(Item("y", image=copy)) == key(Item("z", image=first.read_bytes()))
    )
    assert key(Item("x", image=first)) != key(Item("x", image=other))
    assert key(Item("x", "a", image=first)) not in (key(Item("x", image=first)), key(Item("x", "a")))
    # Same name, size and time of change, another picture: what a resume would not see.
    before, state = key(Item("x", image=first)), first.stat()
    other.replace(first)
    os.utime(first, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert first.stat().st_size == state.st_size
    assert key(Item("x", image=first)) != before
    assert key(Item("x", image=tmp_path / "none.png")) is None
    os.mkfifo(tmp_path / "pipe")
    assert key(Item("x", image=tmp_path / "pipe")) is None
    # In memory: what the pixels mean counts, too.
    plain = Image.new("P", (4, 4))
    plain.putpalette([1, 2, 3])
    coloured = plain.copy()
    coloured.putpalette([9, 2, 3])
    assert key(Item("x", image=plain)) == key(Item("x", image=plain.copy()))
    assert key(Item("x", image=plain)) != key(Item("x", image=coloured))
    assert compute_key(Item("x", "ab", lang="c"), ("text",)) != compute_key(
        Item("x", "a", lang="bc"), ("text",)
    )


def test_a_picture_that_is_not_there_is_the_encoders_error(tiny_clip, tmp_path):
    encoder = CachedEncoder(load_encoder(f"clip:{tiny_clip}?dtype=float32"))
    with pytest.raises(InputError, match=r"none\.png"):
        rows(encoder, [Item("x", image=tmp_path / "none.png")])
    Image.new("RGB", (40, 30), (9, 8, 7)).save(tmp_path / "none.png")
    (_, made), (_, found) = rows(encoder, [Item("x", image=tmp_path / "none.png")] * 2)
    assert made == found
    assert encoder.found == 1


def test_vectors_that_are_not_finite_are_handed_on_and_not_kept():
    class Broken(Counting):
        def batch(self, group: list[Item]) -> Batch:
            batch = super().batch(group)
            batch.vectors[[item.text == "bad" for item in group], 3] = np.nan  # type: ignore[call-overload]
            return batch

    encoder = Broken()
    for _ in range(2):
        made = matrix(CachedEncoder(encoder), documents("good", "bad"), "document")  # type: ignore[arg-type]
        assert np.isnan(made).any(axis=1).tolist() == [False, True]
    assert encoder.asked == Counter({"good": 1, "bad": 2})


@pytest.mark.parametrize("spoil", ["order", "few"])
def test_an_encoder_that_loses_or_swaps_items_is_found_out(spoil):
    class Broken(Counting):
        def batch(self, group: list[Item]) -> Batch:
            return super().batch(group[::-1] if spoil == "order" else group[:-1])

    with pytest.raises(InputError, match="count:x gave"):
        rows(CachedEncoder(Broken()), numbered(10))


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
        db.execute(
            "UPDATE vectors SET (sum, vector) = (SELECT sum, vector FROM vectors WHERE row = 1) WHERE row = 10"
        )
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
        # What was told after the lines that were read; the last one may be cut.
        lines = [str(done + 20 * (1 + 5 * attempt)), *process.stdout.read().split("\n")[:-1]]
        process.wait()
        held = checked(int(lines[-1]) + 40)
        assert held - int(lines[-1]) in (0, 20)  # at most the last put is not told
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


# Looking at it, and pruning


@pytest.fixture
def used(monkeypatch) -> dict[str, EncoderSpec]:
    """Two encoders: 2,000 vectors of 10 days ago of which 300 were used today, and 500 of 3 days ago."""
    old, new = Counting(name="old"), Counting(name="new")
    today = cache_store.count_days()

    def layer(encoder: Counting, items: list[Item], ago: int) -> None:
        monkeypatch.setattr(cache_store, "count_days", lambda: today - ago)
        made = CachedEncoder(encoder)
        rows(made, items)
        close_caches([made])

    layer(old, numbered(2000), 10)
    layer(new, numbered(500), 3)
    layer(old, numbered(2000)[::6][:300], 0)
    monkeypatch.setattr(cache_store, "count_days", lambda: today)
    return {"old": old.spec, "new": new.spec}


def held(found: CacheContents) -> dict[str, int]:
    return {each.name: each.vectors for each in found.files}


def test_pruning_by_age_keeps_what_was_used(used):
    before = read_contents()
    assert held(before) == {"old:x": 2000, "new:x": 500}
    assert sum(each.bytes for each in before.files) == sum(
        p.stat().st_size for p in locate_vector_cache().iterdir()
    )
    assert prune_cache(older_than=10).removed == 0
    found = prune_cache(older_than=9)
    assert (found.removed, held(found)) == (1700, {"old:x": 300, "new:x": 500})
    freed = sum(each.bytes for each in before.files) - sum(each.bytes for each in found.files)
    assert found.freed == freed > 0
    encoder = Counting(name="old")
    rows(CachedEncoder(encoder), numbered(2000))
    assert len(encoder.asked) == 1700
    found = prune_cache(older_than=1, encoder="new:x")
    assert (found.removed, held(found)) == (500, {"old:x": 2000})


def test_pruning_to_a_size_takes_the_longest_unused_first(used):
    total = sum(each.bytes for each in read_contents().files)
    assert prune_cache(to="1GB").removed == 0
    found = prune_cache(to=f"{total // 2}B")
    assert sum(path.stat().st_size for path in locate_vector_cache().iterdir()) <= total // 2
    left = held(found)
    assert left["new:x"] == 500
    assert 300 <= left["old:x"] < 2000
    layer = CachedEncoder(Counting(name="old"))
    rows(layer, numbered(2000)[::6][:300])
    assert close_caches([layer]) == 300
    found = prune_cache(to="0")
    assert not list(locate_vector_cache().iterdir())
    assert (held(found), found.to_json()["bytes"]) == ({}, 0)


def test_pruning_an_encoder_and_all(used):
    found = prune_cache(encoder=used["old"].fingerprint)
    assert (found.removed, held(found)) == (2000, {"new:x": 500})
    with pytest.raises(InputError, match="did you mean new:x"):
        prune_cache(encoder="mew:x")
    assert held(prune_cache()) == {}
    assert not list(locate_vector_cache().iterdir())
    assert prune_cache().removed == 0


def test_pruning_beside_a_process_that_uses_the_file(used):
    encoder = Counting(name="new")
    layer = CachedEncoder(encoder)
    rows(layer, numbered(500))
    found = prune_cache()
    assert (found.removed, held(found)) == (2500, {"new:x": 0})  # removed, but the open one
    rows(layer, numbered(500))
    assert len(encoder.asked) == 500
    rows(CachedEncoder(Counting(name="new")), numbered(500))
    assert held(read_contents()) == {"new:x": 500}
    layer.close()
    assert held(prune_cache()) in ({}, {"new:x": 0})


@pytest.mark.parametrize(
    ("text", "size"),
    [("5GB", 5 * 10**9), ("2GiB", 2**31), ("0", 0), ("1.5 mb", 1_500_000), ("7k", 7000), ("12B", 12)],
)
def test_sizes(text, size):
    assert parse_size(text) == size


# The command line


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "source").mkdir()
    lines = ({"id": f"d{n}", "lang": "eng", "text": f"the cat {n} sleeps"} for n in range(30))
    (tmp_path / "source/docs.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return tmp_path / "source"


def test_a_second_collection_is_indexed_from_the_cache(crosslens, source, tmp_path, tiny_encoder):
    spec = f"hf:{tiny_encoder}?dtype=float32"
    made = []
    for name, flag in (("one", "--cache"), ("two", "--cache"), ("three", "--no-cache")):
        status, out, err = crosslens("index", source, tmp_path / name, "--encoder", spec, flag, "--json")
        assert status == 0, err
        made.append(json.loads(out)["cached"])
        status, out, _ = crosslens("search", tmp_path / name, "cat 7", "--mode", "dense", "--json")
        made.append([(hit["id"], hit["score"]) for hit in json.loads(out)["hits"]])
    assert made[0::2] == [0, 30, 0]
    assert made[1] == made[3] == made[5]
    status, out, _ = crosslens("index", source, tmp_path / "four", "--encoder", spec)
    assert "30 vectors from the cache" in out

    status, out, _ = crosslens("cache", "--json")
    told = json.loads(out)
    assert status == 0
    assert (told["directory"], told["vectors"]) == (str(locate_vector_cache()), 30)
    (entry,) = told["encoders"]
    assert (entry["encoder"], entry["dtype"]) == (load_encoder(spec).spec.name, "float32")
    assert crosslens("cache")[1].count("30 vectors") == 2
    status, out, _ = crosslens("cache", "--prune", "--older-than", "0")
    assert (status, out.startswith("0 vectors removed")) == (0, True)
    status, out, _ = crosslens("cache", "--prune", "--encoder", entry["fingerprint"], "--json")
    assert json.loads(out)["removed"] == 30
    assert json.loads(out)["freed"] == told["bytes"]
    assert json.loads(crosslens("cache", "--json")[1])["encoders"] == []


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (("--prune", "--to", "5 parsecs"), "5 parsecs"),
        (("--prune", "--older-than", "-1"), "0 or more"),
        (("--prune", "--older-than", "soon"), "older-than"),
        (("--prune", "--encoder", "hf:none"), "hf:none"),
        (("--to", "5GB"), "--prune"),
    ],
)
def test_bad_arguments_are_one_line(crosslens, arguments, part):
    status, out, err = crosslens("cache", *arguments)
    assert (status, out) == (2, "")
    assert part in err
    assert len(err.strip().splitlines()) == 1
