"""What a collection of people's own files passes over without its being an error, counted."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any


@dataclass
class PassedOver:
    """What one pass over files has left out without its being an error: `types` are files of other types, by ending."""

    types: Counter[str] = field(default_factory=Counter)
    hidden: int = 0  # files and folders
    links: int = 0  # that lead out of the folder, to folders, or nowhere
    indexes: int = 0  # folders that are indexes of crosslens
    empty: int = 0
    pictured: int = 0  # pages of PDF files that have no text

    def to_json(self) -> dict[str, Any]:
        """What there is of it, by name."""
        counts = {name: count for name, count in vars(self).items() if count}
        return counts | ({"types": dict(self.types.most_common())} if self.types else {})

    @property
    def notes(self) -> list[str]:
        """A line for each kind of which there are some."""
        notes = []
        if self.types:
            listed = ", ".join(f"{name} {count:,}" for name, count in self.types.most_common(10))
            notes.append(f"{_count(self.types.total(), 'file')} of other types: {listed}")
        if self.hidden:
            notes.append("1 hidden file or folder" if self.hidden == 1 else f"{self.hidden:,} hidden files and folders")
        if self.links:
            notes.append(f"{_count(self.links, 'link')} to folders, out of the folder, or to nothing")
        if self.indexes:
            notes.append("1 index" if self.indexes == 1 else f"{self.indexes:,} indexes")
        if self.empty:
            notes.append(_count(self.empty, "empty file"))
        if self.pictured:
            notes.append(f"{_count(self.pictured, 'page')} without text: --pages takes pages as pictures")
        return notes


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"
