"""Contextual calibration: how much a model likes each label, or each place, where there is nothing to choose."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from weakref import WeakKeyDictionary

import numpy as np

from ...items import Item
from ..judges.base import Judge
from ..judges.messages import Message

NEUTRAL = ("N/A", "[MASK]", "")  # what stands for the query and each passage, as in the paper

_PRIORS: WeakKeyDictionary[Judge, dict[tuple[object, ...], np.ndarray]] = WeakKeyDictionary()


def find_prior(
    word: Callable[[Item, Sequence[Item]], Message], judge: Judge, labels: Sequence[str], size: int, count: Counter[str]
) -> np.ndarray:
    """Log-probabilities float64 [labels] that a judge gives to labels when query and `size` passages say nothing.

    `word` words the comparison. The probabilities are means over several neutral texts (Zhao et al. 2021, Calibrate
    Before Use: Improving Few-Shot Performance of Language Models, arXiv:2102.09690). They are asked for once for a
    judge and what it is shown; what was asked is added to `count`.
    """
    items = [Item("neutral", text) for text in NEUTRAL]
    messages = [word(item, [item] * size) for item in items]
    known = _PRIORS.setdefault(judge, {})
    key = (*messages, *labels)
    if key not in known:
        rows = judge.choose(messages, labels)
        count["calibrations"] += 1
        count["calibration_questions"] += len(messages)
        known[key] = np.logaddexp.reduce(rows, axis=0) - np.log(len(rows))
    return known[key]


def take_prior(row: np.ndarray, prior: np.ndarray) -> np.ndarray:
    """Log-probabilities of labels without the judge's liking for them, normalised again."""
    shifted = row - prior
    normalized: np.ndarray = shifted - np.logaddexp.reduce(shifted, axis=-1, keepdims=True)
    return normalized
