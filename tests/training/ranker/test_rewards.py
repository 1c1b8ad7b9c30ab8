"""Rewards of hand-made answers, and GRPO that hands them on."""

from __future__ import annotations

import pytest
from crosslens.items import Item
from crosslens.multilingual.prompts import load_prompt
from crosslens.training.ranker.lessons import Drawn
from crosslens.training.ranker.rewards import Asked, reward_format, reward_rank
from stand_ins.table import table


def asked(prompt, *targets):
    documents = tuple(Item(f"d{n}", f"text {n}") for n in range(len(targets)))
    return Asked(load_prompt(prompt), Drawn(Item("q", "a query"), documents, targets, tuple(t > 0 for t in targets)))


ANSWERS = [
    # Rank-R1: a thought is opened by the prompt; what it says counts in the format alone.
    ("rank-r1", (0, 1, 0), "because of this </think> <answer>[2]</answer>", 1, 1),
    ("rank-r1", (0, 1, 0), "because\n</think>\n<answer>[2]</answer>\n", 1, 1),
    ("rank-r1", (0, 1, 0), "because </think> <answer>[3]</answer>", 1, 0),
    ("rank-r1", (0, 1, 0), "because </think> <answer>2</answer>", 0, 0),
    ("rank-r1", (0, 1, 0), "because [2] and no end", 0, 0),
    ("rank-r1", (0, 1, 0), "a </think> b </think> <answer>[2]</answer>", 0, 0),
    ("rank-r1", (0, 1, 0), "because </think> <answer>[4]</answer>", 0, 0),
    ("setwise", (0, 1, 0), " B", 1, 1),
    ("setwise", (0, 1, 0), " B is the best", 0, 1),
    ("setwise", (0, 1, 0), " A", 1, 0),
    ("setwise", (0.2, 0.9, 0.9), " C", 1, 1),
    ("rank1", (1,), "it says so</think> true", 1, 1),
    ("rank1", (0,), "it says so</think> true", 1, 0),
    ("rank1", (0,), "no</think>false", 1, 1),
    ("listwise", (2, 1, 0), " [1] > [2] > [3]", 1, 1),
    ("listwise", (2, 1, 0), " [1] > [2]", 0, 1),
    ("listwise", (2, 1, 0), " [3] > [2] > [1]", 1, 0.6199),
    ("listwise", (2, 1, 0), "I do not know", 0, 0),
    ("listwise-think", (2, 1, 0), "well</think> [1] > [2] > [3]", 1, 1),
]


@table(("prompt", "targets", "said", "form", "rank"), ANSWERS)
def test_answers_are_read_as_at_inference(prompt, targets, said, form, rank):
    question = asked(prompt, *targets)
    assert reward_format(question, said) == form
    assert reward_rank(question, said) == pytest.approx(rank, abs=1e-3)
