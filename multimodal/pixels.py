"""A tower's transform in two parts: geometry for each picture, in threads and in bytes; arithmetic for a batch, at the model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import PIL.Image
import torch
from torchvision.transforms import Compose, Normalize, ToTensor

GAP = 2.0  # decoding at twice the side that the transform resizes to loses nothing that can be seen


class Pixels:
    """A transform of torchvision's kind, of open_clip or timm, applied as they do.

    Where it ends as theirs do, by making floats of 0..255 and subtracting means, pictures wait as bytes, a quarter of
    the memory; the floats are then the same. `side` is what the shorter side of a picture is resized to, 0 if unknown.
    """

    def __init__(self, transform: Any) -> None:
        steps = list(getattr(transform, "transforms", ()))
        self.mean: torch.Tensor | None = None
        self.geometry: Any = transform
        if len(steps) > 1 and isinstance(steps[-1], Normalize) and isinstance(steps[-2], ToTensor):
            self.geometry = Compose(steps[:-2])
            self.mean, self.std = (
                torch.as_tensor(value, dtype=torch.float32).view(-1, 1, 1) for value in (steps[-1].mean, steps[-1].std)
            )
        size = getattr(steps[0], "size", 0) if steps else 0
        self.side = int(max(size) if isinstance(size, Sequence) else size)

    @property
    def shortest(self) -> int:
        """The side in pixels that a picture may be decoded at without loss; 0 if unknown."""
        return int(GAP * self.side)

    @property
    def held(self) -> int:
        """About how many bytes a picture has while it waits."""
        return 3 * self.side**2 * (4 if self.mean is None else 1)

    def one(self, image: PIL.Image.Image) -> torch.Tensor:
        """An RGB picture as it waits: uint8 (or float32, where the transform is another) [3, height, width]."""
        made = self.geometry(image)
        if isinstance(made, torch.Tensor):
            return made
        return torch.from_numpy(np.array(made)).permute(2, 0, 1)

    def batch(self, pictures: Sequence[torch.Tensor], device: torch.device) -> torch.Tensor:
        """What the transform would have made, float32 [n, 3, height, width], channels last."""
        # Stacked as they lie in memory: a height, a width, the colours.
        stacked = torch.stack([each.permute(1, 2, 0) for each in pictures]).permute(0, 3, 1, 2).to(device)
        if self.mean is None:
            return stacked.float()
        mean, std = self.mean.to(device), self.std.to(device)
        return stacked.float().div_(255).sub_(mean).div_(std)
