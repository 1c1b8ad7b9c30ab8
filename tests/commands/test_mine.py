"""`crosslens mine`: one object of JSON, notes on stderr, and one line for a mistake that leaves nothing."""

from __future__ import annotations

import json

import pytest
from stand_ins.grader import GRADER, write_ranked
from stand_ins.table import table


@pytest.fixture
def pages(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return write_ranked(tmp_path / "pages")[0]


def test_one_object_and_notes(crosslens, pages):
    status, out, err = crosslens(
        "mine", pages, pages / "run.trec", "-o", "mined.jsonl.gz", "--last", "10", "--score", GRADER, "--json"
    )
    made = json.loads(out)
    assert (status, err) == (0, "")
    card = json.loads((pages.parent / "mined.jsonl.gz.card.json").read_text())
    assert {key: made[key] for key in card} == card
    assert (made["examples"], made["scored"], made["source"]["counts"]["fewer_negatives"]) == (3, 3, 3)
    status, out, err = crosslens("mine", pages, pages / "run.trec", "-o", "mined.jsonl.gz", "--last", "10")
    assert "3 examples, 6 positives, 18 hard negatives, 0 scored" in out
    assert "left out: margin 6" in out
    assert "3 examples have fewer negatives than asked" in err


@table(
    ("arguments", "part"),
    [
        (("--last", "3"), "ranks 1 to 3 cannot give 7 negatives"),
        (("--first", "0"), "first must be at least 1, not 0"),
        (("--margin", "1.5"), "a margin is a share of the positive's score from 0 to 1"),
        (("--sampling", "best"), "unknown way of sampling negatives 'best'"),
        (("--same-language", "2"), "from 0 to 1, or any, not '2'"),
        (("--threshold", "0"), "a threshold is for the score of a judge"),
        (("--judge", "setwise@hf:x"), "--judge setwise@hf:x: the prompt setwise compares passages"),
        (("--score", "setwise@hf:x"), "--score setwise@hf:x: the prompt setwise compares passages"),
        (("--judge", "likelihood@py:stand_ins.grader:Grader"), "grader"),
        (("--held-out", "nowhere"), "nowhere"),
        (("--held-out", "pages"), "3 queries are topics of the held-out pages"),
        (("-o", "nowhere/mined.jsonl"), "there is no directory nowhere to write mined.jsonl in"),
        (("--system", "dense"), "is a run, which no --system is needed for"),
        (("--query-lang", "fra"), "no topics in fra"),
    ],
)
def test_a_mistake_is_said_in_one_line_and_leaves_nothing(refused, pages, arguments, part):
    output = () if "-o" in arguments else ("-o", "mined.jsonl")
    refused("mine", "pages", "pages/run.trec", *arguments, *output, parts=(part,))
    assert [path.name for path in pages.parent.iterdir()] == ["pages"]


@pytest.mark.parametrize(
    ("name", "content", "part"),
    [
        ("qrels.txt", None, "has no qrels.txt: without judgements there is nothing to train on"),
        ("qrels.txt", "q0 0 eng/good 0\n", "has a document of a grade above 0: nothing to train on"),
        ("run.trec", "x Q0 eng/good 1 1 x\n", "have no query in common"),
        ("run.trec", "q0 Q0 strange 1 1 x\n", "1 of 1 documents of the run are not in the collection pages: strange"),
    ],
)
def test_what_is_wrong_with_the_data_is_said(refused, pages, name, content, part):
    (pages / name).unlink() if content is None else (pages / name).write_text(content)
    refused("mine", "pages", "pages/run.trec", "-o", "mined.jsonl", parts=(part,))
    assert [path.name for path in pages.parent.iterdir()] == ["pages"]


def test_a_test_set_is_refused(refused, crosslens, pages):
    pages.rename("test")
    refused("mine", "test", "test/run.trec", "-o", "mined.jsonl", parts=("test is a test set by its name", "--force"))
    assert crosslens("mine", "test", "test/run.trec", "-o", "mined.jsonl", "--force")[0] == 0
