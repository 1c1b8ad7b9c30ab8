"""Sampling at a temperature that depends on the seed and the prompt alone, not on what else is asked.

What is drawn for a row is the token with the highest logit after Gumbel noise (the Gumbel-max trick; Maddison et al.
2014, A* Sampling). The noise is that of a generator which can be asked for any of its numbers (SplitMix64; Steele et
al. 2014), so that only tokens that can still win are given any: all others would need more noise than there is.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Sequence

import torch

from .base import Sampling
from .messages import Message

BITS = 23  # of a drawn number, so that float32 holds it and a half
LARGEST = (BITS + 1) * math.log(2) + 1e-3  # no noise is above it


def _wrap(number: int) -> int:
    """64 bits as torch has them, with a sign."""
    return number - (1 << 64) if number >> 63 else number


GOLDEN, FIRST, SECOND = map(_wrap, (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))


def make_keys(prompts: Sequence[Message], sampling: Sampling) -> list[int]:
    """What decides what is drawn for each prompt: the seed, the prompt, and how many like it come before it."""
    if sampling.temperature <= 0:
        return [0] * len(prompts)
    seen: Counter[bytes] = Counter()
    keys = []
    for prompt in prompts:
        hashing = hashlib.blake2b(digest_size=16)
        hashing.update(json.dumps([sampling.seed or 0, prompt.system, prompt.answer, prompt.chat]).encode())
        prompt.hash_parts(hashing)
        content = hashing.digest()
        number = seen[content].to_bytes(8, "little")
        keys.append(int.from_bytes(hashlib.blake2b(content + number, digest_size=8).digest(), "little", signed=True))
        seen[content] += 1
    return keys


def draw_tokens(logits: torch.Tensor, temperature: float, keys: torch.Tensor, steps: torch.Tensor) -> torch.Tensor:
    """A token for each row of float32 logits [n, vocabulary]; `keys` and `steps` (tokens so far) are int64 [n]."""
    highest, likeliest = logits.max(-1)
    enough = highest + temperature * (_make_noise(keys, steps, likeliest) - LARGEST)
    rows, tokens = torch.nonzero(logits >= enough[:, None], as_tuple=True)
    noisy = logits[rows, tokens] / temperature + _make_noise(keys[rows], steps[rows], tokens)
    winning = noisy == torch.full_like(highest, -torch.inf).scatter_reduce(0, rows, noisy, "amax")[rows]
    return likeliest.scatter(0, rows[winning], tokens[winning])


def _make_noise(keys: torch.Tensor, steps: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """Standard Gumbel noise, float32, the same for the same key, step and token (int64 [n] each)."""
    mixed = keys + ((steps << 32) + tokens + 1) * GOLDEN
    for shift, factor in ((30, FIRST), (27, SECOND)):
        mixed = (mixed ^ _shift(mixed, shift)) * factor
    mixed ^= _shift(mixed, 31)
    share = (_shift(mixed, 64 - BITS).float() + 0.5) / (1 << BITS)
    return -(-share.log()).log()


def _shift(bits: torch.Tensor, by: int) -> torch.Tensor:
    """Shifted to the right, with zeros from the left."""
    return (bits >> by) & ((1 << (64 - by)) - 1)


class DrawnTokens:
    """For `generate` of transformers: leaves of each row's logits only the token that is drawn."""

    def __init__(self, temperature: float, keys: Sequence[int], begins: int) -> None:
        self.temperature, self.keys, self.begins = temperature, list(keys), begins

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.Tensor:
        keys = torch.tensor(self.keys, device=scores.device)
        steps = torch.full_like(keys, input_ids.shape[1] - self.begins)
        drawn = draw_tokens(scores.float(), self.temperature, keys, steps)
        return torch.full_like(scores, -torch.inf).scatter(-1, drawn[:, None], 0.0)
