"""How large a checkpoint is, for a line that says what is being loaded."""

from __future__ import annotations

from pathlib import Path

from .offline.packages import MODELS


def describe_checkpoint(family: str, checkpoint: str) -> str:
    """`offline:e5-small (488 MB)`: the SPEC without its options, and the size of the weights where that is at hand."""
    name = f"{family}:{checkpoint}" if checkpoint else family
    if family == "offline" and checkpoint in MODELS:
        size = MODELS[checkpoint].cache_mb or MODELS[checkpoint].size_mb
    elif checkpoint and Path(checkpoint).is_dir():
        size = round(sum(path.stat().st_size for path in Path(checkpoint).glob("*.safetensors")) / 1e6)
    else:
        return name
    return f"{name} ({size:,} MB)"
