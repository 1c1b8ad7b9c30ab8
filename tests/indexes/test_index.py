"""The index of documents in a directory: killed, locked, on a full disk, and what a change leaves behind."""

from __future__ import annotations

import resource
import shutil
import signal
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import lancedb
import numpy as np
import pytest
from crosslens.errors import InputError
from crosslens.indexes.registry import create_index, open_index
from crosslens.indexes.storage.place import translate_errors
from crosslens.items import Dense, Item
from stand_ins.cheap_encoder import Cheap, documents
from stand_ins.children import Child


def contents(path: Path) -> list[dict]:
    """All that is stored, vectors as encoded and corrected included, by id."""
    tables = (lancedb.connect(path).open_table(name) for name in ("documents", "corrected"))
    return [row for table in tables for row in sorted(table.to_arrow().to_pylist(), key=lambda row: row["id"])]


def leftovers(path: Path) -> list[Path]:
    """Files that a writer was writing when it was killed."""
    return list(path.rglob(".tmp*"))


def main(path: str) -> None:
    index = create_index(path)
    print("ready", flush=True)
    index.add(documents(), Cheap(), progress=lambda done: print(done, flush=True))
    print("added", flush=True)


def test_a_killed_add_goes_on_to_the_identical_index(tmp_path: Path) -> None:
    """SIGKILL at moments all over the writing and what follows it, one after another in one directory."""
    whole = create_index(tmp_path / "whole")
    whole.add(documents(), Cheap())
    path = tmp_path / "killed"
    seed = int(time.time())  # other moments every time
    random = np.random.default_rng(seed)
    moments = [("ready", 0.03), ("1024", 0.03), ("2560", 0.05), ("3000", 0.05), ("3000", 0.3)]
    killed = 0
    for line, longest in moments:
        process = Child(__file__, path)
        for each in process.stdout:
            if each.strip() == line:
                break
        time.sleep(random.uniform(0, longest))
        process.send_signal(signal.SIGKILL)
        killed += process.wait() == -signal.SIGKILL
    assert killed >= 4  # the last may have been done by then
    index = create_index(path)
    index.add(documents(), Cheap())
    assert len(index) == 3000
    assert index.fingerprint == whole.fingerprint
    assert contents(path) == contents(tmp_path / "whole"), f"seed {seed}"
    assert not leftovers(path)
    queries = [Item("q", "text number 77", lang="zho"), Item("r", "number 1234", lang="fas")]
    for mode in ("dense", "lexical", "hybrid"):
        assert index.search(queries, 20, mode=mode).hits == whole.search(queries, 20, mode=mode).hits


def test_what_a_killed_writer_was_writing_goes_with_the_next_change(tmp_path: Path) -> None:
    create_index(tmp_path).add(documents(10), Cheap())
    for name in ("documents", "corrected"):
        (tmp_path / f"{name}.lance/data/.tmpAbCdEf").write_bytes(b"half a file")
    assert open_index(tmp_path).add(documents(10), Cheap()) == 0
    assert len(leftovers(tmp_path)) == 2  # nothing was written, so nothing is looked at
    assert open_index(tmp_path).add(documents(11), Cheap()) == 1
    assert not leftovers(tmp_path)


def test_a_second_writer_is_refused(tmp_path: Path) -> None:
    index = create_index(tmp_path)

    class Meddling(Cheap):
        def encode(self, items: Iterable[Item], role: str) -> Iterator[Dense]:
            with pytest.raises(InputError, match="another process is writing"):
                open_index(tmp_path).add(documents(10), Cheap())
            return super().encode(items, role)

    assert index.add(documents(10), Meddling()) == 10
    assert index.add(documents(20), Cheap()) == 10


def test_a_file_that_cannot_grow_is_one_clear_line(tmp_path: Path) -> None:
    """A limit on the size of files stands for a full disk: the write fails, a rerun goes on."""
    process = Child(__file__, tmp_path, "limited")
    said, complaint = process.communicate()
    assert process.returncode == 2, complaint
    failed = said[said.index("failed: ") :]
    assert failed.startswith(f"failed: cannot write {tmp_path}: ")
    assert len(failed.splitlines()) == 1
    index = create_index(tmp_path)
    index.add(documents(), Cheap())
    assert len(index) == 3000


