"""`offline:e5-use`: multilingual-e5-small and the Universal Sentence Encoder as one, the default for texts."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from ..checkpoints.devices import TextPrecision
from ..checkpoints.options import Prompts
from .ensemble import Ensemble
from .transformer import open_offline_e5
from .use import UniversalSentenceEncoder

# Of cosines as they are, of which those of e5-small lie close together. Chosen on dev halves (benchmarks/ensembles.py):
# with more weight on USE, documents in languages that it does not know fall behind the others.
WEIGHTS = (12.0, 1.0)


def open_offline_pair(
    checkpoint: str,
    *,
    device: str = "auto",
    dtype: TextPrecision = "auto",
    backend: Literal["torch", "openvino", "auto"] = "torch",
) -> Ensemble:
    """About 100 languages, 896 dimensions; `dtype` and `backend` are those of e5-small.

    The Universal Sentence Encoder has a part in the languages that it knows. `InputError` if a package is missing.
    """
    first = open_offline_e5("e5-small", device=device, prompts=Prompts(), dtype=dtype, backend=backend)
    pair = Ensemble([first, UniversalSentenceEncoder.from_checkpoint("use-m3")], WEIGHTS)
    pair.spec = replace(pair.spec, name=f"offline:{checkpoint}")
    return pair
