"""Readers of an index that others write to: each answer is that of one complete edition, and none is an error."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from crosslens.errors import InputError
from crosslens.indexes.registry import create_index, open_index
from crosslens.indexes.storage import storage as storage_module
from crosslens.indexes.storage.card import Windows
from crosslens.indexes.storage.storage import FILE, Storage, read_card
from crosslens.items import Item
from stand_ins.children import Child
from stand_ins.index_cases import Hashing

KINDS = ("lance", "flat", "faiss:HNSW8", "sparse", "late", "passages")
MODES = ("dense", "lexical", "hybrid")
ADDS = {"lance": 8}  # others 3
PROCESSES = ("lance", "faiss:HNSW8", "sparse")  # which store in three ways
FIRST = 12


def make(path: Path | str, kind: str, **settings: Any) -> Any:
    if kind == "passages":
        return create_index(path, passages=Windows(2, 1), **settings)
    return create_index(path, kind=kind, **settings)


def encoder(kind: str) -> Hashing:
    return Hashing({"sparse": "sparse", "late": "multi"}.get(kind, "dense"))


def documents(edition: int) -> list[Item]:
    """So many that their number names the edition; each has the word `all`, and a word that changes with it."""
    return [
        Item(f"d{n}", f"all w{n} {'old' if n > edition else f'changed{edition}'}", lang=("eng", "fra")[n % 2])
        for n in range(FIRST + edition)
    ]


class Watcher:
    """Searches again and again, and notes each answer by mode, or what went wrong."""

    def __init__(self, path: Path, kind: str) -> None:
        self.index = open_index(path, encoders=encoder(kind))
        self.answers: set[tuple[str, tuple[tuple[str, float], ...]]] = set()
        self.errors: list[str] = []
        self.stop = threading.Event()
        self.looked = threading.Event()

    def run(self) -> None:
        while not self.stop.is_set():
            self.look()
            self.looked.set()
            self.stop.wait(0.05)  # the writer is to get on
        self.looked.set()

    def look(self) -> None:
        try:
            for mode in MODES:
                self.answers.add((mode, answer(self.index, mode)))
        except Exception as error:
            self.errors.append(repr(error))
            self.stop.set()


def answer(index: Any, mode: str) -> tuple[tuple[str, float], ...]:
    """Hits and their scores, with what their documents say: all of one edition."""
    run = index.search([Item("q", "all w3", lang="eng")], 100, mode=mode)
    texts = {item.id: item.text for item in run.items("q")}
    return tuple((f"{hit.id} {texts[hit.id]}", round(hit.score, 4)) for hit in run["q"])


def main(path: str, kind: str) -> None:
    """Another process that reads until it is told the end, and then prints what it has seen."""
    watcher = Watcher(Path(path), kind)
    print("ready", flush=True)
    threading.Thread(target=lambda: (sys.stdin.readline(), watcher.stop.set()), daemon=True).start()
    watcher.run()
    watcher.look()
    print(json.dumps({"errors": watcher.errors, "answers": sorted(watcher.answers)}))


@pytest.mark.parametrize("kind", KINDS)
def test_readers_see_complete_editions_while_a_writer_adds(kind: str, tmp_path: Path) -> None:
    """A thread reads and, for each way of storing, another process."""
    if kind.startswith("faiss"):
        pytest.importorskip("faiss", reason="needs faiss: pip install 'crosslens[faiss]'")
    writer, mine = make(tmp_path / "index", kind), encoder(kind)
    right: set[tuple[str, tuple[tuple[str, float], ...]]] = set()

    def write(edition: int) -> None:
        writer.add(documents(edition), mine)
        right.update((mode, answer(writer, mode)) for mode in MODES)
        writer.build()
        right.update((mode, answer(writer, mode)) for mode in MODES)

    write(0)
    process = start(tmp_path / "index", kind) if kind in PROCESSES else None
    watcher = Watcher(tmp_path / "index", kind)
    thread = threading.Thread(target=watcher.run)
    thread.start()
    for edition in range(1, ADDS.get(kind, 3) + 1):
        write(edition)
        watcher.looked.clear()
        assert watcher.looked.wait(60)
    watcher.stop.set()
    thread.join()
    watcher.look()
    assert watcher.errors == []
    assert watcher.answers <= right
    last = {(mode, answer(writer, mode)) for mode in MODES}
    assert last <= watcher.answers  # it has moved on by itself
    assert len({hits for mode, hits in watcher.answers if mode == "dense"}) > 2
    if process is not None:
        seen = json.loads(process.communicate("\n")[0])
        assert seen["errors"] == []
        theirs = {(mode, tuple((id, score) for id, score in hits)) for mode, hits in seen["answers"]}
        assert last <= theirs <= right


def start(path: Path, kind: str) -> Child:
    """A process that reads (`main`)."""
    process = Child(__file__, path, kind)
    assert process.stdout.readline() == "ready\n"
    return process


def test_an_index_opened_while_a_writer_comes_in_between_is_of_one_edition(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The card is read, then another process adds, then the tables are opened."""
    writer = make(tmp_path, "lance", grace=0)
    writer.add(documents(0), encoder("lance"))
    card = json.loads((tmp_path / FILE).read_text())
    for field in ("versions", "files", "earlier", "last", "edition", "grace", "checksums", "sha256"):
        del card[field]  # as earlier crosslens wrote it
    (tmp_path / f"moments_{card['spaces'][0]['fingerprint']}.safetensors").write_bytes(
        next(tmp_path.glob("moments_*")).read_bytes()
    )
    (tmp_path / FILE).write_text(json.dumps(card))
    times = meddle(monkeypatch, lambda n: writer.add(documents(10 * n), encoder("lance")), 2)
    index = open_index(tmp_path, encoders=encoder("lance"))
    assert len(times) > 2
    assert len(index) == index.card.documents == FIRST + 20
    assert answer(index, "hybrid") == answer(writer, "hybrid")