def test_a_full_disk_is_named() -> None:
    full = "lance error: LanceError(IO): No space left on device (os error 28), file.rs:1"
    with pytest.raises(InputError, match="DIR: the disk is full; make room and rerun `crosslens index`"):
        raise_in("write", RuntimeError(full))
    with pytest.raises(RuntimeError, match="a bug"):
        raise_in("read", RuntimeError("a bug"))


def raise_in(what: str, error: Exception) -> None:
    with translate_errors(what, "DIR"):
        raise error


def test_a_lost_table_is_named(tmp_path: Path) -> None:
    create_index(tmp_path / "index").add(documents(10), Cheap())
    shutil.rmtree(tmp_path / "index" / "documents.lance")
    with pytest.raises(InputError, match=r"documents.lance/.* is missing.*; `crosslens verify"):
        open_index(tmp_path / "index")
    create_index(tmp_path / "begun")
    shutil.rmtree(tmp_path / "begun" / "documents.lance")
    with pytest.raises(InputError, match="has lost its table of documents"):
        open_index(tmp_path / "begun").get(["d1"])


def test_changes_leave_no_old_files_behind(tmp_path: Path) -> None:
    def size() -> int:
        return sum(file.stat().st_size for file in tmp_path.rglob("*") if file.is_file())

    index = create_index(tmp_path, grace=0)
    index.add(documents(), Cheap())
    first = size()
    for _ in range(3):
        index.add([Item("d1", f"changed {time.perf_counter()}", lang="eng")], Cheap())
    assert size() < 1.3 * first


def test_a_window_is_what_is_committed_at_a_time() -> None:
    class Stopping(Cheap):
        def encode(self, items: Iterable[Item], role: str) -> Iterator[Dense]:
            for batch in super().encode(items, role):
                if batch.ids[0] == "d45":
                    raise KeyboardInterrupt
                yield batch

    index = create_index("memory://")
    with pytest.raises(KeyboardInterrupt):
        index.add(documents(60), Stopping(), window=20)
    assert len(index) == 40


def test_vectors_that_float16_cannot_hold_are_refused() -> None:
    vectors = np.full((5, 16), 1e6, np.float32)
    with pytest.raises(InputError, match="do not fit into float16"):
        create_index("memory://").add_vectors(documents(5), vectors, Cheap().spec)


def test_a_cutoff_beyond_the_documents_costs_no_more_than_all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Places for a billion hits took 13 GB."""
    index = create_index("memory://")
    index.add((Item(str(n), f"w{n}") for n in range(20)), Cheap())
    nearest, asked = index.kind.nearest, []
    monkeypatch.setattr(index.kind, "nearest", lambda *rest: (asked.append(rest[1]), nearest(*rest))[1])
    for mode in ("dense", "hybrid"):
        assert len(index.search(["w1"], 10**9, mode=mode)["1"]) == 20
    assert max(asked) <= 50


def test_metadata_alone_is_a_change() -> None:
    index = create_index("memory://")
    index.add([Item("a", "text", meta={"year": 1})], Cheap())
    assert index.add([Item("a", "text", meta={"year": 2})], Cheap()) == 1
    assert index.get(["a"])[0].meta == {"year": 2}
    assert index.search(["text"], 1, where={"year": 2})["1"][0].id == "a"


def test_progress_counts_stored_items_too() -> None:
    index = create_index("memory://")
    index.add(documents(600), Cheap())
    seen: list[int] = []
    index.add(documents(1100), Cheap(), progress=seen.append)
    assert seen[:2] == [512, 601]  # the first that is new goes alone, and shows how fast the encoder is
    assert {1024, 1100} <= set(seen)  # a slow encoder shows more often
    assert seen == sorted(set(seen))


if __name__ == "__main__":
    if sys.argv[2:] == ["limited"]:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))
        try:
            main(sys.argv[1])
        except InputError as error:
            print("failed:", error)
            sys.exit(2)
    else:
        main(sys.argv[1])
