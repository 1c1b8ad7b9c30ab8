"""What does not fit together is said in one clear line with exit status 2, as a user of the command line meets it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from stand_ins.children import COMMAND, Child


def put(path: Path, *rows: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in rows))
    return path


def collection(where: Path) -> Path:
    put(
        where / "docs.jsonl",
        {"id": "cat", "lang": "eng", "text": "The cat sleeps all day."},
        {"id": "chat", "lang": "fra", "text": "Le chat dort toute la journée."},
    )
    put(
        where / "topics.jsonl",
        {"id": "t1", "text": "sleeping cat", "lang": "eng"},
        {"id": "t2", "text": "chat qui dort", "lang": "fra"},
    )
    put(where / "qrels.txt", "t1 0 cat 3", "t2 0 chat 1")
    return where


def meant_for(*langs: str) -> dict:
    wording = {"lang": "eng", "source": "original", "topic_title": "a cat", "topic_description": "any cat"}
    return {"topic_id": "t1", "languages_with_qrels": list(langs), "topics": [wording]}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return collection(tmp_path / "source")


@pytest.fixture(scope="module")
def spec(tiny_encoder) -> str:
    return f"hf:{tiny_encoder}?pooling=mean&dtype=float32"


@pytest.fixture(scope="module")
def index(tmp_path_factory, spec) -> Path:
    """An index of the collection, made once."""
    from crosslens.encoders import registry
    from crosslens.indexes.registry import create_index
    from crosslens.multilingual.collections.registry import load_collection

    where = tmp_path_factory.mktemp("bad-input")
    made = create_index(where / "index", lexical=False)
    made.add(load_collection(str(collection(where / "source"))).docs(), [registry.load_encoder(spec)])
    made.build("none")
    return where / "index"


# Arguments


def test_arguments_that_no_search_could_use(refused, source, index, tmp_path):
    search = ("search", index, "--mode", "dense")
    refused(*search, "cat", "-k", 10**12, parts=("k must be at most 1,000,000,000",))
    refused(*search, "cat", "-k", 0, parts=("k must be at least 1",))
    refused(*search, "caf\udce9", parts=("'query' is not valid Unicode", "character 4 of its text"))
    refused(*search, "cat", "--lang", "\udce9", parts=("unknown language",))
    refused(*search, "--image", "\udce9.png", parts=("there is no picture \\udce9.png",))
    refused("search", "\udce9", "cat", parts=("\\udce9",))
    refused(*search, "--image", tmp_path, parts=("a directory, not a regular file",))
    refused(
        *search,
        "cat",
        "--where",
        "modality=\udce9",
        parts=("the filter on 'modality': '\\udce9' is not valid Unicode",),
    )
    refused(*search, "cat", "--where", "caf\udce9=1", parts=("field to filter by 'caf\\udce9' is not valid Unicode",))
    refused("delete", index, "caf\udce9", parts=("the id 'caf\\udce9' is not valid Unicode",))
    refused("index", source, tmp_path / "\udce9", parts=("\\udce9' is not valid Unicode",))
    run = put(tmp_path / "some.trec", "t1 Q0 cat 1 1.0 x")
    for tag in ("a b", "", "caf\udce9"):  # before the work, which would be lost
        refused("run", index, "none", "-o", tmp_path / "y", "--tag", tag, parts=("run tag",))
        refused("rerank", run, "none", "--rerank", "x", "-o", tmp_path / "y", "--tag", tag, parts=("run tag",))
    for seed in (-5, 10**30 * -1):
        refused("evaluate", source / "qrels.txt", run, "--seed", seed, parts=("seed must be at least 0",))
    refused("search", index, "cat", "--system", "(" * 3000 + "dense" + ")" * 3000, parts=("more than 100 of",))


def test_files_nested_too_deep_or_with_endless_numbers(refused, source, tmp_path):
    run = put(tmp_path / "some.trec", "t1 Q0 cat 1 1.0 x")
    put(tmp_path / "some.trec.manifest.json", "[" * 100_000)
    refused("evaluate", source / "qrels.txt", run, parts=("some.trec.manifest.json is not a manifest",))
    for bad in ("k = " + "1" * 5000, "k = " + "[" * 5000, "[" + "a." * 5000 + "b]"):
        refused("experiment", put(tmp_path / "plan.toml", bad), "-o", tmp_path / "x", parts=("plan.toml: ",))
    refused(
        "export", put(tmp_path / "c" / "docs.jsonl", "[" * 100_000).parent, tmp_path / "y", parts=("docs.jsonl:1: ",)
    )


# Languages


@pytest.mark.parametrize("command", ["run", "export", "rerank"])
def test_topics_in_a_language_that_the_collection_lacks(refused, source, index, tmp_path, command):
    out = tmp_path / "out"
    run = put(tmp_path / "some.trec", "t1 Q0 cat 1 1.0 x")
    arguments: dict[str, tuple[object, ...]] = {
        "run": (index, source, "-o", out),
        "export": (source, out),
        "rerank": (run, source, "--rerank", "likelihood@hf:nowhere", "-o", out),
    }
    refused(command, *arguments[command], "--query-lang", "rus", parts=("no topics in rus, only in eng, fra",))
    assert not out.exists()
    refused(command, *arguments[command], "--query-lang", "xx-nope", parts=("xx-nope",))


def test_topics_that_are_meant_for_languages_that_no_document_is_in(refused, source, index, spec, tmp_path):
    put(source / "topics.jsonl", meant_for("zho", "rus"))
    put(source / "qrels.txt", "t1 0 cat 1")
    parts = ("the topics are meant for documents in rus, zho, but its documents are in eng, fra",)
    refused("index", source, tmp_path / "new", "--encoder", spec, parts=(str(source), *parts))
    assert not (tmp_path / "new").exists()
    refused("run", index, source, "-o", tmp_path / "out", "--mode", "dense", parts=(str(index), *parts))
    assert not (tmp_path / "out").exists()


def test_topics_of_which_some_are_meant_for_a_language_that_is_there_are_run(crosslens, source, index, tmp_path):
    put(source / "topics.jsonl", meant_for("zho", "fra"))
    status, _, err = crosslens("run", index, source, "-o", tmp_path / "out", "--mode", "dense")
    assert (status, err) == (0, "")


def test_documents_in_a_language_that_the_index_lacks(refused, crosslens, source, index, tmp_path):
    parts = (str(index), "no documents in rus, only in eng, fra")
    for asked in (["--lang", "rus"], ["--lang", "eng", "--lang", "Russian"], ["--where", "lang=rus"]):
        refused("search", index, "cat", "--mode", "dense", *asked, parts=parts)
        refused("run", index, source, "-o", tmp_path / "out", "--mode", "dense", *asked, parts=parts)
    assert not (tmp_path / "out").exists()
    status, out, _ = crosslens("search", index, "cat", "--mode", "dense", "--lang", "fra", "--json")
    assert (status, [hit["id"] for hit in json.loads(out)["hits"]]) == (0, ["chat"])


# Judgements


def test_judgements_of_documents_and_topics_that_the_collection_lacks(refused, source, spec, tmp_path):
    put(source / "qrels.txt", "t1 0 cat 1", *(f"t1 0 gone{n} 1" for n in range(12)))
    arguments = ("index", source, tmp_path / "new", "--encoder", spec)
    refused(*arguments, parts=("judge documents that it does not have: gone0, gone1, gone10, ... (12 in all)",))
    put(source / "qrels.txt", "t1 0 cat 1", *(f"t{n} 0 cat 1" for n in range(5, 10)))
    refused(*arguments, parts=("judge topics that it does not have: t5, t6, t7, ... (5 in all)",))
    assert not (tmp_path / "new").exists()


def test_judgements_that_the_collection_of_evaluate_does_not_know(refused, crosslens, source, tmp_path):
    run = put(tmp_path / "a.trec", "t1 Q0 cat 1 2.0 x", "t2 Q0 chat 1 1.0 x")
    qrels = put(tmp_path / "qrels", "t1 0 cat 1", *(f"t1 0 gone{n} 1" for n in range(12)))
    refused(
        "evaluate", qrels, run, "--langs", source,
        parts=("12 of 13 documents", str(source), "gone0, gone1, gone10, ... (12 in all)"),
    )  # fmt: skip
    # A document of the run alone shows as much: the run is of other documents.
    put(tmp_path / "a.trec", "t1 Q0 cat 1 2.0 x", "t1 Q0 elsewhere 2 1.0 x")
    refused("evaluate", source / "qrels.txt", run, "--langs", source, parts=("1 of 3 documents", "elsewhere"))
    put(tmp_path / "a.trec", "t1 Q0 cat 1 2.0 x", "t2 Q0 chat 1 1.0 x")
    status, out, err = crosslens("evaluate", source / "qrels.txt", run, "--langs", source, "--json")
    assert (status, err, json.loads(out)["per"]) == (0, "", "doc_lang")


# Runs


def test_a_run_deeper_than_the_tracks_allow_is_measured_with_a_warning(crosslens, source, tmp_path):
    lines = [f"t1 Q0 d{n} {n} {2000 - n} x" for n in range(1000)]
    run = put(tmp_path / "deep.trec", *lines, "t2 Q0 chat 1 1.0 x")
    status, out, _ = crosslens("evaluate", source / "qrels.txt", run)
    assert status == 0
    assert "more than 1,000" not in out
    put(run, *lines, "t1 Q0 cat 1001 1.0 x", "t2 Q0 chat 1 1.0 x")
    status, out, err = crosslens("evaluate", source / "qrels.txt", run)
    assert (status, err) == (0, "")
    assert "deep has more than 1,000 hits for 1 queries" in " ".join(out.split())
    status, out, _ = crosslens("evaluate", source / "qrels.txt", run, "--json")
    assert (status, json.loads(out)["systems"][0]["deep"]) == (0, ["t1"])


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("t1 Q0 chat", "not a run line `qid Q0 docid rank score tag`: 't1 Q0 chat'"),
        ("t1 Q0 chat 2 high x", "not a run line"),
        ("t1 Q0 chat 2 nan x", "the score is nan"),
        ("t1 Q0 cat 2 1.0 x", "document 'cat' occurs twice for query 't1'"),
    ],
)
def test_a_malformed_line_of_a_run_is_named_by_file_and_line(refused, source, tmp_path, line, said):
    run = put(tmp_path / "bad.trec", "t1 Q0 cat 1 2.0 x", "", line)
    refused("evaluate", source / "qrels.txt", run, parts=(f"{run}:3: ", said))
    refused(
        "rerank", run, source, "--rerank", "likelihood@hf:nowhere", "-o", tmp_path / "out",
        parts=(f"{run}:3: ", said),
    )  # fmt: skip


def test_a_malformed_line_of_judgements_is_named_by_file_and_line(refused, tmp_path):
    run = put(tmp_path / "a.trec", "t1 Q0 cat 1 2.0 x")
    qrels = put(tmp_path / "qrels", "t1 0 cat 1", "t1 0 chat high")
    refused("evaluate", qrels, run, parts=(f"{qrels}:2: not a qrels line `topic 0 doc grade`",))


def test_two_systems_of_one_name(refused, crosslens, source, tmp_path):
    run = put(tmp_path / "a.trec", "t1 Q0 cat 1 2.0 x")
    refused("evaluate", source / "qrels.txt", run, run, parts=(str(run), "given twice"))
    # Files of one name in two directories are two systems, told apart by their paths.
    other = put(tmp_path / "other" / "a.trec", "t2 Q0 chat 1 2.0 x")
    status, out, _ = crosslens("evaluate", source / "qrels.txt", run, other, "--json")
    assert (status, [system["name"] for system in json.loads(out)["systems"]]) == (0, [str(run), str(other)])


# Counts


def test_a_collection_of_another_size_than_was_published_names_both_numbers(refused, tmp_path, spec):
    where = tmp_path / "neuclir"
    put(where / "zho" / "docs.jsonl", {"id": "z1", "title": "t", "text": "x", "url": "u", "time": "2020"})
    put(where / "topics.0720.utf8.jsonl", meant_for("zho"))
    put(where / "2022-qrels.zho", "t1 0 z1 1")
    name = f"neuclir:{where}?year=2022&lang=zho"
    refused(
        "index", name, tmp_path / "new", "--encoder", spec,
        parts=("neuclir-2022-zho has 1 documents in zho, but 3,179,209 were published", "sample=true"),
    )  # fmt: skip
    put(where / "eclektic_main.jsonl")
    refused(
        "index", f"eclektic:{where}", tmp_path / "new", "--encoder", spec,
        parts=("eclektic has 0 questions, but 384 were published",),
    )  # fmt: skip
    assert not (tmp_path / "new").exists()


# What is no regular file


def make_odd(kind: str, path: Path) -> str:
    """Something else in place of a file; what the error line says of it."""
    path.unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(path)
        return "a pipe"
    if kind == "directory":
        path.mkdir()
        return "a directory"
    if kind == "socket":
        with socket.socket(socket.AF_UNIX) as opened:
            opened.bind(str(path))
        return "a socket"
    path.symlink_to(path.name)
    return "symbolic links"


@pytest.mark.parametrize("kind", ["pipe", "directory", "socket", "loop"])
def test_what_is_no_regular_file_is_refused_at_once(refused, source, index, tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)  # a socket's name is short
    run = put(Path("run"), "t1 Q0 cat 1 1.0 x")
    odd = Path("odd")
    said = make_odd(kind, odd)
    refused("evaluate", odd, run, parts=("odd", said))
    refused("evaluate", source / "qrels.txt", odd, parts=("odd", said))
    refused("rerank", odd, source, "--rerank", "likelihood@hf:nowhere", "-o", "out", parts=("odd", said))
    make_odd(kind, Path("odd.toml"))
    refused("experiment", "odd.toml", parts=("odd.toml", said))
    refused("rerank", run, source, "--rerank", "odd.toml@hf:nowhere", "-o", "out", parts=("odd.toml", said))
    refused("search", index, "--image", odd, parts=("odd",))
    for name in ("docs.jsonl", "topics.jsonl", "qrels.txt"):
        make_odd(kind, Path("moved"))
        kept = (source / name).rename(source / "kept")
        Path("moved").rename(source / name) if kind != "loop" else (source / name).symlink_to(name)
        refused("index", source, "new", parts=(name, said))
        (source / name).rmdir() if kind == "directory" else (source / name).unlink()
        kept.rename(source / name)
    assert not Path("out").exists()


# Standard output


def test_a_run_written_to_standard_output_is_alone_there(source, index):
    made = Child(COMMAND, "run", index, source, "-o", "/dev/stdout", "--mode", "dense")
    written, said = made.communicate()
    assert made.returncode == 0, said
    assert {line.split()[1] for line in written.splitlines()} == {"Q0"}
    assert "hits for 2 topics" in said


def test_closed_standard_output_is_no_traceback():
    program = [sys.executable, "-c", COMMAND, "--version"]
    done = subprocess.run(program, capture_output=True, text=True, check=False, preexec_fn=lambda: os.close(1))
    assert "Traceback" not in done.stderr
