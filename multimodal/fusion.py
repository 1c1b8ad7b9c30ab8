"""One vector for an item that holds text and an image, made of the vectors of two towers."""

from __future__ import annotations

from typing import Literal

import numpy as np

from ..encoders.base import unit
from ..errors import InputError

Fusion = Literal["feature", "score"]


def fuse_vectors(
    text: np.ndarray, image: np.ndarray, text_weight: float = 0.5, how: Fusion = "feature"
) -> np.ndarray:
    """The weighted mean of unit vectors, float32 [n, dim] from twice [n, dim] in one shared space.

    `text_weight` in 0..1 is the share of the text; the image has the rest. The inner product of the mean with any
    vector is the weighted mean of the products with its parts, so score fusion (CLIP-SF of UniIR; Wei et al. 2024)
    needs no second search: `score` leaves the mean as it is, shorter the less its parts agree. `feature` scales it to
    length 1. A query's length changes no ranking, so the two differ only in how documents with both stand to the
    others: `score` ranks one by the mean of its parts' cosines, `feature` by the cosine with their common direction.
    (UniIR's other feature fusion mixes the towers by trained layers, which plain CLIP checkpoints do not have.)
    """
    mean = text_weight * unit(text) + (1 - text_weight) * unit(image)
    return unit(mean) if how == "feature" else mean.astype(np.float32)


def check_text_weight(weight: float) -> None:
    """`InputError` unless the weight is in 0..1."""
    if not 0 <= weight <= 1:
        raise InputError(f"text_weight must be in 0..1, not {weight}")
