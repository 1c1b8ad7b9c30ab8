"""Passages that count together with their whole documents: both vectors of each, and what is made of the two.

A passage's row holds the sum of its own vector and its document's, by their shares of the score, unscaled: so its inner
product with a query is the sum of both scores, and the best row of a document has the score of the document. Beside it
stands the vector of the whole, without which the two could not be corrected one by one. A document that is one passage
has one vector, which is its own whole.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..encoders.base import EncoderSpec
from ..items import Item
from ..media.modalities import join_modalities


@dataclass(frozen=True)
class DocumentPart(Item):
    """A part of a document on its way into an index, with all of the document's `whole` text where that counts, too."""

    whole: str | None = None


def list_wholes(spec: EncoderSpec, items: Sequence[Item]) -> tuple[list[Item], np.ndarray]:
    """The whole documents of passages, each once, and which of them is that of each item, int64 [n]; -1 for none.

    What a document has beside its text is in one passage, and counts in that one's whole alone.
    """
    wholes: dict[Hashable, tuple[int, Item]] = {}
    of = np.full(len(items), -1, np.int64)
    for row, item in enumerate(items):
        if isinstance(item, DocumentPart) and item.whole is not None:
            more = item.id if join_modalities(item.modalities & set(spec.modalities)) != "text" else ""
            whole = replace(item, text=item.whole, whole=None)
            of[row], _ = wholes.setdefault((item.whole, item.lang, more), (len(wholes), whole))
    return [whole for _, whole in wholes.values()], of


def join_vectors(own: np.ndarray, wholes: np.ndarray, share: float) -> np.ndarray:
    """The sums float32 [n, dim] of passages' own vectors and of their wholes', nan where a passage is the whole."""
    sums: np.ndarray = np.where(np.isnan(wholes), own, share * own + (1 - share) * wholes)
    return sums


def part_vectors(sums: np.ndarray, wholes: np.ndarray, share: float) -> tuple[np.ndarray, np.ndarray]:
    """Passages' own vectors and their wholes' from what `join_vectors` made; both are the sum where that is nan."""
    alone = np.isnan(wholes)
    return np.where(alone, sums, (sums - (1 - share) * wholes) / share), np.where(alone, sums, wholes)
