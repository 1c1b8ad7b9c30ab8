"""A judge that prefers long passages, counts what it is asked, and can be made to wait."""

from __future__ import annotations

import threading

import numpy as np
from crosslens.multilingual.judges.base import BaseJudge


class Patient(BaseJudge):
    """Its answers come one at a time, so that what has begun can be ended; `held` makes it wait."""

    can = frozenset({"choose"})
    held = threading.Event()
    asked = 0

    def __init__(self, checkpoint: str = "", *, slow: float = 0.0, **given: object) -> None:
        super().__init__("patient", "1")
        self.slow = slow

    @property
    def fingerprint(self) -> str:
        return "patient 1"

    def compute_choices(self, prompts, labels):
        rows = []
        for prompt in prompts:
            while Patient.held.is_set():
                threading.Event().wait(0.01)
            threading.Event().wait(self.slow)
            Patient.asked += 1
            self.count_answers(1)
            odds = sum(len(getattr(part, "text", part)) for part in prompt.parts) / 1000
            rows.append([-np.log1p(np.exp(-odds)), -np.log1p(np.exp(odds))])
        return np.array(rows)
