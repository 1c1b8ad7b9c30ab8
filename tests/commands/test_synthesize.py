"""`crosslens synthesize`: one object of JSON, one line for a mistake, and a kill at any moment costs a window of work."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

import pytest
from crosslens.multilingual.collections.digest import digest_files
from crosslens.multilingual.collections.registry import load_collection
from stand_ins.children import COMMAND, Child
from stand_ins.query_writer import make_documents, write_collection
from stand_ins.table import table

WRITER = "inpars@py:stand_ins.query_writer:QueryWriter?n=2"
TESTS = Path(__file__).parents[1]


@pytest.fixture
def source(tmp_path):
    return write_collection(tmp_path / "source", make_documents(48))


def test_one_object_and_notes(crosslens, source, tmp_path):
    status, out, err = crosslens("synthesize", source, "--with", WRITER, "-o", tmp_path / "made", "--json")
    made = json.loads(out)
    assert (status, err) == (0, "")
    assert made["queries"]["kept"] == made["grades"]["1"] > 20
    assert made["cost"]["usage"] == {"calls": 96, "generated_tokens": 288}
    assert json.loads((tmp_path / "made" / "card.json").read_text())["queries"] == made["queries"]
    files = digest_files(load_collection(source), str(source))  # by which a rerun knows that it need not read them
    assert json.loads((tmp_path / "made" / "read.json").read_text()) == {"files": files}
    status, out, err = crosslens(
        "synthesize",
        source,
        "--with",
        WRITER,
        "-o",
        tmp_path / "swa",
        "--langs",
        "swa",
        "--documents",
        "6",
        "--balance",
    )
    assert "for 0 of 6 documents, by inpars@writer" in out
    assert "left out of 12 drafts: language 12" in out
    assert "12 requests are in English: the prompt has no words in swa" in err
    assert "no query was kept" in err


def test_a_source_that_finds_nothing_is_said_not_to(crosslens, tmp_path):
    plain = tmp_path / "plain"
    plain.mkdir()
    (plain / "docs.jsonl").write_text('{"id": "d", "text": "No link leads here.", "lang": "eng"}\n')
    status, out, err = crosslens("synthesize", plain, "--with", "anchors", "-o", tmp_path / "made")
    assert (status, "0 queries for 0 of 1 documents" in out) == (0, True)
    assert "anchors found nothing to make a query of in these documents" in err
    assert "dropped" not in err


@table(
    ("arguments", "part"),
    [
        (("--with", "nothing@hf:x"), "unknown prompt 'nothing'"),
        (("--with", "title"), "unknown source of pairs 'title'; did you mean titles?"),
        (("--with", f"{WRITER}&chats=false"), "has no chat template, and the prompt inpars needs one"),
        (("--with", "titles", "--lang", "deu"), "has no documents in deu, only in eng, rus, fra"),
        (("--with", "titles", "--lang", "xx"), "unknown language 'xx'"),
        (("--with", "titles", "--langs", "eng=0"), "the weight of eng in --langs 'eng=0' must be a number above 0"),
        (("--with", "titles", "--documents", "0"), "documents must be at least 1, not 0"),
        (("--with", "titles", "--balance"), "say of how many documents (--documents)"),
        (("--with", "titles", "--round-trip", "0"), "round_trip must be at least 1, not 0"),
        (("--with", "titles", "--index", "nowhere"), "nowhere"),
        (("--with", "titles", "--threshold", "1"), "a threshold is for the score of a judge"),
        (
            ("--with", "titles", "--judge", "yesno@hf:x", "--threshold", "nan"),
            "a threshold is a finite number, not nan",
        ),
        (("--with", "translations?by=vectors&margin=nan"), "margin must be a finite number, not nan"),
        (("--with", "titles", "--judge", "setwise@hf:x"), "the prompt setwise compares passages"),
        (("--with", "titles", "--judge", "yesno@hf:x?depth=5"), "'depth'"),
        (("--with", "titles", "--judge", "likelihood@hf:x"), "scores by a likelihood: say from which --threshold"),
        (("--with", "titles", "--judge", "graded@hf:x"), "scores by an expected grade: say from which --threshold"),
        (("--with", "titles", "--write", "none"), "unknown choice of documents to write 'none'"),
        (("--with", "titles", "--most-copied", "1.5"), "from 0 to 1, not 1.5"),
        (("--with", "titles", "--held-out", "nowhere"), "nowhere"),
        (("--with", "titles", "-o", "nowhere/made"), "there is no directory nowhere to make made in"),
        (("--with", "titles", "-o", "source"), "source is there already, and was made otherwise"),
    ],
)
def test_a_mistake_is_said_in_one_line_and_leaves_nothing(refused, source, monkeypatch, arguments, part):
    monkeypatch.chdir(source.parent)
    output = () if "-o" in arguments else ("-o", "made")
    refused("synthesize", source, *arguments, *output, parts=(part,))
    assert [path.name for path in source.parent.iterdir()] == ["source"]


def test_an_empty_collection_and_a_second_process(refused, source, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "docs.jsonl").touch()
    out = ("-o", tmp_path / "made")
    refused("synthesize", tmp_path / "empty", "--with", "titles", *out, parts=("empty has no documents",))
    from crosslens.files import lock_directory

    (tmp_path / ".made.partial").mkdir(exist_ok=True)
    with lock_directory(tmp_path / ".made.partial"):
        refused("synthesize", source, "--with", "titles", *out, parts=("another process is writing",))


def test_a_context_too_short_is_said(refused, source, tmp_path, tiny_judge):
    spec = f"inpars@hf:{tiny_judge}?chat=never&max_new_tokens=500000"
    refused("synthesize", source, "--with", spec, "-o", tmp_path / "made", parts=("context is too short",))


def test_killed_it_goes_on_to_the_same_end(crosslens, source, tmp_path):
    """Killed when two windows of answers are kept; the model pauses, so that it is at work then."""
    slow = """
import time
from stand_ins.query_writer import QueryWriter

class Slow(QueryWriter):
    def compute_completions(self, prompts, sampling):
        time.sleep(0.2)
        return super().compute_completions(prompts, sampling)
"""
    (tmp_path / "slow_writer.py").write_text(slow)
    spec = "inpars@py:slow_writer:Slow?n=2"
    arguments = ["synthesize", str(source), "-o", str(tmp_path / "made"), "--with"]
    process = Child(f"import sys; sys.path.insert(0, {str(tmp_path)!r}); {COMMAND}", *arguments, spec)
    journal = tmp_path / ".made.partial" / "answers.journal"
    deadline = time.monotonic() + 120
    while not (journal.exists() and journal.read_bytes().count(b"\n") >= 2):
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "made").exists()
    kept = journal.read_bytes().count(b"\n")
    assert 2 <= kept < 6
    status, out, _ = crosslens(*arguments, WRITER, "--json")
    assert status == 0
    assert json.loads(out)["cost"]["usage"]["calls"] == 96
    assert crosslens("synthesize", source, "--with", WRITER, "-o", tmp_path / "whole")[0] == 0
    for name in ("docs.jsonl", "topics.jsonl", "qrels.txt", "card.json"):
        assert (tmp_path / "made" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert not (tmp_path / ".made.partial").exists()
