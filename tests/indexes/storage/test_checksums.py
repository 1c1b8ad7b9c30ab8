"""A damaged file of an index is never a silent other answer: it is an error that names it, or of no consequence."""

from __future__ import annotations

import json
import random
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import lancedb
import pytest
from crosslens.errors import InputError
from crosslens.indexes.registry import open_index
from crosslens.indexes.storage import checksums, storage
from crosslens.indexes.storage.storage import FILE
from crosslens.indexes.verify import TABLE, verify_index
from crosslens.items import Item, seal
from stand_ins.index_cases import CASES, Case

KINDS = ("lance", "faiss", "sparse", "late")
QUERIES = [Item("words", "w1 w2 w3", lang="eng"), Item("one", "w7", lang="swa")]


def documents(count: int = 40) -> list[Item]:
    langs = ("eng", "zho", "fas")
    return [
        Item(f"t{n}", f"w{n % 7} w{n % 3} w{n}", lang=langs[n % 3], meta={"year": 2000 + n % 5}) for n in range(count)
    ]


def answer(path: Path, case: Case) -> list[Any]:
    """All that a reader can ask of an index."""
    index = open_index(path, encoders=case.encoder(modalities=("text",)))
    runs = [index.search(QUERIES, 40, mode=mode).hits for mode in ("dense", "lexical", "hybrid")]
    runs.append(index.search(QUERIES, 40, where={"year": 2001}).hits)
    runs.append(index.search(QUERIES, 40, correct=False).hits)
    return [runs, index.get([f"t{n}" for n in range(40)]), index.langs]


def make(path: Path, case: Case) -> Path:
    index = case.create(path, grace=0)  # so that each file is of the edition that is looked at
    for most in (25, 40):  # so that there are earlier versions
        index.add(documents(most), case.encoder(modalities=("text",)))
    index.build()
    return path


