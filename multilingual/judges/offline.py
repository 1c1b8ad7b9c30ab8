"""`offline:gemma`: Gemma 3 270M (base) from a package, converted once; see `checkpoints/offline/packages.py`."""

from __future__ import annotations

from ...checkpoints.devices import Precision
from ...checkpoints.offline.packages import make_checkpoint
from ...errors import unknown_name
from .base import Judge


def open_offline(
    checkpoint: str,
    *,
    device: str = "auto",
    trust_remote_code: bool = False,
    dtype: Precision = "auto",
    passage_tokens: int = 384,
) -> Judge:
    """`InputError` listing the offline judges for an unknown one, or naming the package if it is missing."""
    from . import hf

    if checkpoint != "gemma":
        raise unknown_name(checkpoint, ("gemma",), "offline judge")
    where = str(make_checkpoint(checkpoint))
    judge = hf.open_hf(where, device=device, dtype=dtype, passage_tokens=passage_tokens, task="causal")
    judge.name = f"offline:{checkpoint}"
    return judge
