"""`offline:gemma`: Gemma 3 270M (base) from a package, converted once; see `encoders/offline.py`."""

from __future__ import annotations

from ...encoders.base import Precision
from ...errors import nearest
from .causal import CausalJudge


def load(
    checkpoint: str,
    *,
    device: str = "auto",
    trust_remote_code: bool = False,
    dtype: Precision = "auto",
    passage_tokens: int = 384,
) -> CausalJudge:
    """`InputError` listing the offline judges for an unknown one, or naming the package if it is missing."""
    from ...encoders import offline

    if checkpoint != "gemma":
        raise nearest(checkpoint, ("gemma",), "offline judge")
    where = str(offline.checkpoint(checkpoint))
    judge = CausalJudge.from_checkpoint(where, device=device, dtype=dtype, passage_tokens=passage_tokens)
    judge.name = f"offline:{checkpoint}"
    return judge
