"""Documents of a collection held in memory, for rerankers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from ...errors import InputError, list_few
from ...items import Item
from .base import Collection


@dataclass(frozen=True)
class InMemoryDocuments:
    """Items held in memory, as `Documents`."""

    items: Mapping[str, Item] = field(repr=False)

    def get(self, ids: Sequence[str]) -> list[Item]:
        """The items of `ids`, in that order; `InputError` naming ids that are not there."""
        if lacking := [id for id in ids if id not in self.items]:
            raise InputError(f"no documents with the ids {list_few(lacking)}")
        return [self.items[id] for id in ids]


def fetch_documents(collection: Collection, ids: Iterable[str]) -> InMemoryDocuments:
    """The documents `ids` of a collection, read in one pass, for rerankers; `InputError` on unknown ids."""
    wanted = set(ids)
    held: dict[str, Item] = {}
    for item in collection.docs() if wanted else ():
        if item.id in wanted:
            held[item.id] = item
            if len(held) == len(wanted):
                break
    if lacking := sorted(wanted - held.keys()):
        raise InputError(
            f"{len(lacking)} of {len(wanted)} documents are not in the collection {collection.name}: {list_few(lacking)}"
        )
    return InMemoryDocuments(held)
