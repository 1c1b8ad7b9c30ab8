"""benchmarks/generate_speed.py: what is measured of a tiny judge, kept, summed and not measured again."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import pytest


@pytest.fixture
def generate_speed(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    yield importlib.import_module("generate_speed")
    for name in ("generate_speed", "kept_lines", "measurements"):
        sys.modules.pop(name, None)


def test_all_ways_write_the_same_and_what_is_kept_is_not_written_again(
    generate_speed, tiny_judge, tmp_path, monkeypatch, capsys
):
    docs = [{"id": str(n), "text": f"Passage {n} says that cats sleep all day. " * 9, "lang": "eng"} for n in range(60)]
    (tmp_path / "docs.jsonl").write_text("".join(json.dumps(each) + "\n" for each in docs))
    (tmp_path / "topics.jsonl").write_text('{"id": "q", "text": "cats", "lang": "eng"}\n')
    (tmp_path / "qrels.txt").write_text("q 0 1 1\n")
    out = tmp_path / "out.jsonl"
    given = ["--collection", str(tmp_path), "--prompts", "8", "--tokens", "3", "--alone", "4", "--out", str(out)]
    monkeypatch.setattr(sys, "argv", ["generate_speed.py", "--judge", f"hf:{tiny_judge}?dtype=float32", *given])
    assert generate_speed.main() == 0
    report = json.loads(capsys.readouterr().out)
    (tasks,) = report["judges"].values()
    assert {task: set(ways) for task, ways in tasks.items()} == {
        "greedy": {"ours", "batches", "alone"}, "samples": {"ours", "batches"},
    }  # fmt: skip
    assert {each["as_alone"] for each in tasks["greedy"].values()} == {1.0}
    assert tasks["greedy"]["alone"]["prompts"] == 4
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    texts = [line["texts"] for line in lines if line["task"] == "samples"]
    assert texts[0] == texts[1]
    monkeypatch.setattr(generate_speed, "load_judge", None)  # nothing is left to do
    assert generate_speed.main() == 0
    assert json.loads(capsys.readouterr().out) == report
    assert len(out.read_text().splitlines()) == len(lines)
    with out.open("a") as file:
        file.write('{"judge": "hf')  # a kill
    generate_speed.append_line(out, lines[0])
    assert generate_speed.read_lines(out) == [*lines, lines[0]]


def test_how_much_of_two_texts_is_the_same(generate_speed):
    assert generate_speed.share_beginning("abcd", "abxd") == 0.5
    assert generate_speed.share_beginning("", "") == 1