def test_an_index_that_changes_at_each_look_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = make(tmp_path, "lance")
    writer.add(documents(0), encoder("lance"))
    meddle(monkeypatch, lambda n: writer.add(documents(n), encoder("lance")), 1000)
    with pytest.raises(InputError, match="changes faster than it can be read: wait until"):
        open_index(tmp_path)


def meddle(monkeypatch: pytest.MonkeyPatch, act: Callable[[int], object], most: int) -> list[int]:
    """Have another writer come in after each reading of a card, `most` times."""
    times: list[int] = []
    busy = False

    def read(path: Any, place: Any = None) -> Any:
        nonlocal busy
        card = read_card(path, place)
        if not busy:
            times.append(len(times))
            if len(times) <= most:
                busy = True
                act(len(times))
                busy = False
        return card

    monkeypatch.setattr(storage_module, "read_card", read)
    return times


@pytest.mark.parametrize("kind", ["lance", "sparse", "faiss:HNSW8"])
def test_what_is_replaced_is_kept_for_the_grace_and_then_goes(kind: str, tmp_path: Path) -> None:
    if kind.startswith("faiss"):
        pytest.importorskip("faiss", reason="needs faiss: pip install 'crosslens[faiss]'")
    writer, mine = make(tmp_path, kind), encoder(kind)
    writer.add(documents(0), mine)
    writer.build()
    old = writer.view()
    before = answer(old, "hybrid")
    for edition in (1, 2):
        writer.add(documents(edition), mine)
        writer.build()
    old.kind.discard()  # what it had in memory
    assert answer(old, "hybrid") == before
    assert open_index(tmp_path).card.grace == 600
    files = list(tmp_path.rglob("*"))
    assert make(tmp_path, kind, grace=0).card.grace == 0
    writer.add(documents(3), mine)
    assert len(list(tmp_path.rglob("*"))) < len(files)
    assert {each.name for each in tmp_path.iterdir() if ".e" in each.name} == set(writer.card.files.values())
    assert writer.storage.list_kept() == [writer.card.versions]
    # The old edition is gone: whoever still has it goes on with the new one.
    assert answer(old, "hybrid") == answer(writer, "hybrid")


