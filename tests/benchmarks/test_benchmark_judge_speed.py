"""benchmarks/judge_speed.py: rates and agreement of judges, over the queries that all of them have ranked."""

from __future__ import annotations

import importlib
import sys
from argparse import Namespace
from pathlib import Path

import pytest


def line(judge, query, seconds, order):
    counts = {"calls": 4, "prompt_tokens": 400, "without_logprobs": 0}
    return {"judge": judge, "method": "yesno", "query": query, "seconds": seconds, "order": list(order), **counts}


@pytest.fixture
def judge_speed(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    yield importlib.import_module("judge_speed")
    for name in ("judge_speed", "kept_lines", "llama_process", "measurements", "rerank_task"):
        sys.modules.pop(name, None)


def test_judges_are_held_against_the_first_on_what_all_have_ranked(judge_speed):
    judges = ["m?dtype=bfloat16", "m?dtype=int8"]
    lines = [
        line(judges[0], "1", 2.0, "abcd"),
        line(judges[1], "1", 1.0, "abcd"),
        line(judges[1], "2", 1.0, "abdc"),
        line(judges[0], "2", 2.0, "abcd"),
        line(judges[0], "3", 9.0, "abcd"),  # the run ended here
    ]
    report = judge_speed.summed(judges, lines, Namespace(methods=["yesno", "setwise"], depth=4, seed=0))
    assert list(report["methods"]) == ["yesno"]
    assert report["methods"]["yesno"]["queries"] == 2
    ours = report["methods"]["yesno"]["judges"][judges[1]]
    assert (ours["asked_per_second"], ours["tokens_per_second"], ours["ratio"]) == (4.0, 400.0, 2.0)
    assert ours["tau"] == pytest.approx((1 + 2 / 3) / 2, abs=1e-3)
    assert report["meets"] == {f"yesno: {judges[1]}": False}
    assert len(judge_speed.tabled(report).rows) == 2
