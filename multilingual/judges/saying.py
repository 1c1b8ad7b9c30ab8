"""What `generate` of transformers is asked for, and what is read of what came."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .base import Completion


def sampling(tokenizer: Any, stop: Sequence[str], temperature: float, seed: int) -> dict[str, Any]:
    """Arguments for `generate`: greedy at temperature 0, ending at one of `stop`; seeds torch where it samples."""
    # Checkpoints bring sampling settings of their own; greedy means none of them.
    options: dict[str, Any] = {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
    if temperature > 0:
        import torch

        options |= {"do_sample": True, "temperature": temperature}
        torch.manual_seed(seed)
    if stop:
        options |= {"stop_strings": list(stop), "tokenizer": tokenizer}
    return options


def completion(
    said: Sequence[int], tokenizer: Any, ends: frozenset[int], pad: int, stop: Sequence[str]
) -> Completion:
    """New tokens of one row as text, without the end and what fills the row; a stop string found is its last part."""
    tokens = list(said)
    while tokens and tokens[-1] == pad and pad not in ends:
        tokens.pop()
    length = next((n for n, token in enumerate(tokens) if token in ends), len(tokens))
    text = tokenizer.decode(tokens[:length], skip_special_tokens=True)
    at = min((text.find(each) + len(each) for each in stop if each in text), default=-1)
    return Completion(text[:at] if at >= 0 else text, length, length < len(tokens) or at >= 0)


def end_tokens(model: Any, tokenizer: Any) -> frozenset[int]:
    """The ids that end an answer: the model's own, else the tokenizer's."""
    ends = getattr(model.generation_config, "eos_token_id", None)
    ends = [tokenizer.eos_token_id] if ends is None else ends
    return frozenset(ends if isinstance(ends, list) else [ends])
