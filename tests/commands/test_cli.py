"""The command line as a user meets it: what it prints, its exit status, and one clear line for each mistake."""

from __future__ import annotations

import json
import signal
import sys
import time
from pathlib import Path

import pytest
from crosslens.commands import app as cli
from PIL import Image
from stand_ins.children import COMMAND, Child

TEXTS = {
    "cat": ("eng", "The cat sleeps all day and hunts at night."),
    "chat": ("fra", "Le chat dort toute la journée et chasse la nuit."),
    "train": ("eng", "The night train to the coast was late again."),
    "gato": ("spa", "El gato duerme todo el día y caza por la noche."),
}


def collection(where: Path, extra: str = "", **records: dict) -> Path:
    where.mkdir(exist_ok=True)
    rows = [{"id": key, "lang": lang, "text": text} for key, (lang, text) in TEXTS.items()]
    rows += [{"id": key, **value} for key, value in records.items()]
    (where / "docs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + extra)
    topics = [{"id": "t1", "text": "sleeping cat", "lang": "eng"}, {"id": "t2", "text": "tren nocturno", "lang": "spa"}]
    (where / "topics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in topics))
    (where / "qrels.txt").write_text("t1 0 cat 3\nt1 0 chat 1\nt2 0 train 3\n")
    return where


@pytest.fixture(scope="module")
def spec(tiny_encoder) -> str:
    return f"hf:{tiny_encoder}?pooling=mean&dtype=float32"


@pytest.fixture(scope="module")
def ready(tmp_path_factory, spec):
    """A finished index and its collection, made by the command itself."""
    where = tmp_path_factory.mktemp("ready")
    source = collection(where / "collection")
    argv, sys.argv = sys.argv, ["crosslens", "index", str(source), str(where / "index"), "--encoder", spec]
    try:
        with pytest.raises(SystemExit) as stop:
            cli.main()
    finally:
        sys.argv = argv
    assert not stop.value.code
    return where / "index", source


def test_index_then_search_then_run_then_evaluate(crosslens, ready, tmp_path, tiny_judge):
    index, source = ready
    status, out, _ = crosslens("search", index, "the cat sleeps", "-k", 1, "--mode", "lexical", "--json")
    found = json.loads(out)
    assert status == 0
    assert [(hit["rank"], hit["id"]) for hit in found["hits"]] == [(1, "cat")]
    assert found["lang"] == "eng"
    status, out, _ = crosslens("search", index, "the cat sleeps", "--lang", "spanish", "--mode", "dense")
    assert status == 0
    assert [line.split()[3] for line in out.splitlines()] == ["gato"]

    run = tmp_path / "first.trec"
    assert crosslens("run", index, source, "-o", run, "-k", 3)[0] == 0
    lines = [line.split() for line in run.read_text().splitlines()]
    assert {line[0] for line in lines} == {"t1", "t2"}
    assert [line[3] for line in lines if line[0] == "t1"] == ["1", "2", "3"]
    manifest = json.loads((tmp_path / "first.trec.manifest.json").read_text())
    assert manifest["stages"][0]["stage"] == "hybrid"
    ((name, revision),) = manifest["stages"][0]["models"].items()
    assert name.startswith("hf:")
    assert len(revision) == 16

    second = tmp_path / "second.trec"
    judge = f"likelihood@hf:{tiny_judge}?depth=3&alpha=0.5&dtype=float32"
    status, out, _ = crosslens("rerank", run, source, "--rerank", judge, "-o", second, "--json")
    assert status == 0
    assert json.loads(out)["stages"][-1]["counts"]["calls"] == 6
    assert sorted(second.read_text().split()[2::6]) == sorted(run.read_text().split()[2::6])

    status, out, _ = crosslens("evaluate", source / "qrels.txt", run, second, "-m", "nDCG@3", "--json")
    table = json.loads(out)
    assert status == 0
    assert [system["name"] for system in table["systems"]] == ["first", "second"]
    assert 0 < table["systems"][0]["means"]["nDCG@3"]["all"] <= 1


def test_indexing_again_changes_nothing_and_says_so(crosslens, ready, spec):
    index, source = ready
    status, out, _ = crosslens("index", source, index, "--encoder", spec, "--json")
    assert status == 0
    assert json.loads(out)["added"] == 0
    assert json.loads(out)["documents"] == len(TEXTS)


def test_an_index_keeps_its_encoders_where_none_is_named(crosslens, refused, tmp_path, spec):
    index, source = tmp_path / "index", collection(tmp_path / "c")
    assert crosslens("index", source, index, "--encoder", spec)[0] == 0
    (source / "docs.jsonl").write_text(json.dumps({"id": "cat", "text": "Cats sleep.", "lang": "eng"}) + "\n")
    (source / "qrels.txt").unlink()
    status, out, _ = crosslens("index", source, index, "--sync", "--json")
    found = json.loads(out)
    assert (status, found["encoders"], found["documents"]) == (0, [spec], 1)
    other = collection(tmp_path / "other")
    refused("index", other, index, parts=("is an index of the collection 'c', not 'other'",))


def test_json_is_one_object_on_stdout_and_nothing_else(crosslens):
    for verb in ("models", "doctor"):
        status, out, _ = crosslens(verb, "--json")
        assert status == 0
        assert isinstance(json.loads(out), dict)


def test_usage_mistakes(refused, crosslens):
    refused("serach", parts=("No such command",))
    refused("search", parts=("Missing argument",))
    refused("index", "x", "y", "--nope", parts=("No such option",))
    status, _, err = crosslens()
    assert status == 2
    assert "Usage" in err


@pytest.mark.parametrize(
    ("extra", "records", "parts"),
    [
        ('{"id": "x", "text": \n', {}, ("docs.jsonl:5", "JSON")),
        ("[1, 2]\n", {}, ("docs.jsonl:5",)),
        ('{"id": "cat", "text": "again"}\n', {}, ("docs.jsonl:5", "'cat'")),
        ("", {"empty": {"text": "  "}}, ("docs.jsonl:5", "empty")),
        ("", {"p": {"image": "gone.jpg"}}, ("docs.jsonl:5", "gone.jpg")),
        ("", {"p": {"image": "../outside.jpg"}}, ("docs.jsonl:5", "../outside.jpg")),
        ("", {"p": {"text": "words", "lang": "xx-nope"}}, ("docs.jsonl:5", "xx-nope")),
    ],
    ids=["malformed", "not-an-object", "duplicate", "empty", "image-missing", "escape", "lang"],
)
def test_a_bad_line_is_named_before_any_work_and_can_be_skipped(
    refused, crosslens, tmp_path, spec, extra, records, parts
):
    Image.new("RGB", (8, 8)).save(tmp_path / "outside.jpg")
    source = collection(tmp_path / "c", extra, **records)
    refused("index", source, tmp_path / "index", "--encoder", spec, parts=parts)
    assert not (tmp_path / "index").exists()
    status, out, err = crosslens("index", source, tmp_path / "index", "--encoder", spec, "--skip-bad", "--json")
    assert status == 0, err
    assert json.loads(out)["documents"] == len(TEXTS)
    assert json.loads(out)["skipped"] == 1


def bomb(path: Path) -> None:
    """A PNG whose header says 60,000 x 60,000."""
    Image.new("1", (8, 8)).save(path)
    data = bytearray(path.read_bytes())
    data[16:24] = (60_000).to_bytes(4, "big") * 2
    import zlib

    data[29:33] = zlib.crc32(bytes(data[12:29])).to_bytes(4, "big")
    path.write_bytes(bytes(data))


def truncated(path: Path) -> None:
    Image.effect_noise((64, 64), 50).save(path)
    path.write_bytes(path.read_bytes()[:900])


@pytest.mark.parametrize(("spoil", "part"), [(bomb, "pixels"), (truncated, "truncated")])
def test_a_bad_picture_is_named(refused, tmp_path, tiny_clip, ready, spoil, part):
    spoil(tmp_path / "bad.png")
    refused("search", ready[0], "--image", tmp_path / "bad.png", parts=("no encoder",))
    source = collection(tmp_path / "c", p={"image": "bad.png"})
    spoil(source / "bad.png")
    refused("index", source, tmp_path / "index", "--encoder", f"clip:{tiny_clip}", parts=("bad.png", part))


def test_missing_or_wrong_collections(refused, tmp_path, spec):
    refused("index", tmp_path / "none", tmp_path / "i", "--encoder", spec, parts=("does not exist",))
    (tmp_path / "empty").mkdir()
    refused("index", tmp_path / "empty", tmp_path / "i", "--encoder", spec, parts=("with docs.jsonl",))
    assert not (tmp_path / "i").exists()


def test_unknown_specs_and_keys(refused, tmp_path, ready):
    source = ready[1]
    for given, part in (
        ("hff:x", "did you mean hf?"),
        ("offline:e6-small", "did you mean e5-small?"),
        ("hf:/nowhere", "no directory"),
        ("offline:e5-small?poling=cls", "known:"),
    ):
        refused("index", source, tmp_path / "i", "--encoder", given, parts=(part,))
        assert not (tmp_path / "i").exists()
    refused("index", source, tmp_path / "i", "--encoder", "offline:e5-small", "--index", "lanse", parts=("lance",))
    refused("index", source, tmp_path / "i", "--device", "cuda:9", "--encoder", "offline:e5-small", parts=("cuda:9",))


def test_queries_that_cannot_be_answered(refused, ready, tmp_path):
    index = ready[0]
    Image.new("RGB", (8, 8)).save(tmp_path / "ok.png")
    refused("search", index, parts=("the query is empty",))
    refused("search", index, "   ", parts=("the query is empty",))
    refused("search", index, "cat", "-k", 0, parts=("at least 1",))
    refused("search", index, "cat", "--mode", "fuzzy", parts=("unknown mode",))
    refused("search", index, "cat", "--lang", "xx-nope", parts=("xx-nope",))
    refused("search", index, "cat", "--where", "lang", parts=("KEY=VALUE",))
    refused("search", index, "--image", tmp_path / "none.png", parts=("none.png",))
    refused("search", index, "--image", tmp_path / "ok.png", parts=("image", "no encoder"))
    refused("search", index, "cat", "--rerank", "better", parts=("did you mean best?",))
    refused("search", tmp_path / "nothing", "cat", parts=("nothing",))


def test_an_index_of_another_spec_or_a_newer_format_is_refused(refused, ready, tmp_path, tiny_encoder):
    index, source = ready
    other = f"hf:{tiny_encoder}?pooling=cls&dtype=float32"
    refused("index", source, index, "--encoder", other, parts=("pooling",))
    copy = tmp_path / "copy"
    copy.mkdir()
    card = json.loads((index / "crosslens.json").read_text())
    card["format"] = 999
    (copy / "crosslens.json").write_text(json.dumps(card))
    refused("search", copy, "cat", parts=("format 999",))


def test_qrels_and_run_without_common_topics_name_both_sides(refused, tmp_path):
    (tmp_path / "q").write_text("a1 0 d 1\n")
    (tmp_path / "r").write_text("b1 Q0 d 1 1.0 x\n")
    refused("evaluate", tmp_path / "q", tmp_path / "r", parts=("a1", "b1"))
    (tmp_path / "r").write_text("b1 Q0 d 1\n")
    refused("evaluate", tmp_path / "q", tmp_path / "r", parts=("r:1", "not a run line"))


@pytest.fixture(scope="module")
def large(tmp_path_factory) -> Path:
    """Enough documents for a signal to arrive in the middle."""
    where = tmp_path_factory.mktemp("large")
    rows = ({"id": f"d{i}", "lang": "eng", "text": f"document {i} about the cat " * 20} for i in range(3000))
    (where / "docs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return where


def documents(index: Path) -> int:
    import lancedb

    try:
        return lancedb.connect(index).open_table("documents").count_rows()
    except Exception:  # not made yet
        return 0


def stored(index: Path) -> list[tuple[str, bytes]]:
    import lancedb

    db = lancedb.connect(index)
    found = []
    for name in db.list_tables().tables:
        table = db.open_table(name).to_arrow()
        for row in table.to_pylist():
            found.append((row["id"], repr(sorted((k, v) for k, v in row.items())).encode()))
    return sorted(found)


def test_an_interrupted_index_resumes_to_the_same_table(crosslens, large, spec, tmp_path):
    """Killed ones: tests/indexes/test_killed.py."""
    index = tmp_path / "index"
    process = Child(COMMAND, "index", large, index, "--encoder", spec)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        if documents(index) >= 1024:  # two committed windows: in the middle of the work
            break
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate()
    assert process.returncode == 1, err
    assert err.count("crosslens: interrupted") == 1
    assert "Traceback" not in err
    status, _, err = crosslens("search", index, "cat")
    assert status == 2
    assert "crosslens index" in err
    status, out, err = crosslens("index", large, index, "--encoder", spec, "--json")
    assert status == 0, err
    assert 0 < json.loads(out)["added"] < 3000
    whole = tmp_path / "whole"
    assert crosslens("index", large, whole, "--encoder", spec)[0] == 0
    assert stored(index) == stored(whole)


def test_a_full_disk_is_one_line_and_the_rerun_goes_on(crosslens, large, spec, tmp_path):
    little = """
    import resource, signal
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))
    """
    index = tmp_path / "index"
    # The cache cannot be written either, which is a warning and tested with it.
    process = Child(f"{little}{COMMAND}", "index", large, index, "--encoder", spec, "--no-cache")
    _, err = process.communicate()
    assert process.returncode == 2, err
    assert "Traceback" not in err
    assert len([line for line in err.splitlines() if line.startswith("crosslens: ")]) == 1
    status, out, err = crosslens("index", large, index, "--encoder", spec, "--json")
    assert status == 0, err
    assert json.loads(out)["documents"] == 3000
