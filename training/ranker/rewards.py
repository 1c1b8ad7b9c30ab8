"""Rewards of what a ranker says, read by the parsers of inference: is it in the format, and how well does it rank."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from ...multilingual.judges.answers import NOTHING_READ, read_label, read_ranking
from ...multilingual.prompts import Prompt
from ...multilingual.prompts.prompt import THOUGHT
from .lessons import Drawn


@dataclass(frozen=True, eq=False)
class Asked:
    """A question that is answered: the prompt in its language, and what it shows."""

    prompt: Prompt
    drawn: Drawn


Reward = Callable[[Asked, str], float]  # of a question and all that the model says after the prompt


def reward_format(asked: Asked, said: str) -> float:
    """1 for an answer that is a thought, where the prompt has one, and then its label or whole ranking and no more."""
    pattern = _compile_format(asked.prompt, len(asked.drawn.documents))
    found = pattern.fullmatch(said)
    if not found:
        return 0.0
    if _ranks(asked.prompt):
        labels = re.findall(r"\[(.*?)\]", found["verdict"])
        return float(sorted(labels) == sorted(asked.prompt.labels[: len(asked.drawn.documents)]))
    return 1.0


def reward_rank(asked: Asked, said: str) -> float:
    """How well an answer ranks, 0..1: the nDCG of its permutation, or 1 for the right label.

    Right is the best of several passages (Rank-R1; Zhuang et al. 2025), and of one what its example says of it. What
    is left out of a permutation follows in the order shown; an answer in which nothing can be read has 0, and so has
    one out of the format where the prompt thinks, as in the paper.
    """
    prompt, drawn = asked.prompt, asked.drawn
    if prompt.think and not reward_format(asked, said):
        return 0.0
    text = prompt.think + said
    if _ranks(prompt):
        kinds: Counter[str] = Counter()
        order = read_ranking(text, prompt.labels[: len(drawn.documents)], kinds)
        return 0.0 if kinds.keys() & NOTHING_READ else measure_order(drawn.targets, order)
    labels = prompt.labels[: len(drawn.documents)] if prompt.most > 1 else prompt.labels
    place = read_label(text, labels, Counter(), after=prompt.closing)
    return float(place in list_right(prompt, drawn))


REWARDS: dict[str, Reward] = {"format": reward_format, "rank": reward_rank}


def list_right(prompt: Prompt, drawn: Drawn) -> list[int]:
    """The places of labels that are right: of the best passages, or of what one passage is."""
    if prompt.most > 1:
        best = max(drawn.targets)
        return [n for n, target in enumerate(drawn.targets) if target == best]
    values = prompt.values or tuple(float(-n) for n in range(len(prompt.labels)))
    wanted = max(values) if drawn.positive[0] else min(values)
    return [n for n, value in enumerate(values) if value == wanted]


def measure_order(targets: Sequence[float], order: Sequence[int]) -> float:
    """nDCG 0..1 of documents worth `targets` in an `order` of their places; what they are worth is brought to 0..1."""
    worth = np.asarray(targets, np.float64)
    spread = np.ptp(worth)
    if not spread:
        return 1.0
    gains = (worth - worth.min()) / spread
    discounts = 1 / np.log2(np.arange(len(gains)) + 2)
    return float(gains[list(order)] @ discounts / (np.sort(gains)[::-1] @ discounts))


def _ranks(prompt: Prompt) -> bool:
    """Whether an answer is a ranking, not a label."""
    return prompt.asks == "generate" and prompt.most > 1


@lru_cache(maxsize=256)
def _compile_format(prompt: Prompt, shown: int) -> re.Pattern[str]:
    """What an answer is after the prompt's message, with any white space between its parts."""
    labels = "|".join(map(re.escape, prompt.labels[:shown] if prompt.most > 1 else prompt.labels))
    label = rf"(?:{labels}){re.escape(prompt.closing)}"
    verdict = rf"\[(?:{labels})\](?:\s*>\s*\[(?:{labels})\])*" if _ranks(prompt) else label
    if not prompt.think:  # its `answer` is said for the model
        return re.compile(rf"\s*(?P<verdict>{verdict})\s*", re.DOTALL)
    thought = r"(?:(?!</?think>).)*"
    return re.compile(
        rf"{thought}{re.escape(THOUGHT)}\s*{re.escape(prompt.answer.strip())}\s*(?P<verdict>{verdict})\s*", re.DOTALL
    )
