"""`offline:use-m3`: Universal Sentence Encoder multilingual v3 from a package, in numpy."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np

from ..checkpoints.offline.packages import find_model, open_use_engine
from ..items import Dense, Item, Role, windows
from .base import EncoderSpec, check_finite, check_modalities, unit

MAX_CHARACTERS = 20_000  # time and memory grow with a text's length, and the engine itself sets no limit


class UniversalSentenceEncoder:
    """512-d sentence vectors (Yang et al. 2020), float32 of length 1, without prompts; CPU only.

    Trained on 16 languages (Arabic, Chinese in both scripts, Dutch, English, French, German, Italian,
    Japanese, Korean, Polish, Portuguese, Russian, Spanish, Thai, Turkish) and poor outside them.
    """

    def __init__(self, engine: Callable[[list[str]], np.ndarray], spec: EncoderSpec) -> None:
        self.engine = engine
        self.spec = spec

    @classmethod
    def from_checkpoint(cls, checkpoint: str) -> UniversalSentenceEncoder:
        """The installed package's engine; `InputError` if it is missing or its files are other ones."""
        engine = open_use_engine()
        spec = EncoderSpec(
            name=f"offline:{checkpoint}",
            revision="+".join(file.sha256[:16] for file in find_model(checkpoint).files),
            modalities=("text",),
            dim=512,
            pooling="sqrt_mean",
            extra={"max_characters": MAX_CHARACTERS},
        )
        return cls(engine, spec)

    def encode(self, items: Iterable[Item], role: Role) -> Iterator[Dense]:
        """One `Dense` of float32 [n, 512] for every 64 items; the role does not matter."""
        for group in windows(items, 64):
            check_modalities(group, self.spec)
            ids = [item.id for item in group]
            vectors = unit(self.engine([(item.text or "")[:MAX_CHARACTERS] for item in group]))
            check_finite(ids, vectors, self.spec.name, self.spec.dtype)
            yield Dense(ids, vectors)
