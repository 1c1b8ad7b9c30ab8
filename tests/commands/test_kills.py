"""Commands that are stopped: an orderly end, and the same command goes on (`benchmarks/kills.py` does it at length)."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

import pytest
from stand_ins.children import COMMAND, Child

JUDGE = """
import os, time
import numpy as np
from crosslens.multilingual.judges import BaseJudge

class Slow(BaseJudge):
    can = frozenset({"likelihood"})
    fingerprint = "slow"
    streams = True

    def __init__(self, checkpoint="", *, device="auto", trust_remote_code=False, pause: float = 0.0):
        super().__init__("slow", "1")
        self.pause = pause

    def compute_likelihoods(self, prompts, targets):
        answers = []
        for place, prompt in enumerate(prompts):
            time.sleep(self.pause)
            answers.append(-float(hash_text(prompt.plain())))
            self.hand_over(place, answers[-1])
        return np.array(answers)

def hash_text(text):
    import zlib
    return zlib.crc32(text.encode()) / 2**32
"""


@pytest.fixture
def arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """`crosslens rerank` of 100 queries with 5 documents each."""
    where = tmp_path / "collection"
    where.mkdir()
    (tmp_path / "slow_judge.py").write_text(JUDGE)
    monkeypatch.syspath_prepend(str(tmp_path))
    for name, count in (("docs", 50), ("topics", 100)):
        rows = ({"id": f"{name}{n}", "lang": "eng", "text": f"{name} number {n}"} for n in range(count))
        (where / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    hits = ((q, d) for q in range(100) for d in range(5))
    (tmp_path / "first").write_text("".join(f"topics{q} Q0 docs{(q + d) % 50} {d} {9 - d} x\n" for q, d in hits))
    return ["rerank", str(tmp_path / "first"), str(where), "-o", str(tmp_path / "out"), "--rerank"]


@pytest.mark.parametrize(("how", "status", "word"), [(signal.SIGINT, 1, "interrupted"), (signal.SIGTERM, 143, "terminated"), (signal.SIGKILL, -9, "")])  # fmt: skip
def test_a_stopped_rerank_says_what_is_kept_and_goes_on(arguments, crosslens, tmp_path, how, status, word):
    spec = "likelihood@py:slow_judge:Slow?depth=5"
    process = Child(f"import sys; sys.path.insert(0, {str(tmp_path)!r}); {COMMAND}", *arguments, f"{spec}&pause=0.02")
    journal = tmp_path / "out.journal"
    deadline = time.monotonic() + 60
    while not (journal.exists() and journal.read_bytes().count(b"\n") > 40):
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(how)
    _, err = process.communicate()
    kept = journal.read_bytes().count(b"\n")
    assert process.returncode == status, err
    line = f"crosslens: {word}; kept: {kept // 5} of 100 queries are finished ({kept} answers in all), and the same command"
    assert line in err if word else not err
    assert "Traceback" not in err
    assert not (tmp_path / "out").exists()
    code, out, err = crosslens(*arguments, spec, "--json")
    assert code == 0, err
    counts = json.loads(out)["stages"][0]["counts"]
    assert (counts["resumed"], counts["calls"]) == (kept, 500)
    assert sorted(each.name for each in tmp_path.glob("*out*")) == ["out", "out.manifest.json"]
    killed = (tmp_path / "out").read_bytes()
    assert crosslens(*arguments, spec)[0] == 0
    assert (tmp_path / "out").read_bytes() == killed
