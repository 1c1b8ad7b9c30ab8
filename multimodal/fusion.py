"""One vector for an item that holds text and an image."""

from __future__ import annotations

import numpy as np

from ..encoders.base import unit


def fuse(text: np.ndarray, image: np.ndarray, text_weight: float = 0.5) -> np.ndarray:
    """The normalised weighted mean of unit vectors, float32 [n, dim] from twice [n, dim] in one shared space.

    This is score fusion as UniIR has it (Wei et al. 2024, CLIP-SF): the product of a query with the mean is
    the mean of its products with the parts, so the weight says how much each part counts. `text_weight` is
    in 0..1.
    """
    return unit(text_weight * unit(text) + (1 - text_weight) * unit(image))
