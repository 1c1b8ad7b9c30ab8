"""`crosslens rewrite` and rewriters in lines: what is written finds documents in other languages, is kept, and is shown."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from crosslens.errors import InputError
from crosslens.multilingual.collections.registry import load_collection
from crosslens.multilingual.rewriting.rewrites import Rewritten
from crosslens.runs import Run
from stand_ins.table import table
from stand_ins.writing import SAYS

DOCS = {
    "cat": ("eng", "The cat sleeps all day and hunts at night."),
    "koshka": ("rus", "Кошка спит весь день и охотится ночью."),
    "poezd": ("rus", "Ночной поезд на побережье опять опоздал."),
    "mao": ("zho", "猫整天都在睡觉，晚上出去打猎。"),
}
TOPICS = ({"id": "1", "text": "sleeping cat", "lang": "eng"}, {"id": "2", "text": "hunting by night", "lang": "eng"})
WRITER = "py:stand_ins.writing:Writer"
SPEC = f"query2doc@{WRITER}?lang=document"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    where = tmp_path / "source"
    where.mkdir()
    rows = [{"id": id, "lang": lang, "text": text} for id, (lang, text) in DOCS.items()]
    (where / "docs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (where / "topics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in TOPICS))
    return where


@pytest.fixture
def index(crosslens, source, tiny_encoder, tmp_path: Path) -> Path:
    made = tmp_path / "index"
    assert crosslens("index", source, made, "--encoder", f"hf:{tiny_encoder}?pooling=mean&dtype=float32")[0] == 0
    return made


def read(path: Path) -> list[dict]:
    lines = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    return [json.loads(line) for line in lines.splitlines()]


def test_what_is_written_once_is_searched_for_and_shown(crosslens, source, index, tmp_path):
    file = tmp_path / "rewritten.jsonl.gz"
    status, out, err = crosslens("rewrite", source, "--with", SPEC, "-o", file, "--json")
    assert status == 0, err
    report = json.loads(out)
    assert (report["queries"], report["languages"]) == (2, ["rus", "eng", "zho"])
    assert report["counts"] == {"rewritten": 2, "calls": 6, "generated_tokens": 18}
    lines = read(file)
    assert [line["text"] for line in lines] == [topic["text"] for topic in TOPICS]
    own, russian, *_ = lines[0]["probes"]
    assert own == {"query": True, "role": "query", "weight": 4.0, "group": 0, "only": "words"}
    assert russian == {
        "text": f"sleeping cat\n{SAYS['Russian']}", "lang": "rus", "role": "query", "weight": 1.0, "group": 0,
    }  # fmt: skip
    assert not list(tmp_path.glob("*.journal"))

    runs = {}
    for name, line in (
        ("model", f"{SPEC} >> lexical"),
        ("file", f"rewrites?file={file} >> lexical"),
        ("plain", "lexical"),
    ):
        runs[name] = tmp_path / f"{name}.trec"
        status, out, err = crosslens("run", index, source, "-o", runs[name], "--system", line, "--json")
        assert status == 0, err
        if name == "model":  # nothing is written twice, and what it cost is said all the same
            assert json.loads(out)["stages"][0]["counts"] == {**report["counts"], "kept": 6}
    assert runs["model"].read_text() == runs["file"].read_text()
    found = {tuple(line.split()[::2][:2]) for line in runs["file"].read_text().splitlines()}
    assert {("1", "koshka"), ("1", "mao")} <= found
    plain = {tuple(line.split()[::2][:2]) for line in runs["plain"].read_text().splitlines()}
    assert not {("1", "koshka"), ("1", "mao")} & plain
    beside = tmp_path / "model.trec.rewrites.jsonl"
    assert read(beside) == lines
    assert crosslens("run", index, source, "-o", runs["model"], "--mode", "lexical")[0] == 0
    assert not beside.exists()


def test_a_search_explains_what_was_searched_for(crosslens, index):
    status, out, err = crosslens("search", index, "sleeping cat", "--system", f"{SPEC} >> lexical", "--explain")
    assert status == 0, err
    shown = [line for line in out.splitlines() if line.startswith("searched for")]
    assert shown[0] == "searched for, group 0, as a query, weight 4, eng, only its words: sleeping cat"
    assert f"searched for, group 0, as a query, weight 1, rus: sleeping cat {SAYS['Russian']}" in shown
    status, out, err = crosslens("search", index, "sleeping cat", "--system", f"{SPEC} >> dense", "--explain", "--json")
    assert [each.get("lang") for each in json.loads(out)["rewritten"]] == [None, "rus", "eng", "zho"]
    status, out, err = crosslens("search", index, "sleeping cat", "--explain")
    assert out.startswith("searched for as it is: sleeping cat\n")
    only = f"hyde@{WRITER}?lang=document >> dense"
    status, out, err = crosslens("search", index, "cat", "--system", only, "--where", "lang=rus", "--explain", "--json")
    assert [each.get("lang") for each in json.loads(out)["rewritten"]] == [None, "rus"]


def test_a_search_explains_its_feedback_and_where_each_stage_had_a_document(crosslens, index):
    system = "dense % 2 >> rocchio?docs=1 >> dense % 2 >> rm3?docs=2 >> lexical"
    status, out, err = crosslens("search", index, "sleeping cat", "--system", system, "--explain")
    assert status == 0, err
    lines = out.splitlines()
    assert any(line.startswith("searched for, group 0, as a document, weight") for line in lines)
    assert any(": document " in line and "only its vector" in line for line in lines)
    assert any("only its words" in line for line in lines)
    status, out, err = crosslens("search", index, "sleeping cat", "--system", system, "--explain", "--json")
    hits = json.loads(out)["hits"]
    assert [[place["stage"].partition(" ")[0] for place in hit["stages"]] for hit in hits] == [
        ["dense", "dense", "lexical"]
    ] * len(hits)
    for hit in hits:
        assert hit["stages"][-1] == {"stage": hit["stages"][-1]["stage"], "rank": hit["rank"], "score": hit["score"]}
        first = hit["stages"][0]
        shown = f"{first['rank']} ({first['score']:.4f})" if first["rank"] else "not found"
        assert any(line.startswith(f"     dense: {shown} > dense: ") for line in lines)
    assert "stages" not in json.loads(crosslens("search", index, "cat", "--json")[1])["hits"][0]


def test_a_stopped_rewriting_goes_on_with_what_is_kept(crosslens, source, tmp_path):
    file = tmp_path / "rewritten.jsonl"
    status, out, err = crosslens("rewrite", source, "--with", f"{SPEC}&fails_after=2", "-o", file)
    assert status == 1
    assert err.strip() == "crosslens: interrupted; kept: 2 of 6 texts, and the same command goes on from there"
    assert not file.exists()
    status, out, err = crosslens("rewrite", source, "--with", SPEC, "-o", file, "--json")
    assert json.loads(out)["counts"]["kept"] == 2
    status, out, err = crosslens("rewrite", source, "--with", SPEC, "-o", file)
    assert "2 of 2 queries rewritten" in out
    assert "answers of the model: 6, of which 6 were kept from before)" in out


def test_a_cache_that_cannot_be_used_is_no_mistake(crosslens, source, tmp_path, monkeypatch, caplog):
    (tmp_path / "file").touch()
    monkeypatch.setenv("CROSSLENS_TEXTS", str(tmp_path / "file"))
    assert crosslens("rewrite", source, "--with", SPEC, "-o", tmp_path / "rewritten.jsonl")[0] == 0
    assert "what is written is not kept" in caplog.text


ROW = {"id": "1", "text": "sleeping cat", "probes": [{"text": "x"}]}


@table(
    ("rows", "message"),
    [
        ([ROW], "lacks 1 of 2 queries: 2"),
        ([ROW, {**ROW, "id": "2"}], "has another text for the query '2' ('sleeping cat', now 'hunting by night')"),
        ([ROW, ROW], ":2: the query '1' occurs a second time"),
        ([{"id": "1", "text": "x"}], ":1: no list of `probes`: it is not a file that `crosslens rewrite` wrote"),
        ([{**ROW, "probes": ["x"]}], ":1: a probe must be an object, not str"),
        ([{**ROW, "probes": [{"text": " "}]}], ":1: a probe of '1' has no text"),
        ([{**ROW, "probes": [{"text": "x", "role": "doc"}]}], ":1: unknown role of a probe: 'doc'"),
        ([{**ROW, "probes": [{"text": "x", "weight": 1e7}]}], "of a probe is 1,000,000 at most, not 1e+07"),
        ([{**ROW, "probes": [{"text": "x", "weight": "2"}]}], "a number as weight and a whole one as group, not '2'"),
        ([{**ROW, "probes": [{"text": "x", "only": "word"}]}], ":1: unknown value of `only` in a probe: 'word'"),
        ([{**ROW, "probes": [{"text": "x", "lang": "xx9"}]}], ":1: unknown language 'xx9'"),
        (
            [{**ROW, "probes": [{"text": "x", "weights": 2}]}],
            ":1: unknown field of a probe: 'weights'; did you mean we",
        ),
        ([{**ROW, "probes": [{"query": True, "text": "x"}]}], ":1: a probe is the query itself, or has a text of its"),
        ([], "has no rewritten queries in it"),
    ],
)
def test_a_file_that_does_not_fit_is_one_line(source, tmp_path, rows, message):
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(InputError) as error:
        Rewritten(tmp_path / "rows.jsonl")(Run.of(load_collection(str(source)).queries()))
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("spec", "parts"),
    [
        ("hyed@x:y", ("unknown method of rewriting 'hyed'; did you mean hyde?",)),
        ("hyde@no:y", ("unknown judge family 'no'",)),
        ("translate@hf:x", ("unknown method of rewriting 'translate'",)),
        ("feedback@hf:x", ("reads first results, and there is no search here", ">> feedback@hf:x >> hybrid")),
    ],
)
def test_mistakes_are_one_line(refused, source, tmp_path, spec, parts):
    refused("rewrite", source, "--with", spec, "-o", tmp_path / "x.jsonl", parts=parts)
    refused("rewrite", source, "--with", SPEC, "-o", tmp_path / "no" / "x.jsonl", parts=("there is no directory",))
    refused("run", tmp_path, source, "-o", tmp_path / "x", "--system", "rewrites?file=no", parts=("there is no file 'no'",))  # fmt: skip
