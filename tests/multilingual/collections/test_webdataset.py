"""collections/own/webdataset.py: archives of pictures and captions, as img2dataset writes them."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest
from crosslens.errors import InputError
from crosslens.multilingual.collections.own import webdataset
from crosslens.multilingual.collections.own.webdataset import WebDataset
from crosslens.multilingual.collections.registry import load_collection
from stand_ins.archives import write_tar
from stand_ins.small_collections import picture
from stand_ins.table import table

CAT = {
    "caption": "unused",
    "url": "http://x/cat.jpg",
    "key": "000000000",
    "status": "success",
    "exif": None,
    "width": 4,
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    first = [
        ("000000000.jpg", picture()),
        ("000000000.json", json.dumps(CAT).encode()),
        ("000000000.txt", "猫\n".encode()),
    ]
    write_tar(tmp_path / "data/00000.tar", *first, ("./x/a b.v1.JPG", picture()), ("x/c.png", picture("blue", "PNG")),
          ("x/c.cls", b"7"), ("x/c.npy", b"x"), ("._x", b"x"))  # fmt: skip
    write_tar(tmp_path / "data/00001.tar.gz", ("000010000.json", b'{"caption": "Hund", "lang": "de"}'),
          ("000010000.webp", picture("green", "WEBP")), ("z.txt", b"text alone"), ("y.jpg", b""), mode="w:gz")  # fmt: skip
    (tmp_path / "data/00000.parquet").write_bytes(b"as img2dataset puts beside it")
    (tmp_path / "data/00000_stats.json").write_text("{}")
    return tmp_path / "data"


def test_samples_are_documents(root):
    collection = load_collection(root)
    assert isinstance(collection, WebDataset)
    found = {item.id: item for item in collection.docs()}
    assert list(found) == ["000000000", "x/c", "000010000", "z"]
    cat = found["000000000"]
    assert (cat.text, cat.image, cat.lang) == ("猫", picture(), None)
    assert cat.meta == {
        "shard": "00000.tar", "url": "http://x/cat.jpg", "status": "success", "width": 4
    }  # fmt: skip
    assert (found["x/c"].text, found["x/c"].meta["cls"]) == (None, "7")
    assert (found["000010000"].text, found["000010000"].lang) == ("Hund", "deu")
    assert collection.check().images == 3
    # WebDataset's endings begin at the first dot of the name.
    assert collection.passed.to_json() == {"types": {".v1.jpg": 1, ".npy": 1}, "hidden": 1, "empty": 1}
    assert [item.id for item in load_collection(root / "00001.tar.gz").docs()] == ["000010000", "z"]


def test_a_folder_of_documents_with_an_archive_is_none(root):
    (root / "photo.jpg").write_bytes(picture())
    collection = load_collection(root)
    assert [item.id for item in collection.docs()] == ["photo.jpg"]
    assert collection.passed.types[".tar"] == 1


@table(
    ("members", "told"),
    [
        ([("a.txt", b"a"), ("b.txt", b"b"), ("a.jpg", picture())], "a: the id 'a' occurs a second time"),
        ([("b.txt", b"b"), ("a.txt", b"\xff")], "a: its .txt is not UTF-8 text"),
        ([("b.txt", b"b"), ("a.json", b"[1]"), ("a.txt", b"a")], "a: its .json is not a JSON object but list"),
        ([("b.txt", b"b"), ("a.jpg", picture()), ("a.png", picture())], "a: it has two files of the kind image"),
        ([("b.txt", b"b"), ("a.jpg", b"x" * 2000)], "a: its .jpg has 2,000 bytes, and at most 1,999 are read"),
        ([("b.txt", b"b"), ("a.json", b'{"x": 1}')], "a: sample 'a' has neither text nor image"),
    ],
)
def test_a_bad_sample_is_named_or_skipped_and_counted(tmp_path, monkeypatch, members, told):
    monkeypatch.setattr(webdataset, "MAX_PICTURE", 1999)
    path = write_tar(tmp_path / "x.tar", *members)
    with pytest.raises(InputError) as error:
        list(load_collection(path).docs())
    assert str(error.value).startswith(f"{path}: {told}")
    collection = load_collection(path, skip_bad=True)
    assert "b" in [item.id for item in collection.docs()]
    assert collection.skipped == 1


@pytest.mark.parametrize("kind", ["cut", "noise", "cut.gz"])
def test_a_damaged_archive_is_named_and_what_was_whole_is_kept(root, kind):
    bad = root / "00000.tar"
    if kind == "noise":
        bad.write_bytes(b"no archive" * 100)
    elif kind == "cut":
        bad.write_bytes(bad.read_bytes()[:600])
    else:
        bad = root / "00001.tar.gz"
        bad.write_bytes(bad.read_bytes()[:-40])
    with pytest.raises(InputError, match=rf"{bad.name}: after sample \d: a damaged archive"):
        list(load_collection(root).docs())
    collection = load_collection(root, skip_bad=True)
    assert {"cut.gz": "000000000"}.get(kind, "z") in [item.id for item in collection.docs()]
    assert collection.skipped == 1


@pytest.mark.parametrize(
    ("size", "kind"), [("9" * 20, None), ("-5", None), (None, tarfile.GNUTYPE_LONGNAME), (None, tarfile.XGLTYPE)]
)
def test_a_header_that_lies_about_sizes_ends_the_archive_at_once(tmp_path, size, kind):
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        member = tarfile.TarInfo("a.jpg")
        member.pax_headers = {"size": size} if size else {}
        archive.addfile(member)
        if kind:
            member.type, member.size = kind, 1 << 33
            archive.fileobj.write(member.tobuf(tarfile.GNU_FORMAT))
    with pytest.raises(InputError, match="a damaged archive \\((a member|a name or attributes) of [-0-9,]+ bytes"):
        list(load_collection(path).docs())
    with pytest.raises(InputError, match="no documents that can be read: .*a damaged archive"):
        load_collection(path, skip_bad=True).check()


def test_an_archive_is_streamed(root, monkeypatch):
    opened = tarfile.open
    modes = []
    monkeypatch.setattr(tarfile, "open", lambda path, mode, **k: modes.append(mode) or opened(path, mode, **k))
    first = load_collection(root).docs()
    assert next(first).id == "000000000"
    assert modes == ["r|*"]  # the second archive is not touched yet
    with pytest.raises(InputError, match=r"no archive \.tar or"):
        load_collection(f"webdataset:{root.parent}")
