"""`benchmarks/sorters.py`: one JSON object, tables for pages, and a plot."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def benchmark(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    monkeypatch.delitem(
        sys.modules, "sorters", raising=False
    )  # pytest's name of a checkout in a folder that is so called
    yield importlib.import_module("sorters")
    for name in ("measurements", "rerank_show"):
        sys.modules.pop(name, None)


def test_it_reports_each_sorter_under_each_judge(benchmark, tmp_path, capsys):
    plot = tmp_path / "sorters.svg"
    grid = ["--candidates", "16", "--sizes", "4", "--temperatures", "0,1", "--preferences", "0"]
    assert benchmark.main([*grid, "--queries", "1", "--json", "--plot", str(plot)]) == 0
    report = json.loads(capsys.readouterr().out)
    exact, noisy = report["settings"][:2]
    assert (exact["candidates"], exact["temperature"], noisy["temperature"]) == (16, 0, 1)
    # A judge without noise: whatever asks until it is certain finds the same order, and the one that is best.
    found = exact["sorters"]
    for name in ("pointwise", "plackett", "plackett, best only", "heapsort", "tournament, both orders"):
        assert found[name]["nDCG@10"] == found["bubblesort"]["nDCG@10"] > found["first stage"]["nDCG@10"]
        assert found[name]["top1"] == 1
    assert exact["names_the_best_of_four"] == 1
    assert found["heapsort, both orders"]["calls"] == 2 * found["heapsort"]["calls"]
    assert found["plackett, 8 calls"]["calls"] == 8
    assert noisy["sorters"]["heapsort"]["nDCG@10"] < found["heapsort"]["nDCG@10"]
    assert set(noisy["plackett_at_equal_calls"]) == {"heapsort", "bubblesort", "tournament"}
    (shown,) = benchmark.for_pages(report["settings"])
    assert shown.title == "16 candidates, sets of 4"
    assert {"plackett", "plackett less heapsort, at equal calls"} < {row[0] for row in shown.rows}
    assert plot.read_text().startswith("<?xml")
