"""A judge that scores a passage by the number that stands in it, and a collection with rankings to be judged."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from crosslens.multilingual.judges import BaseJudge
from crosslens.multilingual.judges.messages import Passage

from .small_collections import put

GRADER = "yesno@py:stand_ins.grader:Grader"

# Documents by what their name says: what they are, their language, the score in the run, what the judge thinks.
DOCUMENTS = {
    "eng/good": ("eng", 10.0, 5.0),
    "eng/near": ("eng", 9.8, 6.0),
    "eng/right": ("eng", 9.0, 4.9),
    "rus/good": ("rus", 6.0, 4.0),
    "rus/near": ("rus", 5.9, 1.0),
    "eng/poor": ("eng", 5.5, -1.0),
    "rus/poor": ("rus", 5.0, -2.0),
    "fra/poor": ("fra", 4.5, 0.5),
    "eng/worse": ("eng", 4.0, -3.0),
    "rus/worse": ("rus", 3.0, -3.0),
}


def write_ranked(where: Path, queries: int = 3) -> tuple[Path, Path]:
    """A collection whose queries all rank its documents alike, of which eng/good and rus/good are relevant."""
    rows = [
        {"id": id, "lang": lang, "text": f"Page of {lang}, thought of as {odds}"}
        for id, (lang, _, odds) in DOCUMENTS.items()
    ]
    put(where / "docs.jsonl", *rows)
    put(where / "topics.jsonl", *({"id": f"q{n}", "text": f"what is page {n}", "lang": "eng"} for n in range(queries)))
    put(where / "qrels.txt", *(f"q{n} 0 {id} 1" for n in range(queries) for id in ("eng/good", "rus/good")))
    ranked = [(id, score) for id, (_, score, _) in DOCUMENTS.items()]
    lines = (f"q{n} Q0 {id} {rank} {score} x" for n in range(queries) for rank, (id, score) in enumerate(ranked, 1))
    return where, put(where / "run.trec", *lines)


class Grader(BaseJudge):
    """Log-odds of yes are the number in the passage; after `most` answers, counted in `asked`, it is interrupted."""

    can = frozenset({"choose"})
    most = 10**6
    asked = 0

    def __init__(self, checkpoint: str = "", **given: object) -> None:
        super().__init__("grader", "1")

    @property
    def fingerprint(self) -> str:
        return "grader 1"

    def compute_choices(self, prompts, labels):
        if Grader.asked + len(prompts) > Grader.most:
            raise KeyboardInterrupt
        Grader.asked += len(prompts)
        self.count_answers(len(prompts))
        passages = ["".join(part.text for part in each.parts if isinstance(part, Passage)) for each in prompts]
        odds = [float(re.search(r"-?\d+\.\d+", passage)[0]) for passage in passages]
        return np.array([[-np.log1p(np.exp(-x)), -np.log1p(np.exp(x))] for x in odds])
