"""benchmarks/gpu.py: its CPU run is green, with packages missing too; what hangs or dies is a row, and the rest goes on."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
MODULES = (
    "gpu",
    "gpu_checks",
    "gpu_speed",
    "gpu_models",
    "measurements",
    "encode",
    "rerank_loop",
    "training_speed",
    "images",
)
APART = {"share"}  # starts processes of its own: `Workers` have tests of theirs


@pytest.fixture
def gpu(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    monkeypatch.delitem(sys.modules, "gpu", raising=False)  # a checkout in a folder of this name
    yield importlib.import_module("gpu")
    for name in MODULES:
        sys.modules.pop(name, None)


def test_all_of_it_runs_on_a_cpu(gpu, tmp_path, capsys):
    place = importlib.import_module("gpu_models").Place("cpu", True, tmp_path)
    rows = [gpu.run_task(name, place) for name in gpu.TASKS if name not in APART]
    assert {row["check"]: row["found"] for row in rows if row["state"] != "kept"} == {}
    assert not any(row.get("fresh") for row in rows)
    gpu.report(gpu.parse_arguments(["--quick", "--save", str(tmp_path / "gpu.json")]), rows)
    printed = capsys.readouterr()
    assert len(json.loads(printed.out.splitlines()[-1])["rows"]) == len(rows)
    assert "| encode | kept |" in printed.err
    kept = json.loads((tmp_path / "gpu.json").read_text())
    assert kept["tables"][0]["columns"] == ["check", "state", "found", "s"]
    assert kept["notes"][0].startswith("No GPU; python 3")


def test_what_is_not_installed_is_named(gpu, tmp_path, monkeypatch):
    for name in ("open_clip", "sentence_transformers"):
        monkeypatch.setitem(sys.modules, name, None)
    place = importlib.import_module("gpu_models").Place("cpu", True, tmp_path)
    rows = [gpu.run_task(name, place) for name in ("clip", "pictures", "encode")]
    assert [row["state"] for row in rows] == ["not run"] * 3
    assert rows[0]["found"] == "open_clip_torch is not installed here"


WORKER = """
import json, os, sys, time
print(json.dumps({"ready": True}), flush=True)
for name in sys.argv[1:]:
    if name == "llm":
        time.sleep(60)
    if name == "clip":
        sys.exit("CUDA error: an illegal memory access")
    print(json.dumps({"check": name, "state": "kept", "found": "", "seconds": 0.1, "fresh": name == "text"}), flush=True)
"""


def test_what_hangs_or_dies_is_a_row_and_the_rest_goes_on(gpu, tmp_path, monkeypatch):
    started = []
    popen = gpu.subprocess.Popen

    def fake(command, **options):
        names = command[command.index("--only") + 1 :]
        started.append(names[0])
        return popen([sys.executable, "-c", WORKER, *names], **options)

    monkeypatch.setattr(gpu.subprocess, "Popen", fake)
    monkeypatch.setitem(gpu.TASKS, "llm", gpu.Task("", 1.0))
    options = gpu.parse_arguments(["--only", "text", "llm", "clip", "vlm"])
    rows = {row["check"]: row for row in gpu.run_tasks(options, tmp_path, tmp_path / "log")}
    assert {name: row["state"] for name, row in rows.items()} == {"text": "kept", "llm": "broken", "clip": "broken", "vlm": "kept"}  # fmt: skip
    assert started == ["text", "llm", "clip", "vlm"]  # a process each: each before was not to be relied on
    assert rows["llm"]["found"] == "not done after 1 s: killed"
    assert rows["clip"]["found"] == "its process ended with 1: CUDA error: an illegal memory access"
    options.minutes = 0.0
    assert [row["state"] for row in gpu.run_tasks(options, tmp_path, tmp_path / "log")] == ["not run"] * 4


def test_a_process_that_cannot_start_is_no_success_and_a_file_that_cannot_be_written_is_found_first(
    gpu, tmp_path, monkeypatch, capsys
):
    popen = gpu.subprocess.Popen
    monkeypatch.setattr(gpu.subprocess, "Popen", lambda command, **how: popen(["sh", "-c", "echo no torch >&2"], **how))
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--only", "card", "nan"])
    assert gpu.main() == 1
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [row["found"] for row in rows] == ["the process did not start: no torch"] * 2
    for option in ("--lines", "--log", "--save"):
        with pytest.raises(SystemExit, match="2"):
            gpu.parse_arguments([option, str(tmp_path / "none/file")])
        assert f"cannot write {tmp_path / 'none/file'}" in capsys.readouterr().err
