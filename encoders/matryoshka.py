"""Which encoders were trained for shorter vectors too (Matryoshka; Kusupati et al. 2022), and how one is cut."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..files import read_json
from ..specs import Spec
from .base import EncoderSpec, unit
from .known import KNOWN_CHECKPOINTS


def cut_vectors(vectors: np.ndarray, spec: EncoderSpec, dim: int) -> np.ndarray:
    """The first `dim` components of vectors float32 [n, spec.dim], of length 1 again where the encoder's are.

    `InputError` unless `dim` is the encoder's own, or in the range that it was trained for.
    """
    check_length(spec, dim)
    if dim == spec.dim:
        return vectors
    return unit(vectors[:, :dim]) if spec.normalized else np.ascontiguousarray(vectors[:, :dim])


def check_length(spec: EncoderSpec, dim: int) -> None:
    """`InputError` unless vectors of the encoder can have so many dimensions; it says which they can have."""
    if dim == spec.dim and spec.kind == "dense":
        return
    shortest = find_shortest(spec.name) if spec.kind == "dense" else None
    if shortest is None or shortest > spec.dim:
        raise InputError(
            f"dimensions must be {spec.dim}, not {dim}: this model is not known to be trained for shorter vectors "
            "(Matryoshka); leave dimensions out"
        )
    if not shortest <= dim <= spec.dim:
        raise InputError(f"dimensions must be in {shortest}..{spec.dim} for this model, not {dim}")


@lru_cache
def find_shortest(name: str) -> int | None:
    """The shortest length that the encoder of a SPEC was trained for; None if it is not known to be trained so.

    Lengths between those of the training are as good as their neighbours (Kusupati et al., section 4.2). What a
    checkpoint's own files say counts first, then what is known of its name (`known.toml`). Nothing is fetched.
    """
    checkpoint = Spec.parse(name).checkpoint
    lengths = _read_file(checkpoint, "training.json").get("recipe", {}).get("dims")  # trained by crosslens
    config = _read_file(checkpoint, "config.json")
    if lengths := lengths or config.get("matryoshka_dimensions"):
        return int(min(lengths))
    if config.get("is_matryoshka"):  # vLLM's key, which stands for any length
        return 1
    known: Mapping[str, int] = KNOWN_CHECKPOINTS["shortest"]
    model = checkpoint.lower().rpartition("/")[2]
    return next((length for part, length in known.items() if part in model), None)


def _read_file(checkpoint: str, file: str) -> Mapping[str, Any]:
    """A JSON file of a checkpoint in a directory or in the hub's cache; empty if it is not there."""
    from huggingface_hub import try_to_load_from_cache

    path: object = Path(checkpoint, file)
    if not Path(checkpoint).is_dir():
        try:
            path = try_to_load_from_cache(checkpoint, file)
        except ValueError:  # no name of the hub
            return {}
    found = read_json(Path(path)) if isinstance(path, str | Path) and Path(path).is_file() else {}
    return found if isinstance(found, Mapping) else {}
