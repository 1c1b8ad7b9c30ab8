"""`crosslens convert`: scores, languages and formats from the command line, resumed after a stop, mistakes in a line."""

from __future__ import annotations

import json

import pytest
from crosslens.training.data.convert import Conversion
from crosslens.training.data.examples import load_examples, read_examples
from stand_ins.grader import DOCUMENTS, GRADER, Grader, write_ranked
from stand_ins.small_collections import put
from stand_ins.table import table


@pytest.fixture
def mined(crosslens, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pages, run = write_ranked(tmp_path / "pages", 5)
    assert crosslens("mine", pages, run, "-o", "mined.jsonl", "--last", "10", "--negatives", "3")[0] == 0
    return tmp_path / "mined.jsonl"


def test_teachers_and_recipes_are_added_and_the_card_says_so(crosslens, mined):
    arguments = (
        "--score",
        GRADER,
        "--recipe",
        "translate-distill?to=rus",
        "--parallel",
        "pages",
        "--by",
        "id",
        "--json",
    )
    status, out, err = crosslens("convert", "mined.jsonl", "-o", "rus.jsonl", *arguments)
    assert (status, err) == (0, "")
    made = json.loads(out)
    assert made["pairs"] == {"eng-rus": 5}
    assert made["source"]["languages"]["paper"] == "Yang et al. 2024, arXiv:2401.04810"
    assert made["source"]["score"]["spec"] == GRADER
    assert made["source"]["mined"]["negatives"] == 3
    for before, after in zip(read_examples(mined), read_examples("rus.jsonl"), strict=True):
        # What the teacher saw is what was mined: eng/good, whose translation is rus/good.
        assert [each.id for each in before.positives] == ["eng/good", "rus/good"]
        assert [each.id for each in after.positives] == ["rus/good"]
        assert after.scores[0] == pytest.approx(DOCUMENTS["eng/good"][2])
    assert load_examples("rus.jsonl").judged == "pages"


def test_formats_out_and_in(crosslens, mined):
    for name in ("tevatron", "sentence-transformers?negatives=2"):
        status, out, err = crosslens("convert", "mined.jsonl", "-o", "out.jsonl", "--format", name)
        assert (status, err) == (0, "")
        assert "5 examples in" in out
        assert crosslens("convert", "out.jsonl", "-o", "back.jsonl")[0] == 0
        assert load_examples("back.jsonl").card["source"]["format"] == name.partition("?")[0]
    status, _, err = crosslens("convert", "pages", "-o", "pages.jsonl", "--format", "mteb")
    assert (status, len((mined.parent / "pages.jsonl").read_text().splitlines())) == (0, 5)


def test_stopped_it_asks_only_what_is_left(mined, tmp_path, monkeypatch):
    monkeypatch.setattr("crosslens.training.data.convert.WINDOW", 2)
    monkeypatch.setattr(Grader, "asked", 0)
    conversion = Conversion(score=GRADER)
    whole = conversion.run(load_examples(mined), tmp_path / "whole.jsonl")
    calls, before = Grader.asked, (tmp_path / "whole.jsonl").read_bytes()
    monkeypatch.setattr(Grader, "asked", 0)
    monkeypatch.setattr(Grader, "most", 3)
    with pytest.raises(KeyboardInterrupt):
        conversion.run(load_examples(mined), tmp_path / "again.jsonl")
    assert not (tmp_path / "again.jsonl").exists()
    monkeypatch.setattr(Grader, "most", 10**6)
    again = conversion.run(load_examples(mined), tmp_path / "again.jsonl")
    assert (tmp_path / "again.jsonl").read_bytes() == before
    assert (Grader.asked, again.card) == (calls, whole.card)
    assert again.cost["calls"] == whole.cost["calls"] == calls


@table(
    ("arguments", "part"),
    [
        (("--format", "csv"), "unknown format of examples 'csv'"),
        (("--score", "setwise@hf:x"), "the prompt setwise compares passages"),
        (("--recipe", "mtt?to=rus,fra"), "needs the documents in other languages: name a collection by --parallel"),
        (("--by", "id"), "parallel documents are for a recipe: add --recipe"),
        (("--recipe", "mtd?to=rus,fra", "--parallel", "pages", "--by", "id"), "has no scores, from which mtd learns"),
        (("--recipe", "translate-train?to=deu", "--parallel", "pages", "--by", "id"), "has a translation in deu"),
        (("-o", "nowhere/out.jsonl"), "there is no directory nowhere to write out.jsonl in"),
        (("--format", "sentence-transformers?negatives=9"), "no example becomes a line of out.jsonl"),
    ],
)
def test_a_mistake_is_said_in_one_line_and_leaves_nothing(refused, mined, arguments, part):
    before = sorted(mined.parent.iterdir())
    output = () if "-o" in arguments else ("-o", "out.jsonl")
    refused("convert", "mined.jsonl", *arguments, *output, parts=(part,))
    assert sorted(mined.parent.iterdir()) == before


def test_data_that_is_none_is_said(refused, mined):
    put(mined.parent / "docs.jsonl", {"id": "d", "text": "x"})
    refused("convert", "docs.jsonl", "-o", "out.jsonl", parts=("docs.jsonl:1: no training data that is known",))
    refused("convert", "nothing.jsonl", "-o", "out.jsonl", parts=("cannot read nothing.jsonl",))
    (mined.parent / "test.jsonl").write_bytes(mined.read_bytes())
    refused("convert", "test.jsonl", "-o", "out.jsonl", parts=("test.jsonl is a test set by its name",))
