"""collections/own/folder.py: files of many types below a folder, as documents."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from crosslens.errors import InputError
from crosslens.items import is_word
from crosslens.multilingual.collections.base import MissingPart
from crosslens.multilingual.collections.own import texts
from crosslens.multilingual.collections.own.folder import Folder
from crosslens.multilingual.collections.own.listing import write_id
from crosslens.multilingual.collections.registry import load_collection
from stand_ins.pdf_files import make_pdf
from stand_ins.small_collections import picture

PAGE = """<?xml version="1.0" encoding="utf-8"?><html lang="de-AT"><head><title> Der
Hund </title><style>p {}</style></head><body><h1>Ein <b>gro</b>ßer</h1><!-- no --><p>Hund<br>bellt<script>no()</script>.
"""


def put(root: Path, **files: bytes | str) -> Path:
    for name, content in files.items():
        path = root / name.replace("__", "/").replace("_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return root


def read(root: Path, **options: object):
    return {item.id: item for item in load_collection(root, **options).docs()}


def test_each_type_of_file_is_a_document(tmp_path):
    put(
        tmp_path, a_txt="\ufeffplain\n", b_md="intro\n\n# The *title* #\n\nbody", c_html=PAGE, d__e__f_JPEG=picture(),
        utf16_txt="Привет".encode("utf-16"), old_htm="<meta charset=windows-1251><p>Собака".encode("cp1251"),
        frame_html="<title>Alone</title><iframe src=x></iframe>", paper_pdf=make_pdf("One", "", "Three", title="A paper"),
    )  # fmt: skip
    found = read(tmp_path)
    texts = {id: item.text for id, item in found.items()}
    assert texts == {
        "a.txt": "plain", "b.md": "intro\n\n# The *title* #\n\nbody", "c.html": "Der Hund\nEin großer\nHund\nbellt.",
        "d/e/f.JPEG": None, "utf16.txt": "Привет", "old.htm": "Собака", "paper.pdf#1": "One", "paper.pdf#3": "Three",
    }  # fmt: skip
    assert list(found) == [*sorted(id for id in found if "/" not in id), "d/e/f.JPEG"]
    assert found["d/e/f.JPEG"].image == tmp_path / "d/e/f.JPEG"
    assert {id: item.lang for id, item in found.items() if item.lang} == {"c.html": "deu"}
    titles = {id: item.meta["title"] for id, item in found.items() if "title" in item.meta}
    assert titles == {"b.md": "The *title*", "c.html": "Der Hund", "paper.pdf#1": "A paper", "paper.pdf#3": "A paper"}
    os.utime(tmp_path / "d/e/f.JPEG", (0, 1e9))
    assert read(tmp_path)["d/e/f.JPEG"].meta == {
        "name": "f.JPEG", "folder": "d/e", "modified": "2001-09-09T01:46:40+00:00"
    }  # fmt: skip
    assert found["paper.pdf#3"].meta["page"] == found["paper.pdf#3"].meta["pages"] == 3
    for name in ("paper.pdf", "d/e/f.JPEG"):
        assert load_collection(tmp_path / name).check().documents == {"paper.pdf": 2, "d/e/f.JPEG": 1}[name]


def test_a_text_beside_a_picture_is_its_caption(tmp_path):
    put(
        tmp_path,
        cat_jpg=picture(),
        cat_png=picture("blue", "PNG"),
        cat_txt=" a cat\n",
        dog_txt="a dog",
        x__cat_txt="no",
    )
    assert {id: item.text for id, item in read(tmp_path).items()} == {
        "cat.jpg": "a cat", "cat.png": "a cat", "dog.txt": "a dog", "x/cat.txt": "no"
    }  # fmt: skip
    put(tmp_path, cat_txt=b"\xff")
    with pytest.raises(InputError, match=r"cat\.jpg: its caption .*cat\.txt: not UTF-8 text"):
        read(tmp_path)


NAMES = ["a b.txt", "a%20b.txt", "new\nline.txt", "e\u0301.txt", "\u00e9.txt", "no\u00a0break.txt", b"latin\xe9.txt"]


def test_any_name_is_an_id_that_a_line_can_hold(tmp_path):
    for name in NAMES:
        with open(os.path.join(os.fsencode(tmp_path), name if isinstance(name, bytes) else name.encode()), "w") as file:
            file.write("text")
    found = read(tmp_path)
    assert len(found) == len(NAMES)
    assert all(map(is_word, found))
    assert {"a%20b.txt", "a%2520b.txt", "new%0Aline.txt", "latin%E9.txt", "\u00e9.txt"} <= found.keys()
    assert found["new%0Aline.txt"].meta["name"] == "new\nline.txt"
    assert write_id("a\tb/50% c\udce9") == "a%09b/50%25%20c%E9"


def test_what_is_passed_over_is_counted(tmp_path):
    put(
        tmp_path, a_txt="a", _env="secret", _git__x_txt="x", b_docx="x", c_docx="x", d_mp3="x", Makefile="x", e_txt=" \n",
        f_jpg=b"", g_html="<script>x</script>", h_pdf=make_pdf("", ""),
    )  # fmt: skip
    (tmp_path / "loop").symlink_to(".")
    (tmp_path / "out.txt").symlink_to("/etc/passwd")
    (tmp_path / "nowhere.txt").symlink_to("gone")
    (tmp_path / "inside.md").symlink_to("a.txt")
    os.mkfifo(tmp_path / "pipe.txt")
    collection = load_collection(tmp_path)
    for _ in range(2):  # a second pass does not count twice
        assert [item.id for item in collection.docs()] == ["a.txt", "inside.md"]
        assert collection.passed.to_json() == {
            "types": {".docx": 2, "no ending": 1, ".mp3": 1, "no regular file": 1}, "hidden": 2, "links": 3, "empty": 3,
            "pictured": 2,
        }  # fmt: skip
    assert collection.passed.notes[0] == "5 files of other types: .docx 2, no ending 1, .mp3 1, no regular file 1"
    assert "--pages" in collection.passed.notes[-1]
    assert sorted(read(tmp_path, pages=True)) == ["a.txt", "h.pdf#1", "h.pdf#2", "inside.md"]


BAD = {
    "a_txt": (picture(), "a.txt: not UTF-8 text"),
    "b_md": (b"a\0b", "b.md: not text (it has NUL bytes)"),
    "c_html": (b"<meta charset=utf-8>\xff\xfe", "c.html: not UTF-8 text"),
    "d_pdf": (b"%PDF-1.4 no", "d.pdf: a damaged PDF file"),
    "e_pdf": (make_pdf("x", encrypted=True), "e.pdf: encrypted"),
    "f_txt": (b"\xff\xfea\0b", "f.txt: not UTF-16 text"),
    "g_html": ("<div>" * 3000 + "lost", "g.html: not read to its end (Excessive depth"),
    "\udcff_jpg": (picture(), "is not UTF-8: rename it"),
}


def test_what_cannot_be_read_is_named_or_skipped_and_counted(tmp_path):
    for name, (content, told) in BAD.items():
        root = put(tmp_path / name, good_txt="good", **{name: content})
        with pytest.raises(InputError) as error:
            read(root)
        assert told in str(error.value)
    root = put(tmp_path / "all", good_txt="good", **{name: content for name, (content, _) in BAD.items()})
    collection = load_collection(root, skip_bad=True)
    assert collection.check().skipped == len(BAD)
    assert [told for _, told in BAD.values() if told in str(collection.problems)] == [told for _, told in BAD.values()]


def test_odd_declarations_do_no_harm(tmp_path):
    labels = ("rot13", "hex", "base64", "unicode_escape", "undefined", "utf-7", "utf-16", "x")
    title = make_pdf("x", title="TITLE").replace(b"(TITLE)", b"<FEFFD800D8000041>")
    root = put(tmp_path, half_pdf=title, long_md="# " + " #" * 4990 + "x", empty_md="#  \n# Found #\n",
               **{f"{number}_html": f"<meta charset={label}><p>+2AA-ok" for number, label in enumerate(labels)})  # fmt: skip
    found = read(root)
    assert all(found[f"{number}.html"].text.endswith("ok") for number in range(len(labels)))
    assert "title" not in found["half.pdf#1"].meta
    assert found["empty.md"].meta["title"] == "Found"
    assert found["long.md"].meta["title"].startswith("# #")


def test_a_caption_that_vanishes_or_is_no_caption_is_named(tmp_path, monkeypatch):
    root = put(tmp_path, a_jpg=picture(), a_txt="a cat")
    rows = load_collection(root).document_rows()
    _, row = next(rows)
    (root / "a.txt").unlink()
    with pytest.raises(InputError, match=r"its caption .*a\.txt: cannot read"):
        row()
    put(tmp_path, a_txt="a cat")
    monkeypatch.setattr(texts, "MAX_BYTES", 4)
    with pytest.raises(InputError, match=r"a\.jpg: its caption .*a\.txt: 5 bytes of text, and at most 4"):
        read(root)


def test_where_there_is_nothing_to_read(tmp_path, monkeypatch):
    put(tmp_path, a_docx="x", b__c_mp3="x")
    with pytest.raises(InputError) as error:
        load_collection(tmp_path).check()
    for part in (".docx 1, .mp3 1", "taken are", ".jpg", ".html", ".pdf", "docs.jsonl"):
        assert part in str(error.value)
    with pytest.raises(InputError, match=r"is a file, but none of what is taken: .*docs\.jsonl.*\.tar.*\.pdf"):
        load_collection(tmp_path / "a.docx")
    with pytest.raises(InputError, match="neither a folder nor a picture"):
        load_collection(f"folder:{tmp_path / 'a.docx'}")
    with pytest.raises(InputError, match="does not exist"):
        load_collection(f"folder:{tmp_path / 'gone'}")
    with pytest.raises(InputError, match="does not say where"):
        load_collection("folder:")
    with pytest.raises(MissingPart, match="has no topics"):
        load_collection(tmp_path).queries()
    real = os.scandir

    def scandir(path):  # root may read it all the same
        if str(path).endswith("/b"):
            raise PermissionError(13, "Permission denied")
        return real(path)

    put(tmp_path, a_txt="a")
    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(InputError, match=r"/b: the folder cannot be read \(Permission denied\)"):
        read(tmp_path)
    assert len(read(tmp_path, skip_bad=True)) == 1


@pytest.mark.parametrize("pages", ["folder:{}?pages=true", "{}"])
def test_pages_are_pictures_that_are_drawn_when_they_are_opened(tmp_path, monkeypatch, pages):
    from crosslens.media.images import open_image
    from crosslens.multilingual.collections.own.pdf import PdfPages

    put(tmp_path, a_pdf=make_pdf("One", ""))
    drawn = []
    real = PdfPages.draw
    monkeypatch.setattr(PdfPages, "draw", lambda self, number: drawn.append(number) or real(self, number))
    options = {} if "?" in pages else {"pages": True}
    collection = load_collection(pages.format(tmp_path), **options)
    assert isinstance(collection, Folder)
    assert collection.check().images == 2
    one, two = collection.docs()
    assert (one.text, two.text, one.modality, drawn) == ("One", None, "text+image", [])
    assert one == next(collection.docs())
    opened = open_image(two.image)
    assert open_image(two.image).size == opened.size
    assert drawn == [1]
    width, height = opened.size
    assert 900_000 < width * height <= 1 << 20
    assert opened.getpixel((width // 3, height * 3 // 4)) == (128, 128, 128)
    put(tmp_path, a_pdf=make_pdf("Other", ""))
    assert next(collection.docs()).content_hash() != one.content_hash()