def test_an_interrupted_change_leaves_readers_the_edition_before(tmp_path: Path) -> None:
    class Stopping(Hashing):
        def encode(self, items: Any, role: str) -> Any:
            for batch in super().encode(items, role):
                if batch.ids == ["d14"]:
                    raise KeyboardInterrupt
                yield batch

    writer = make(tmp_path, "lance")
    writer.add(documents(0), encoder("lance"))
    reader = open_index(tmp_path, encoders=encoder("lance"))
    right = answer(reader, "hybrid")
    with pytest.raises(KeyboardInterrupt):
        writer.add(documents(8), Stopping(), window=1)
    assert not read_card(tmp_path).complete
    for index in (reader, writer, open_index(tmp_path, encoders=encoder("lance"))):
        assert answer(index, "hybrid") == right
        assert len(index) == FIRST
    assert make(tmp_path, "lance").add(documents(8), encoder("lance")) == 6  # of 20, 14 are stored
    assert len(answer(reader, "dense")) == FIRST + 8


def test_a_build_that_is_interrupted_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = make(tmp_path, "lance")
    writer.add([Item(f"d{n}", f"all w{n}", lang="eng") for n in range(300)], encoder("lance"))
    writer.build("IVF_FLAT")
    before = writer.fingerprint, answer(writer, "dense")

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Storage, "finish", stop)
        for ann in ("none", "IVF_PQ"):
            with pytest.raises(KeyboardInterrupt):
                writer.build(ann)
    for index in (writer, open_index(tmp_path, encoders=encoder("lance"))):
        assert (index.fingerprint, answer(index, "dense")) == before
    assert writer.add([Item("more", "all w3", lang="eng")], encoder("lance")) == 1
    assert len(writer) == 301


def test_an_index_made_again_in_its_place_is_followed(tmp_path: Path) -> None:
    make(tmp_path / "index", "lance").add(documents(0), encoder("lance"))
    reader = open_index(tmp_path / "index", encoders=encoder("lance"))
    answer(reader, "hybrid")
    shutil.rmtree(tmp_path / "index")
    again = make(tmp_path / "index", "lance")
    again.add(documents(0), encoder("lance"))
    assert answer(reader, "hybrid") == answer(again, "hybrid")


@pytest.mark.parametrize("kind", ["lance", "sparse"])
def test_a_writer_that_is_killed_leaves_readers_the_edition_before(kind: str, tmp_path: Path) -> None:
    writer = make(tmp_path, kind)
    writer.add(documents(0), encoder(kind))
    reader = open_index(tmp_path, encoders=encoder(kind))
    right = answer(reader, "hybrid")
    assert Child(__file__, tmp_path, kind, "die").wait() == -signal.SIGKILL
    assert not read_card(tmp_path).complete
    for index in (reader, open_index(tmp_path, encoders=encoder(kind))):
        assert answer(index, "hybrid") == right
    assert writer.add(documents(8), encoder(kind)) == 6  # of 20, 14 are stored
    assert len(answer(reader, "dense")) == FIRST + 8


def die(path: str, kind: str) -> None:
    """A process that adds documents and is killed in the middle."""

    class Dying(Hashing):
        def encode(self, items: Any, role: str) -> Any:
            for batch in super().encode(items, role):
                if batch.ids == ["d14"]:
                    os.kill(os.getpid(), signal.SIGKILL)
                yield batch

    make(path, kind).add(documents(8), Dying(encoder(kind).spec.kind), window=1)


if __name__ == "__main__":
    main(*sys.argv[1:]) if not sys.argv[3:] else die(*sys.argv[1:3])
