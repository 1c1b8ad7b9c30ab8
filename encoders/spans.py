"""Where a tokenizer's tokens are in a text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import InputError


def token_spans(tokenizer: Any, texts: Sequence[str], name: str) -> list[np.ndarray]:
    """The tokens of each text as `encoders.base.Tokenizes` gives them; `name` is the encoder's, for the error."""
    if not tokenizer.is_fast:
        raise InputError(f"{name} has a slow tokenizer, which cannot tell where its tokens are")
    if not texts:
        return []
    found = tokenizer(
        list(texts),
        add_special_tokens=False,
        truncation=False,
        return_offsets_mapping=True,
        verbose=False,  # of texts longer than the model takes
    )
    return [np.array(spans, np.int64).reshape(-1, 2) for spans in found["offset_mapping"]]
