"""`crosslens index` on damaged pictures and odd files: named, and with `--skip-bad` left out."""

from __future__ import annotations

import json
import os
from pathlib import Path

import PIL.Image
import pytest
from crosslens.errors import InputError
from crosslens.indexes.registry import open_index
from crosslens.media import images

PAGE = b"<html><body>404 Not Found</body></html>"
GOOD = 8


def make_bad(kind: str, root: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A picture that cannot be opened; its path in the collection."""
    path = root / "bad.jpg"
    if kind == "page":
        path.write_bytes(PAGE)
    elif kind == "cut":
        path.write_bytes((root / "0.jpg").read_bytes()[:300])
    elif kind == "empty":
        path.touch()
    elif kind == "dangling":
        path.symlink_to("nowhere.jpg")
    elif kind == "loop":
        path.symlink_to(path.name)
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "long":
        return "x" * 300 + ".jpg"
    elif kind == "secret":  # root may read it all the same
        PIL.Image.new("RGB", (40, 40), "red").save(path)
        real = images.open_file

        def open_file(asked):
            if Path(asked).name == path.name:
                raise InputError(f"cannot read {asked}: Permission denied")
            return real(asked)

        monkeypatch.setattr(images, "open_file", open_file)
    return path.name


@pytest.fixture
def source(tmp_path) -> Path:
    root = tmp_path / "source"
    root.mkdir()
    for number in range(GOOD):
        PIL.Image.new("RGB", (64, 48), (number * 20, 30, 99)).save(root / f"{number}.jpg")
    return root


def write_docs(root: Path, *bad: str) -> None:
    """Good pictures, with the bad ones among them."""
    rows = [{"id": f"d{number}", "image": f"{number}.jpg"} for number in range(GOOD)]
    for number, path in enumerate(bad):
        rows.insert(3 * number + 1, {"id": f"bad{number}", "image": path})
    (root / "docs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.mark.parametrize("kind", ["page", "cut", "empty", "dangling", "loop", "pipe", "long", "secret"])
def test_a_bad_picture_is_left_out_and_named(crosslens, refused, source, tmp_path, tiny_clip, monkeypatch, kind):
    bad = make_bad(kind, source, monkeypatch)
    write_docs(source, bad, bad)
    arguments = ("index", source, tmp_path / "index", "--encoder", f"clip:local-dir:{tiny_clip}", "--device", "cpu")
    refused(*arguments, parts=(bad[:50], "--skip-bad"))
    status, out, err = crosslens(*arguments, "--skip-bad", "--json")
    assert status == 0, err
    made = json.loads(out)
    assert (made["documents"], made["skipped"], len(made["problems"])) == (GOOD, 2, 2)
    assert all(bad[:50] in problem for problem in made["problems"])
    index = open_index(tmp_path / "index")
    assert {item.id for item in index.get([f"d{n}" for n in range(GOOD)])} == {f"d{n}" for n in range(GOOD)}
    status, _, err = crosslens(*arguments, "--skip-bad")  # on what is finished
    assert status == 0, err
    assert "2 bad documents skipped" in err
    assert err.count("skipped ") >= 2


def test_an_editors_lock_does_not_stop_an_experiment(crosslens, tmp_path, tiny_encoder):
    root = tmp_path / "source"
    root.mkdir()
    rows = [{"id": f"d{n}", "text": f"cat number {n}", "lang": "eng"} for n in range(9)]
    (root / "docs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (root / "topics.jsonl").write_text('{"id": "t", "text": "cat number 3", "lang": "eng"}\n')
    (root / "qrels.txt").write_text("t 0 d3 1\n")
    for name, target in ((".#docs.jsonl", "me@host.1234:5678"), ("loop", "loop"), ("long", "x" * 300)):
        (root / name).symlink_to(target)
    os.mkfifo(root / "pipe")
    plan = tmp_path / "plan.toml"
    plan.write_text(f'collections = ["{root}"]\nmeasures = ["nDCG@10"]\nsystems = {{words = "lexical"}}\n')
    for _ in range(2):
        status, _, err = crosslens("experiment", plan)
        assert status == 0, err
