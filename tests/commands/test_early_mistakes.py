"""What is wrong in a command is said before any model is loaded, and before anything is written."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image
from stand_ins.table import table

CAT = {"id": "cat", "lang": "eng", "text": "The cat sleeps all day."}


@pytest.fixture(autouse=True)
def no_model(monkeypatch):
    """A test in which a model would be loaded, or its package converted, fails."""
    from crosslens.checkpoints.offline import packages
    from crosslens.checkpoints.source import Source

    def refuse(*given, **options):
        raise AssertionError(f"a model was about to be loaded: {given}")

    monkeypatch.setattr(Source, "load", refuse)
    monkeypatch.setattr(packages, "_check_files", refuse)
    monkeypatch.setattr(packages, "_is_finished", lambda directory: False)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A collection, pictures, an index of the collection, one that is unfinished, and a run."""
    from crosslens.encoders.base import EncoderSpec
    from crosslens.indexes.registry import create_index
    from crosslens.items import Item

    root = tmp_path_factory.mktemp("early")
    for name, rows in (("c", [CAT]), ("p", [{"id": "p0", "image": "0.png"}])):
        (root / name).mkdir()
        (root / name / "docs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (root / "c" / "topics.jsonl").write_text(json.dumps({"id": "t1", "text": "cat", "lang": "eng"}) + "\n")
    (root / "c" / "qrels.txt").write_text("t1 0 cat 1\n")
    Image.new("RGB", (8, 8)).save(root / "p" / "0.png")
    (root / "run.trec").write_text("t1 Q0 cat 1 1.0 x\n")
    (root / "late.toml").write_text('collections = ["c"]\n[systems]\na = "dense"\nb = "dense >> yesno@offline:none"\n')
    (root / "kind.toml").write_text('collections = ["c"]\n[systems]\na = "dense"\nb = "dense?encoder=hf:./none"\n')
    index = create_index(root / "ix", name="c")
    spec = EncoderSpec("offline:e5-small", "none", ("text",), 4)
    index.add_vectors([Item(**CAT)], __import__("numpy").eye(1, 4, dtype="float32"), spec)
    index.build("none")
    create_index(root / "begun")
    return root


@pytest.fixture
def here(made, tmp_path, monkeypatch) -> Path:
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


WRONG = [
    ("search ix cat --where colour=red", "unknown field to filter by 'colour'"),
    ("search ix cat --where nokey --mode dense", "is not KEY=VALUE"),
    ("search ix --image p/0.png", "holds image, which no encoder of ix reads"),
    ("search ix cat --rerank yesno@hf:./none", "there is no directory ./none"),
    ("search ix cat --rerank yesno@offline:none", "unknown offline judge 'none'"),
    ("search ix cat --device tpu", "unknown device 'tpu'"),
    ("search begun cat", "begun is unfinished"),
    ("run begun c -o x", "begun is unfinished"),
    ("run ix c -o /proc/x", "cannot write to /proc"),
    ("run ix c -o none/x", "there is no directory none"),
    ("rerank run.trec c --rerank yesno@hf:a/b/c -o x", "no checkpoint on the hub can have this name"),
    ("index c new --encoder offline:e5-small?none=1", "unknown option of offline 'none'"),
    ("index c new --encoder hf:models/", "there is no directory models/"),
    ("index c new --encoder clip:none/x", "unknown open_clip architecture"),
    ("index p new --encoder offline:e5-small", "'p0' holds image, which none of the encoders reads (offline:e5-small)"),
    ("index p ix --encoder offline:e5-small", "an index of the collection 'c', not 'p'"),
    ("index c new --index sparse", "makes dense vectors"),
    ("index c new --index late --encoder splade:c", "makes sparse vectors"),
    ("index c new --index flat --ann IVF_PQ", "searches exactly and has no IVF_PQ"),
    ("index c new --ann IVFPQ", "did you mean IVF_PQ"),
    ("index c new --index flat --encoder hf:x --encoder hf:y", "the hub"),
    ("index c ix --encoder offline:use-m3", "ix holds vectors of offline:e5-small"),
    ("index c ix --index flat", "kind='lance', not 'flat'"),
    ("index c c", "c holds other files"),
    ("index c /proc/x", "cannot make the directory /proc/x"),
    ("index c run.trec/x", "cannot make the directory run.trec/x: Not a directory"),
    ("experiment late.toml", "unknown offline judge 'none'"),
    ("experiment kind.toml", "there is no directory ./none"),
    ("translate c -o none/x --to rus --with offline:gemma", "there is no directory none"),
    ("translate c -o x --to rus --with offline:gemma --what words", "unknown kind of texts 'words'"),
    ("translate c -o x --to rus --with offline:gemma --what queries --fields word", "unknown topic field 'word'"),
    ("synthesize c --with inpars@offline:gemma -o run.trec", "run.trec is a file"),
    ("synthesize c --with inpars@offline:gemma -o s --index none", "none is not an index"),
    ("synthesize c --with inpars@offline:gemma -o s --judge none", "names no model"),
    ("serve ix --system none --port 0", "unknown stage 'none'"),
    ("demo --html none/x.html", "there is no directory none"),
    ("demo --dir c", "c holds other files"),
]


@table(("command", "said"), WRONG)
def test_a_mistake_is_found_before_a_model_is_loaded(crosslens, here, command, said):
    before = {path for path in here.rglob("*")}
    status, out, err = crosslens(*command.split())
    assert status == 2, err
    assert said in err.splitlines()[-1]
    assert err.splitlines()[-1].startswith("crosslens: ")
    assert not out
    left = {path for path in here.rglob("*") if path not in before and not path.name.endswith(".lock")}
    assert {path.parts[len(here.parts)] for path in left} <= {"late.results", "kind.results"}


def test_faiss_that_is_not_installed(crosslens, here, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "faiss", None)
    for command in ("index c new --index faiss:Flat", "run ix c -o x --system dense?index=faiss:Flat"):
        status, _, err = crosslens(*command.split())
        assert (status, "crosslens[faiss]" in err) == (2, True), err
