"""The way in which attention is computed while a model is trained."""

from __future__ import annotations

from typing import Any

import torch

LONGEST = 256  # tokens up to which whole matrices of attention are quicker on a CPU, and small enough to be kept
SCORE_BYTES = 8  # that are kept of each score of attention: bfloat16, float32 of the softmax, bfloat16


def choose_attention(model: Any, device: torch.device, most: int) -> int:
    """Let a model of transformers compute attention as it trains quickest with texts of at most so many tokens.

    On a CPU, PyTorch's fused attention takes three times as long on the way back as whole matrices do, which makes
    training half as quick (`benchmarks/training.py attention`). Other devices, longer texts and models that know only
    one way keep theirs. Gives the bytes that are kept of a token for it beside what its layers keep.
    """
    config: Any = getattr(model, "config", None)
    if device.type != "cpu" or most > LONGEST or getattr(config, "_attn_implementation", None) != "sdpa":
        return 0
    model.set_attn_implementation("eager")
    text = config.get_text_config()
    return int(text.num_hidden_layers * text.num_attention_heads * most * SCORE_BYTES)
