"""`benchmarks/measurements.py`: what scripts keep of their figures, and the tables of it on pages."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import pytest
from crosslens import Run, evaluate

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def measurements(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield importlib.import_module("measurements")
    sys.modules.pop("measurements", None)


def test_a_saved_file_says_how_it_came_to_be(measurements, tmp_path, monkeypatch):
    path = tmp_path / "speed.json"
    script = str(BENCHMARKS / "index.py")
    monkeypatch.setattr(sys, "argv", [script, "--rows", "4000", "--save", str(path), "--dim=8"])
    table = measurements.Table(("", "q/s"), [["flat", "12.5"], ["lance", "-"]], "Speed")
    measurements.save(path, {"rows": 4000}, [table], ["Beside other work."])
    record = json.loads(path.read_text("utf-8"))
    assert record["command"] == "python benchmarks/index.py --rows 4000 --dim=8"
    assert record["figures"] == {"rows": 4000}
    assert {"commit", "date", "cpu", "versions"} <= record.keys()
    page = "Before.\n<!-- measured: speed -->\nold\n<!-- end -->\nAfter.\n"
    shown = measurements.update_page(page, tmp_path)
    assert shown.startswith(
        "Before.\n<!-- measured: speed -->\n\n**Speed**\n\n|  | q/s |\n| --- | ---: |\n| flat | 12.5 |\n"
    )
    assert "Beside other work." in shown
    assert f"`{record['command']}`, measured at commit {record['commit'][:7]}" in shown
    assert shown.endswith("<!-- end -->\nAfter.\n")
    assert measurements.update_page(shown, tmp_path) == shown


def test_without_a_path_nothing_is_written(measurements, tmp_path):
    measurements.save(None, {}, [])
    assert not list(tmp_path.iterdir())


def test_transcribed_figures_say_so(measurements):
    record = {"command": "python x.py", "commit": "0123456789", "date": "2026-01-01", "cpu": "EPYC", "tables": []}
    assert "transcribed" in measurements.render({**record, "transcribed": True})
    assert "transcribed" not in measurements.render(record)


def test_an_evaluation_becomes_a_table_with_corrected_p_values(measurements):
    qrels = {f"q{n}": {"d": 1} for n in range(6)}
    first = Run.of([]).ranking({f"q{n}": [("x", 2.0), ("d", 1.0)] for n in range(6)})
    second = Run.of([]).ranking({f"q{n}": [("d", 2.0)] if n else [("x", 1.0)] for n in range(6)})
    report = evaluate({"first": first, "second": second}, qrels, ["RR"], baseline="first").to_json()
    table = measurements.tabulate(report, [("RR", "all")], p=True, title="T")
    assert table.columns == ["system", "RR, all (6)", "p"]
    assert table.rows[0] == ["first", "0.500", ""]
    corrected = report["systems"][1]["against_baseline"]["RR"]["corrected"]
    assert table.rows[1] == ["second", "0.833", measurements.show_p(corrected)]
    assert measurements.show_p(0.0004) == "<0.001"