def harm(data: bytes, seed: str) -> Iterator[tuple[str, bytes | None]]:
    """A file's content, damaged in some ways; None where it is gone."""
    yield from (("gone", None), ("empty", b""), ("half", data[: len(data) // 2]), ("31 bytes", data[:31]))
    random_ = random.Random(seed)
    for _ in range(3):
        flipped = bytearray(data)
        flipped[random_.randrange(len(data))] ^= 1 << random_.randrange(8)
        yield "flipped", bytes(flipped)


@contextmanager
def harmed(file: Path, data: bytes | None, aside: Path) -> Iterator[None]:
    """A file with another content, or none; always by another file, as the one before may still be mapped."""
    before = file.read_bytes()

    def put(content: bytes) -> None:
        aside.write_bytes(content)
        aside.replace(file)

    file.unlink() if data is None else put(data)
    try:
        yield
    finally:
        put(before)


def list_files(path: Path) -> list[Path]:
    return [file for file in sorted(path.rglob("*")) if file.is_file() and file.name != ".lock"]


@pytest.mark.parametrize("kind", KINDS)
def test_no_damaged_file_changes_an_answer(kind: str, tmp_path: Path) -> None:
    case = CASES[kind]
    source = make(tmp_path / "index", case)
    expected = answer(source, case)
    refused, aside = Counter[str](), tmp_path / "aside"
    for file in list_files(source):
        name = file.relative_to(source)
        if kind != "lance" and "_indices" in name.parts:  # full text is the same in each
            continue
        for how, data in harm(file.read_bytes(), str(name.parent)):
            with harmed(file, data, aside), suppress(InputError):
                assert answer(source, case) == expected, f"{name}: {how}"
                refused[how] -= 1
            refused[how] += 1
    assert min(refused.values()) >= 3
    assert len(refused) == 5


@pytest.mark.parametrize("kind", ["lance", "late"])
def test_damage_that_nobody_looked_for_is_one_line(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in an index without checksums, or in documents that are too many to be read whenever an index is opened."""
    monkeypatch.setattr(storage, "check_files", lambda *_, **__: None)
    case = CASES[kind]
    source = make(tmp_path / "index", case)
    expected = answer(source, case)
    told, aside = [], tmp_path / "aside"
    for file in list_files(source):
        name = file.relative_to(source)
        for how, data in list(harm(file.read_bytes(), ""))[:4]:
            with harmed(file, data, aside):
                try:
                    assert answer(source, case) == expected, f"{name}: {how}"
                except InputError as error:
                    told.append(str(error))
    assert sum("crosslens verify" in line for line in told) > 20
    assert not any("\n" in line for line in told)


def damage(path: Path) -> None:
    """One bit, in the middle of a file."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)


@pytest.mark.parametrize("kind", [*KINDS, "passages"])
def test_verify_finds_each_damaged_file_and_repairs_what_follows_from_documents(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = CASES[kind]
    source = make(tmp_path / "index", case)
    encoder = case.encoder(modalities=("text",))
    monkeypatch.setattr("crosslens.indexes.encoding.load_encoder", lambda *_, **__: encoder)
    expected = answer(source, case)
    whole = verify_index(source)
    assert not whole.damaged
    assert whole.files >= len(list_files(source)) - 1
    parts: dict[tuple[str, ...], Path] = {}  # one of the files of each sort
    for file in list_files(source):
        parts.setdefault((*file.relative_to(source).parts[:2], file.suffix), file)
    for file in parts.values():
        path, name = tmp_path / "copy", file.relative_to(source).as_posix()
        shutil.copytree(source, path)
        if "faiss" in name or "moments" in name:
            (path / name).unlink()
        else:
            damage(path / name)
        found = verify_index(path)
        assert list(found.damaged) == [name]
        lost = name == FILE or name.startswith((f"{TABLE}/data", f"{TABLE}/_versions/1"))
        assert found.lasting == ([name] if lost else []), name
        if lost:
            assert any("Make it again: move" in note for note in found.notes)
            assert verify_index(path).damaged  # and nothing was done to it
        else:
            assert answer(path, case) == expected, name
            assert not verify_index(path).damaged
        shutil.rmtree(path)


def test_moments_need_the_encoder_to_be_repaired(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = make(tmp_path / "index", CASES["lance"])
    (moments,) = source.glob("moments_*")
    damage(moments)
    found = verify_index(source)
    assert found.lasting == [moments.name]
    assert "encoders=" in found.notes[0]
    with pytest.raises(InputError, match=f"is damaged: {moments.name} is not what was written"):
        open_index(source)
    assert not verify_index(source, encoders=CASES["lance"].encoder(modalities=("text",))).lasting
    assert not caplog.text
    open_index(source)


def test_an_index_without_checksums_is_opened_and_gets_some(tmp_path: Path) -> None:
    case = CASES["lance"]
    source = make(tmp_path / "index", case)
    expected = answer(source, case)
    card = json.loads((source / FILE).read_text())
    for key in ("checksums", "sha256", "versions", "files"):
        card.pop(key, None)
    (moments,) = source.glob("moments_*")
    moments.rename(source / f"{moments.name.partition('.')[0]}.safetensors")
    (source / FILE).write_text(json.dumps(card))  # as earlier versions wrote it
    assert answer(source, case) == expected
    table = lancedb.connect(source).open_table("documents")
    table.update(where="id = 't7'", values={"text": "another text"})
    assert verify_index(source).damaged == {TABLE: "the text of t7 is not what was stored"}
    table.restore(table.version - 1)
    found = verify_index(source)
    assert "had no checksums" in found.notes[0]
    assert not verify_index(source).notes
    names = json.loads((source / FILE).read_text())["checksums"]
    damage(source / next(name for name in names if name.startswith(f"{TABLE}/data")))
    with pytest.raises(InputError, match="is damaged"):
        open_index(source)


def test_a_card_is_what_was_written(tmp_path: Path) -> None:
    source = make(tmp_path / "index", CASES["lance"])
    card = json.loads((source / FILE).read_text())
    changed = {**card, "documents": 41}
    (source / FILE).write_text(json.dumps(changed))
    with pytest.raises(InputError, match="its checksum differs"):
        open_index(source)
    (source / FILE).write_text(json.dumps(seal(changed)))
    open_index(source)
    (source / FILE).unlink()
    with pytest.raises(InputError, match="is gone, without which nothing can be read"):
        open_index(source)
    assert verify_index(source).lasting == [FILE]


def test_a_file_is_hashed_once_and_one_that_has_changed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = make(tmp_path / "index", CASES["sparse"])
    read: list[Path] = []
    hash_file = checksums.hash_file
    monkeypatch.setattr(checksums, "hash_file", lambda path: (read.append(path), hash_file(path))[1])
    open_index(source)
    read.clear()
    open_index(source)
    assert not read
    weights = next(source.glob("postings_*/weights.npy"))
    weights.write_bytes(weights.read_bytes())
    open_index(source)
    assert read == [weights]
    # Of documents beyond a limit opening looks at the sizes alone.
    monkeypatch.setattr(checksums, "LITTLE", 0)
    (data,) = (source / TABLE / "data").iterdir()
    damage(data)
    open_index(source)
    assert list(verify_index(source).damaged) == [data.relative_to(source).as_posix()]
    data.write_bytes(data.read_bytes()[:-1])
    with pytest.raises(InputError, match="bytes, not"):
        open_index(source)


def test_new_files_alone_are_hashed_when_an_index_grows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = make(tmp_path / "index", CASES["lance"])
    index = open_index(source, encoders=CASES["lance"].encoder(modalities=("text",)))
    before = dict(index.card.checksums)
    read: list[Path] = []
    hash_file = checksums.hash_file
    monkeypatch.setattr(checksums, "hash_file", lambda path: (read.append(path), hash_file(path))[1])
    index.storage.save()
    assert not [path for path in read if path.suffix == ".lance"]
    assert index.card.checksums == before


def test_a_change_of_a_damaged_index_can_be_gone_on_with(tmp_path: Path) -> None:
    case = CASES["lance"]
    source = make(tmp_path / "index", case)
    encoder = case.encoder(modalities=("text",))

    def documents_and_a_kill() -> Iterator[Item]:
        yield from documents(60)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        open_index(source).add(documents_and_a_kill(), encoder, window=10)
    card = json.loads((source / FILE).read_text())
    assert not card["complete"]
    damage(source / next(name for name in card["last"]["checksums"] if name.startswith("corrected.lance/data")))
    with pytest.raises(InputError, match="is damaged: corrected.lance/data"):
        open_index(source)
    found = verify_index(source)
    assert not found.lasting
    assert "rerun `crosslens index`" in found.notes[0]
    assert case.create(source).add(documents(60), encoder) <= 20
    assert not verify_index(source).damaged
    whole = case.create(tmp_path / "whole")
    whole.add(documents(60), encoder)
    assert answer(source, case) == answer(tmp_path / "whole", case)
