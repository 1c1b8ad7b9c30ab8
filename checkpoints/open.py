"""Checkpoints in memory: text encoders opened and shared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import transformers

from . import int8_text
from .sharing import share
from .source import Source


@dataclass(frozen=True, eq=False)
class OpenModel:
    """A checkpoint in memory. Encoders of one checkpoint (e5-small, and ConSE over it) share it while one lives."""

    config: Any
    tokenizer: Any
    model: torch.nn.Module


def open_text_model(source: Source, dtype: torch.dtype, device: torch.device) -> OpenModel:
    """The encoder of a checkpoint and its tokenizer; `InputError` if it cannot be found, or lacks one of them.

    With `torch.int8` linear layers and embeddings are quantised (`checkpoints.int8_text`).
    """
    return share((source, dtype, device), lambda: _open(source, dtype, device))


def _open(source: Source, dtype: torch.dtype, device: torch.device) -> OpenModel:
    config, tokenizer = source.load_config(), source.load_tokenizer()
    auto = transformers.AutoModelForTextEncoding if config.is_encoder_decoder else transformers.AutoModel

    def load(dtype: torch.dtype) -> torch.nn.Module:
        model: torch.nn.Module = source.load_model(auto, lambda key: "pooler" in key, config=config, dtype=dtype)
        return model

    def make_empty() -> torch.nn.Module:
        made: torch.nn.Module = auto.from_config(
            config, dtype=torch.float32, trust_remote_code=source.trust_remote_code
        )
        return made

    if dtype == torch.int8:
        weights = source.identify_weights(config)
        model = int8_text.open_int8(config, weights, lambda: load(torch.float32), make_empty)
    else:
        model = load(dtype)
    return OpenModel(config, tokenizer, model.to(device).eval())


def find_longest_input(config: Any, tokenizer: Any, stated: int | None = None) -> int:
    """The most tokens, special ones included, that model, tokenizer and what its files have `stated` all allow."""
    limits = [tokenizer.model_max_length, getattr(config, "max_position_embeddings", None), stated]
    # RoBERTa keeps the first pad_token_id + 1 positions for itself.
    if config.model_type in ("xlm-roberta", "roberta", "camembert", "xlm-roberta-xl") and limits[1]:
        limits[1] -= (config.pad_token_id or 0) + 1
    return int(min(limit for limit in limits if limit))
