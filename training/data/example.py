"""An example to train on."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ...errors import InputError
from ...items import Item


@dataclass(frozen=True, slots=True)
class Example:
    """A query, documents that answer it, documents that do not, and what a teacher scored them.

    `negatives` are hard ones; those of the batch are the trainer's matter. `scores` are of the positives and then the
    negatives, the higher the better, in the teacher's own unit; empty where there is no teacher. `InputError` for no
    positive, a document that is positive and negative, scores of another number, and a score that is not finite.
    """

    query: Item
    positives: tuple[Item, ...]
    negatives: tuple[Item, ...] = ()
    scores: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if not self.positives:
            raise InputError(f"the query {self.query.id!r} has no positive: training needs one at least")
        positive = {document.id for document in self.positives}
        if both := next((document.id for document in self.negatives if document.id in positive), None):
            raise InputError(f"the document {both!r} is a positive and a negative of the query {self.query.id!r}")
        if self.scores and len(self.scores) != len(self.documents):
            raise InputError(
                f"the query {self.query.id!r} has {len(self.scores)} scores for {len(self.positives)} positives and "
                f"{len(self.negatives)} negatives: give one each, or none"
            )
        if not all(map(math.isfinite, self.scores)):
            raise InputError(f"a score of the query {self.query.id!r} is not finite")

    @property
    def documents(self) -> tuple[Item, ...]:
        """The positives and then the negatives, as `scores` has them."""
        return (*self.positives, *self.negatives)
