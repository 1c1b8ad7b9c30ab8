"""`benchmarks/prompts.py` with a judge that knows the answer and likes the last place better: right answers, places, mass."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
JUDGE = """
import numpy as np
from crosslens.multilingual.judges import BaseJudge, Completion
from crosslens.multilingual.judges.messages import Passage

class Leaning(BaseJudge):
    can = frozenset({"choose", "generate"})
    fingerprint = "leaning"

    def __init__(self, checkpoint, *, device="auto", trust_remote_code=False, passage_tokens: int = 1, liking: float = 9):
        super().__init__("leaning", "1")
        self.liking = liking

    def compute_choices(self, prompts, labels):
        rows = []
        for prompt in prompts:
            passages = [part.text for part in prompt.parts if isinstance(part, Passage)]
            said = ["right" in text for text in passages] if len(passages) > 1 else ["right" in passages[0]]
            said += [0] * (len(labels) - len(said))
            rows.append(np.array(said) + self.liking * np.arange(len(labels)))
            self.count_label_mass(prompt, 0.25 if prompt.language == "zho" else 0.75)
        self.count_answers(len(prompts))
        rows = np.array(rows, float)
        return rows - np.logaddexp.reduce(rows, axis=1, keepdims=True)

    def compute_completions(self, prompts, sampling):
        self.count_answers(len(prompts))
        return [Completion("[5] > [1]", 5)] * len(prompts)
"""


@pytest.fixture
def ask(tmp_path, monkeypatch, capsys):
    """Runs the script on five questions in each of two languages; returns its report and what it said."""
    (tmp_path / "leaning_judge.py").write_text(JUDGE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    questions = [
        {
            "id": f"{lang}/{n}",
            "lang": lang,
            "query": "which?",
            "passages": [{"id": str(m), "text": f"{'right' if m == n else 'wrong'} {m}"} for m in range(5)],
            "answer": n,
        }
        for lang in ("eng", "zho")
        for n in range(5)
    ]
    (tmp_path / "questions.jsonl").write_text("\n".join(map(json.dumps, questions)))

    def run(*arguments):
        given = ["prompts.py", str(tmp_path / "questions.jsonl"), "--judge", "py:leaning_judge:Leaning:any", "--json"]
        monkeypatch.setattr(sys, "argv", [*given, *arguments])
        assert runpy.run_path(str(BENCHMARKS / "prompts.py"))["main"]() == 0
        told = capsys.readouterr()
        return json.loads(told.out), told.err

    yield run
    for name in ("measurements", "leaning_judge"):
        sys.modules.pop(name, None)


def test_right_answers_places_and_label_mass_are_reported_and_kept(ask, tmp_path):
    methods = ("setwise:full", "setwise:full?orders=rotations", "setwise:full?calibrate=true", "listwise:full", "cross")
    wanted = ("--methods", ",".join(methods), "--priors", "--out", str(tmp_path / "out"))
    report, said = ask(*wanted)
    right = {name: sum(sum(part["right"]) for part in parts.values()) for name, parts in report["methods"].items()}
    assert right == dict(zip(methods, (2, 10, 10, 2), strict=False))
    assert "| setwise:full | 1 | 1 | 2 of 10 | 0.624 | 0.25 | 0 0 0 0 10 | 1.0 |" in said
    assert "| setwise:full?orders=rotations | 5 | 5 | 10 of 10 | <0.001 | 0.25 | 2 2 2 2 2 | 5.0 |" in said
    assert "| setwise:full | 0 0 0 0 5 | 0 0 0 0 5 |" in said
    assert "| setwise:full?orders=rotations | 1 1 1 1 1 | 1 1 1 1 1 |" in said
    assert "| listwise:full | 1 | 1 | 2 of 10 | 0.624 |  | 0 0 0 0 10 |" in said
    assert "cannot answer `score` questions" in report["failed"]["cross"]
    priors = {(each["prompt"], each["language"]): each["prior"] for each in report["priors"]}
    assert priors["setwise", "eng"] == priors["setwise", "zho"] == [0, 0, 0, 0, 1]
    again, said = ask(*wanted)
    assert again == report
    assert "asking" not in said
