"""`offline:gemma`: Gemma 3 270M (base) from a package, converted once; see `encoders/offline.py`."""

from __future__ import annotations

from ...encoders.base import Precision
from ...errors import nearest
from . import Judge


def load(
    checkpoint: str,
    *,
    device: str = "auto",
    trust_remote_code: bool = False,
    dtype: Precision = "auto",
    passage_tokens: int = 384,
) -> Judge:
    """`InputError` listing the offline judges for an unknown one, or naming the package if it is missing."""
    from ...encoders import offline
    from . import hf

    if checkpoint != "gemma":
        raise nearest(checkpoint, ("gemma",), "offline judge")
    where = str(offline.checkpoint(checkpoint))
    judge = hf.load(where, device=device, dtype=dtype, passage_tokens=passage_tokens, task="causal")
    judge.name = f"offline:{checkpoint}"
    return judge
