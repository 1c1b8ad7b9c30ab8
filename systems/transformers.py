"""The transformer that a stage becomes: PyTerrier is imported with this module."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyterrier

from ..pipeline import Stage
from ..runs import Documents
from .pyterrier_frames import apply_stage

if TYPE_CHECKING:
    import pandas


class StageTransformer(pyterrier.Transformer):
    """`pyterrier.as_transformer`: a stage that maps data frames to data frames."""

    def __init__(self, stage: Stage, docs: Documents | None = None) -> None:
        self.stage = stage
        self.documents = docs

    def transform(self, inp: pandas.DataFrame) -> pandas.DataFrame:
        """The hits of a frame of queries, or of queries and hits, in PyTerrier's columns."""
        return apply_stage(self.stage, inp, self.documents)

    def __repr__(self) -> str:
        return f"crosslens({self.stage})"
