"""`crosslens verify` on the results of an experiment, and as a command."""

from __future__ import annotations

import json
from pathlib import Path

import pytest


def damage(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)


@pytest.fixture
def ready(crosslens, tmp_path, monkeypatch):
    """An experiment with its results, and a callable that runs it and gives them."""
    monkeypatch.chdir(tmp_path)
    Path("small").mkdir()
    texts = [f"{word} cat number {n}" for n, word in enumerate(("red", "blue", "green", "white"))]
    documents = [json.dumps({"id": f"d{n}", "lang": "eng", "text": text}) for n, text in enumerate(texts)]
    Path("small/docs.jsonl").write_text("\n".join(documents))
    Path("small/topics.jsonl").write_text('{"id": "1", "lang": "eng", "text": "red cat"}\n')
    Path("small/qrels.txt").write_text("1 0 d0 1\n")
    Path("plan.toml").write_text(
        'collections = ["small"]\nmeasures = ["nDCG@5"]\n[systems]\nlexical = "lexical"\ncut = "lexical % 2"\n'
    )

    def run():
        status, out, err = crosslens("experiment", "plan.toml", "-o", "results", "--json")
        assert status == 0, err
        return json.loads(out)["collections"][0]

    run()
    return Path("results"), run


def test_what_is_kept_is_made_again_where_it_is_damaged(crosslens, ready):
    results, run = ready
    first = run()
    assert crosslens("verify", results)[0] == 0
    for pattern, reused in (
        ("stages/*.parquet", 1),
        ("stages/*.sha256", 1),
        ("collections/*.json", 2),
        ("indexes/*.json", 2),
    ):
        path = sorted(results.glob(pattern))[0]
        damage(path)
        status, out, _ = crosslens("verify", results, "--json")
        told = json.loads(out)
        assert (status, told["lasting"]) == (0, [])
        assert told["repaired"] == [
            path.relative_to(results).with_suffix(".parquet" if reused == 1 else path.suffix).as_posix()
        ]
        again = run()
        assert again["table"] == first["table"]
        assert sum(bool(system["reused"]) for system in again["systems"].values()) >= reused
        assert json.loads(crosslens("verify", results, "--json")[1])["damaged"] == {}
        # Without `verify` a run sees it, too.
        damage(path)
        assert run()["table"] == first["table"]
        assert json.loads(crosslens("verify", results, "--json")[1])["damaged"] == {}


def test_an_index_of_an_experiment_is_repaired_or_named(crosslens, ready):
    results, run = ready
    first = run()
    words = sorted(results.glob("indexes/*/documents.lance/_indices/*/*.lance"))[0]
    damage(words)
    status, _, err = crosslens("experiment", "plan.toml", "-o", results)
    assert status == 2
    assert "`crosslens verify" in err
    status, out, _ = crosslens("verify", results)
    assert status == 0
    assert f"{words.relative_to(results)}: is not what was written (its sha256 differs); repaired" in out
    assert run()["table"] == first["table"]
    (documents,) = results.glob("indexes/*/documents.lance/data/*")
    damage(documents)
    status, out, err = crosslens("verify", results)
    assert status == 2
    assert f"{documents.relative_to(results)}: is not what was written" in out
    assert "cannot be repaired: remove it" in err


def test_results_of_an_earlier_version_get_checksums(crosslens, ready):
    results, run = ready
    first = run()
    for path in results.glob("stages/*.sha256"):
        path.unlink()
    (memo,) = results.glob("collections/*.json")
    stored = json.loads(memo.read_text())
    del stored["sha256"]
    memo.write_text(json.dumps(stored))
    assert run()["table"] == first["table"]
    status, out, err = crosslens("verify", results)
    assert status == 0
    assert "no damage" in out
    assert "had no checksums" in err
    assert "had no checksums" not in crosslens("verify", results)[2]
    damage(next(results.glob("stages/*.parquet")))
    assert "1 damaged, 1 repaired" in crosslens("verify", results)[1]


def test_what_is_neither_is_refused(crosslens, tmp_path):
    for path in (tmp_path, tmp_path / "nothing"):
        status, _, err = crosslens("verify", path)
        assert status == 2
        assert "neither an index" in err
