"""Who may read what crosslens writes: whoever the umask lets, files of libraries included."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

PLAN = """
collections = ["{collection}"]
measures = ["nDCG@10"]
encoders = {{tiny = "{spec}"}}
systems = {{words = "lexical", vectors = "dense?encoder=tiny"}}
"""


@pytest.fixture
def umask(request):
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


@pytest.fixture
def collection(tmp_path, umask) -> Path:
    where = tmp_path / "source"
    where.mkdir()
    docs = [{"id": f"d{n}", "text": f"cat number {n}", "lang": ("eng", "fra")[n % 2]} for n in range(24)]
    (where / "docs.jsonl").write_text("".join(json.dumps(each) + "\n" for each in docs))
    (where / "topics.jsonl").write_text('{"id": "t1", "text": "cat number 3", "lang": "eng"}\n')
    (where / "qrels.txt").write_text("t1 0 d3 1\n")
    return where


def check_modes(where: Path, umask: int) -> set[str]:
    """All files and directories below `where` have the umask's modes; the endings of the files."""
    found = list(where.rglob("*"))
    odd = {
        f"{path.relative_to(where)} {stat.S_IMODE(path.lstat().st_mode):o}"
        for path in found
        if stat.S_IMODE(path.lstat().st_mode) != (0o777 if path.is_dir() else 0o666) & ~umask
    }
    assert not odd
    return {path.suffix for path in found if path.is_file()}


KINDS = ("lance", "flat", "faiss:Flat", "sparse", "late")


@pytest.mark.parametrize(("kind", "umask"), [("lance", 0o022), *((kind, 0o027) for kind in KINDS)], indirect=["umask"])
def test_an_index_its_runs_and_the_cache(
    crosslens, collection, umask, tmp_path, monkeypatch, tiny_encoder, tiny_splade, tiny_colbert, kind
):
    monkeypatch.setenv("CROSSLENS_VECTORS", str(tmp_path / "vectors"))
    specs = {"sparse": f"splade:{tiny_splade}", "late": f"late:{tiny_colbert}"}
    spec = specs.get(kind, f"hf:{tiny_encoder}?pooling=mean")
    status, _, err = crosslens("index", collection, tmp_path / "index", "--encoder", spec, "--index", kind)
    assert status == 0, err
    status, _, err = crosslens("run", tmp_path / "index", collection, "-o", tmp_path / "run.trec", "--mode", "dense")
    assert status == 0, err
    status, _, err = crosslens("export", collection, tmp_path / "export")
    assert status == 0, err
    assert {".json", ".lance", ".sqlite", ".trec"} <= check_modes(tmp_path, umask)


@pytest.mark.parametrize("umask", [0o022, 0o027], indirect=True)
def test_an_experiment(crosslens, collection, umask, tmp_path, tiny_encoder):
    plan = tmp_path / "plan.toml"
    plan.write_text(PLAN.format(collection=collection, spec=f"hf:{tiny_encoder}?pooling=mean"))
    status, _, err = crosslens("experiment", plan)
    assert status == 0, err
    assert {".safetensors", ".html", ".tex", ".parquet", ".jsonl", ".trec"} <= check_modes(tmp_path, umask)
