"""An index in one state: what is stored, and what searches it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Self

from ..errors import InputError
from .kinds.base import Kind
from .lexicon import Lexicon
from .statistics import SpaceStatistics
from .storage.storage import Storage


@dataclass(frozen=True)
class Snapshot:
    """The parts of an index that belong together: they are replaced together, when it goes to its next edition."""

    storage: Storage
    kind: Kind
    statistics: SpaceStatistics = field(init=False)
    lexicon: Lexicon = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "statistics", SpaceStatistics(self.storage))
        object.__setattr__(self, "lexicon", Lexicon(self.storage))

    def replace(self, storage: Storage) -> Self:
        """The same index as it is stored now; `InputError` if it is another one."""
        if storage is self.storage:
            return self
        kind = self.kind
        if storage.card.kind != self.storage.card.kind:
            raise InputError(f"{storage.path} is an index of another kind now: open it again")
        found = type(self)(storage, type(kind)(storage, kind.device, kind.detail))
        found.statistics.openings = self.statistics.openings
        return found
