"""What CLIP models are asked in tests."""

from __future__ import annotations

import numpy as np
from crosslens.items import Item
from PIL import Image

TEXTS = ["a cat", "Катя на крыше дома", "一只猫在屋顶上", "گربه", "x" * 300]


def items(texts: list[str]) -> list[Item]:
    return [Item(str(row), text) for row, text in enumerate(texts)]


def picture(seed: int, size: tuple[int, int] = (50, 40)) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8))
