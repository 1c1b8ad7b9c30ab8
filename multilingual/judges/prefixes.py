"""Beginnings that token rows share, and where padded rows' tokens stand."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from .tokenized import count_common

SHORTEST = 8


def group_prefixes(rows: Sequence[tuple[int, ...]], shortest: int = SHORTEST) -> list[tuple[int, list[int]]]:
    """Which rows share a prefix of at least `shortest` tokens, as (its length, the rows' numbers); 0 for a row alone.

    A prefix is computed once for its group, so a group of m saves (m - 1) x length tokens. Rows are cut into groups
    so that most is saved: at each branching of their common beginnings, either all below it share what they have in
    common there, or the branches are dealt with each by itself.
    """
    order = sorted(range(len(rows)), key=rows.__getitem__)
    # The intervals of rows with a common beginning, innermost first: each is [length, first row, saved, groups].
    opened: list[tuple[int, int, int, list[tuple[int, list[int]]]]] = [(-1, 0, 0, [])]
    for n, row in enumerate(order):
        length = count_common(rows[row], rows[order[n + 1]]) if n + 1 < len(order) else -1
        first, saved, groups = n, 0, [(0, [row])]
        while opened[-1][0] > length:
            common, first, inner, parts = opened.pop()
            saved, groups = inner + saved, parts + groups
            together = (n - first) * common
            if common >= shortest and together > saved:
                saved, groups = together, [(common, order[first : n + 1])]
        if opened[-1][0] == length:
            length, first, inner, parts = opened.pop()
            saved, groups = inner + saved, parts + groups
        opened.append((length, first, saved, groups))
    return opened[-1][3]


def count_positions(mask: torch.Tensor) -> torch.Tensor:
    """The position of each token in its row, of a mask [n, width]; 0 before the first."""
    return (mask.cumsum(-1) - 1).clamp(min=0)
