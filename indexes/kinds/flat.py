"""The kind `flat`: exact search of vectors that are all in memory."""

from __future__ import annotations

from ..storage.card import Recall
from .dense import DenseKind
from .recall import load_spaces


class FlatKind(DenseKind):
    """Vectors are loaded once, however many there are, and searched exactly, on a GPU where there is one.

    For experiments, and where what they take of memory is for them: 4 bytes a dimension and vector.
    """

    writes = False
    loads_at_once = True

    def build(self, ann: str) -> Recall:
        """Load the vectors; `ann` is `auto` or `none`, as search is exact."""
        return load_spaces(self, ann, "flat", lambda space: self.load(space, space.multilingual))
