"""`benchmarks/run_all.py` and `regressions.py`: what is run again, and which figures count as worse."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
XEON = "Intel Xeon, 2 cores, 1 thread, AMX, AVX512-BF16"
SCRIPT = """
import json, sys, time
given = json.loads({given!r})
time.sleep(given.get("sleep", 0))
if "cpu" in given:
    open(sys.argv[sys.argv.index("--save") + 1], "w").write(json.dumps(given))
    print(sys.argv[1:])
else:
    sys.exit("no such model")
"""


@pytest.fixture
def compare(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield importlib.import_module("regressions").compare
    sys.modules.pop("regressions", None)


def record(columns, rows, *, cpu=XEON, title="", **more):
    tables = [{"columns": columns, "rows": rows, "title": title, **more}]
    return {"cpu": cpu, "tables": tables, "date": "2026-11-01", "commit": "0" * 40}


def names(changes):
    return [(each.row, each.column) for each in changes]


def test_quality_by_difference_that_few_questions_may_have(compare):
    columns = ["system", "nDCG@20, all (405)", "p", "nDCG@20, zho (20)"]
    was = record(columns, [["dense", "0.500", "", "0.500"], ["hybrid", "0.500", "0.010", "0.500"]])
    now = record(columns, [["dense", "0.496", "", "0.520"], ["hybrid", "0.493", "0.900", "0.474"]])
    found = compare("x", was, now)
    assert names(found.worse) == [("hybrid", "nDCG@20, all (405)"), ("hybrid", "nDCG@20, zho (20)")]
    assert (found.same, found.better, found.not_compared) == (2, [], [])


def test_speed_only_against_the_peer_and_between_equal_units(compare):
    columns = ["", "texts/s", "ratio"]
    was = record(columns, [["sentence-transformers", "10", ""], ["ours", "60", "6.0"], ["int8", "30", "3.0"]])
    now = record(columns, [["sentence-transformers", "20", ""], ["ours", "80", "4.0"], ["int8", "56", "2.8"]])
    found = compare("x", was, now)
    assert names(found.worse) == [("ours", "texts/s, times sentence-transformers"), ("ours", "ratio")]
    assert found.same == 2
    elsewhere = compare("x", was, {**now, "cpu": "AMD EPYC, 2 cores"})
    assert not elsewhere.worse
    assert not elsewhere.same
    assert len(elsewhere.not_compared) == 2
    assert names(compare("startup", was, {**now, "cpu": "AMD EPYC, 2 cores"}).worse) == names(found.worse)


def test_seconds_are_turned_round_and_need_a_peer(compare):
    columns = ["index", "clients", "p50 ms"]
    was = record(columns, [["a", "1", "10"], ["a", "8", "20"]])
    assert compare("x", was, was).not_compared == ["index | clients / p50 ms: no peer in the table"]
    was = record(["way", "build s"], [["faiss IndexFlatIP", "1"], ["ours", "2"]])
    now = record(["way", "build s"], [["faiss IndexFlatIP", "2"], ["ours", "8"]])
    assert names(compare("x", was, now).worse) == [("ours", "build s, times faiss IndexFlatIP")]
    assert names(compare("x", now, was).better) == [("ours", "build s, times faiss IndexFlatIP")]


def test_counts_of_failures_memory_and_verdicts(compare):
    columns = ["check", "state", "lost", "peak MB"]
    was = record(columns, [["one", "kept", "0", "1,000"], ["two", "broken", "0 of 9", "1,000"]])
    now = record(columns, [["one", "broken", "0", "1,090"], ["two", "kept", "1 of 9", "1,110"]])
    found = compare("x", was, now)
    assert names(found.worse) == [("one", "state"), ("two", "lost"), ("two", "peak MB")]
    assert names(found.better) == [("two", "state")]


def test_what_no_rule_knows_is_said_unless_the_table_marks_it(compare):
    was = record(["sorter", "T 0"], [["bubble", "0.900"], ["heap", "0.900"]], title="100")
    now = record(["sorter", "T 0"], [["bubble", "0.800"]], title="100")
    found = compare("x", was, now)
    assert not found.worse
    assert found.not_compared == ["100: 1 of 2 rows are not there now", "100 / T 0: no rule says which is better"]
    assert names(
        compare(
            "x", was, record(["sorter", "T 0"], now["tables"][0]["rows"], title="100", better={"T 0": "higher"})
        ).worse
    )
    assert compare("x", was, record(["sorter"], [["bubble"]], title="60")).not_compared == ["100: no such table now"]


def run_all(folder, *arguments):
    done = subprocess.run(
        [sys.executable, BENCHMARKS / "run_all.py", "--files", folder, *arguments], capture_output=True, text=True
    )
    return done.returncode, json.loads(done.stdout), done.stderr


def test_files_are_made_again_compared_and_renewed(tmp_path):
    data, files = tmp_path / "data", tmp_path / "measured"
    (data / "help/dev").mkdir(parents=True)
    files.mkdir()

    def keep(name, made, was, arguments="", **more):
        script = tmp_path / f"{name}.py"
        script.write_text(SCRIPT.format(given=json.dumps(made)))
        (files / f"{name}.json").write_text(json.dumps({**was, "command": f"python {script} {arguments}", **more}))

    good, bad = (record(["system", "R@10"], [["dense", value]]) for value in ("0.700", "0.600"))
    keep("better", good, bad, "/gone/help/dev --out /gone/there.jsonl --way 'a=--with /gone/help'", seconds=2)
    keep("worse", bad, good, seconds=1)
    keep("broken", {}, good)
    keep("endless", {"sleep": 60}, good)
    keep("away", good, good, "/gone/debian offline:e5-smell")
    keep("old", good, good, transcribed=True)
    keep("long", good, good, "--minutes 99")
    before = {path.name: path.read_text() for path in files.iterdir()}
    status, said, table = run_all(files, "--data", data, "--dry-run")
    states = {row["name"]: row["state"] for row in said["files"]}
    assert status == 0
    assert {path.name: path.read_text() for path in files.iterdir()} == before
    assert [name for name, state in states.items() if state == "would run"] == ["worse", "better", "broken", "endless"]

    status, said, table = run_all(files, "--data", data, "--save", *sorted({*states} - {"endless"}))
    rows = {row["name"]: row for row in said["files"]}
    assert status == 1
    assert (said["worse"], said["failed"]) == (1, 1)
    assert said["machine"] == table.splitlines()[0]
    assert {name: row["state"] for name, row in rows.items()} == {
        "worse": "compared", "better": "compared", "broken": "failed", "away": "skipped", "old": "skipped", "long": "skipped",
    }  # fmt: skip
    assert rows["worse"]["worse"][0]["column"] == "R@10"
    assert "worse: dense / R@10: 0.7 -> 0.6" in table
    assert "no such model" in rows["broken"]["reason"]
    assert "/gone/debian" in rows["away"]["reason"]
    assert f"{data}/help/dev --out" in rows["better"]["command"]
    assert "/gone" not in rows["better"]["command"]
    renewed = json.loads((files / "better.json").read_text())
    assert renewed["tables"] == good["tables"]
    assert "/gone/help/dev" in renewed["command"]
    assert run_all(files, "--data", data, "better")[0] == 0
    status, said, _ = run_all(files, "--minutes", "0.01", "--save", "endless")
    assert (status, said["files"][0]["state"]) == (0, "stopped")
    assert (files / "endless.json").read_text() == before["endless.json"]
