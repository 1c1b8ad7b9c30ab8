"""Where the labels of points go, so that none hides another."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

_DISTANCES = (8.0, 14.0, 22.0, 34.0, 48.0, 64.0, 84.0, 110.0, 140.0)
_DIRECTIONS = ((1, 0), (-1, 0), (0, -1), (0, 1), (1, -1), (1, 1), (-1, -1), (-1, 1))  # right first


class Box(NamedTuple):
    """A rectangle, y growing downwards."""

    left: float
    top: float
    right: float
    bottom: float

    def overlap(self, other: Box) -> float:
        """The area that both cover."""
        across = min(self.right, other.right) - max(self.left, other.left)
        along = min(self.bottom, other.bottom) - max(self.top, other.top)
        return max(across, 0.0) * max(along, 0.0)


def placed(
    points: Sequence[tuple[float, float]],
    sizes: Sequence[tuple[float, float]],
    within: Box,
    radius: float,
    taken: Sequence[Box] = (),
) -> list[Box]:
    """A box for each point's label of (width, height): near it, inside, over no mark, label or `taken` box.

    Greedy from the top down; where there is no free place, the one that hides least.
    """
    marks = [*taken, *(Box(x - radius, y - radius, x + radius, y + radius) for x, y in points)]
    found: dict[int, Box] = {}
    for n in sorted(range(len(points)), key=lambda n: (points[n][1], points[n][0])):
        best, least = None, math.inf
        for box in _around(points[n], sizes[n]):
            area = (box.right - box.left) * (box.bottom - box.top)
            hidden = 10 * (area - box.overlap(within))
            hidden += sum(box.overlap(other) for other in (*marks, *found.values()))
            if hidden < least - 1e-9:
                best, least = box, hidden
            if least <= 1e-9:
                break
        assert best is not None
        found[n] = best
    return [found[n] for n in range(len(points))]


def nearest(box: Box, x: float, y: float) -> tuple[float, float]:
    """The point of the box that is nearest to (x, y): where a line to its mark begins."""
    return min(max(x, box.left), box.right), min(max(y, box.top), box.bottom)


def _around(point: tuple[float, float], size: tuple[float, float]) -> list[Box]:
    boxes = []
    for distance in _DISTANCES:
        for across, down in _DIRECTIONS:
            step = distance / math.hypot(across, down)
            left = point[0] + across * step - size[0] * (1 - across) / 2
            top = point[1] + down * step - size[1] * (1 - down) / 2
            boxes.append(Box(left, top, left + size[0], top + size[1]))
    return boxes
