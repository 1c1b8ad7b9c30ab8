"""The contract of indexes: `Index`, the `Searcher` inside it, filters, and the recall that `build` measures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np

from ..encoders.base import Encoder, EncoderSpec
from ..errors import InputError
from ..items import Item
from ..runs import Run
from .card import Card

# Field (`lang`, `modality`, or a key of `Item.meta`) -> the value it must have, or one of several.
Where = Mapping[str, str | int | float | bool | Sequence[str | int | float | bool]]
Mode = Literal["dense", "lexical", "hybrid"]


@dataclass(frozen=True)
class Recall:
    """What approximate search finds of what exact search finds, measured on stored vectors as queries.

    `kind` is the index that was built (`flat` when exact search is used); `at` maps a cutoff to recall in 0..1.
    """

    kind: str
    queries: int = 0
    at: Mapping[int, float] = field(default_factory=dict)
    seconds: float = 0.0


class Index(Protocol):
    """Vectors, full text and the documents behind them, in one place."""

    @property
    def path(self) -> str: ...

    @property
    def card(self) -> Card:
        """What it is: its kind, encoders, settings, counts."""
        ...

    @property
    def langs(self) -> Mapping[str, int]:
        """Documents of each language, most first; those without a language are left out."""
        ...

    @property
    def fingerprint(self) -> str:
        """12 hex digits over the documents, the spaces and the search structures."""
        ...

    def __len__(self) -> int:
        """How many documents it holds."""
        ...

    @property
    def specs(self) -> Sequence[EncoderSpec]:
        """The encoders whose vectors it holds."""
        ...

    def add(self, items: Iterable[Item], encoders: Encoder | Sequence[Encoder]) -> int:
        """Encode and store; returns how many items were new or changed. Idempotent by id: a rerun resumes."""
        ...

    def build(self, ann: str = "auto") -> Recall:
        """Make the search structures; recall is measured against exact search, never assumed."""
        ...

    def ready(self) -> None:
        """Load the encoders, so that the first search need not."""
        ...

    def search(
        self,
        queries: Iterable[Item] | Run,
        k: int,
        *,
        where: Where | None = None,
        exact: bool = False,
        mode: Mode = "dense",
        correct: bool = True,
    ) -> Run:
        """The k best documents of each query as a `Run` that keeps this index as its `docs`."""
        ...

    def get(self, ids: Sequence[str]) -> list[Item]:
        """The stored items of `ids`, in that order; `InputError` naming unknown ids."""
        ...


class Searcher(Protocol):
    """Nearest neighbours by inner product among the rows of one space."""

    def nearest(
        self, queries: np.ndarray, k: int, allowed: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Rows int64 [q, k] and scores float32 [q, k], best first; -1 and -inf where there are fewer than k.

        `queries` is float32 [q, dim]; `allowed` is a boolean mask over the rows.
        """
        ...


def check_k(k: int) -> None:
    """`InputError` unless k is at least 1."""
    if k < 1:
        raise InputError(f"k must be at least 1, not {k}")
