"""A subset of a collection with questions of its own: what adaptation trains on, is watched on, and is measured on."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ...items import Item, hash_text
from ...multilingual.collections.base import Collection, CollectionCounts, check_collection
from ...multilingual.languages import fill_languages
from ...runs import Qrels
from ..data.titles import take_head


@dataclass(frozen=True)
class Subset:
    """Some documents of a collection, a few of them in other words, with queries and judgements.

    `chosen` are the ids that it has, `replaced` the documents that stand in the place of those of the same id: a title
    that became a query is not in the document then.
    """

    name: str
    whole: Collection = field(repr=False)
    chosen: Container[str] = field(repr=False)
    asked: Sequence[Item] = field(repr=False)
    judged: Qrels = field(repr=False)
    replaced: Mapping[str, Item] = field(default_factory=dict, repr=False)

    @property
    def langs(self) -> frozenset[str]:
        return self.whole.langs

    def docs(self) -> Iterator[Item]:
        for item in fill_languages(self.whole.docs()):
            if item.id in self.chosen:
                yield self.replaced.get(item.id, item)

    def queries(self, **wording: Any) -> Iterable[Item]:
        """All of its queries; they have one wording."""
        return self.asked

    def qrels(self) -> Qrels:
        return self.judged

    def check(self) -> CollectionCounts:
        return check_collection(self, self.name)


@dataclass(frozen=True)
class Made:
    """What a source made of the documents: queries, judgements, and the documents as they are to be trained on."""

    source: str
    asked: Sequence[Item]
    judged: Qrels
    documents: Mapping[str, Item]

    @classmethod
    def read(cls, source: str, collection: Collection) -> Made:
        """What `synthesize` wrote."""
        documents = {item.id: item for item in fill_languages(collection.docs())}
        return cls(source, tuple(collection.queries()), collection.qrels(), documents)

    def ask_about(self, documents: Container[str]) -> list[Item]:
        """The queries all of whose documents are among these."""
        return [query for query in self.asked if all(id in documents for id in self.judged[query.id])]


def draw_share(ids: Iterable[str], share: float, most: int, *what: object) -> list[str]:
    """So many of the ids as `share` says, `most` at most; those that `what` decides, in whatever order they come."""
    drawn = sorted(ids, key=lambda id: hash_text("\0".join(map(str, (*what, id)))))
    return drawn[: min(most, int(share * len(drawn)))]


def hold_out(
    made: Sequence[Made], documents: Container[str], name: str, whole: Collection, chosen: Container[str]
) -> Subset:
    """The queries about the documents, which nothing may be trained on: each document has those of one source.

    So each stands in the collection once, as that source has it.
    """
    sources: dict[str, int] = {}
    for number, each in enumerate(made):
        for query in each.asked:
            for id in each.judged[query.id]:
                if id in documents and (id not in sources or _draw(id, number) < _draw(id, sources[id])):
                    sources[id] = number
    asked: list[Item] = []
    judged: dict[str, Mapping[str, int]] = {}
    for number, each in enumerate(made):
        for query in each.ask_about(documents):
            if all(sources[id] == number for id in each.judged[query.id]):
                new = Item(f"{number}~{query.id}", query.text, lang=query.lang)  # ids are those of a source
                asked.append(new)
                judged[new.id] = each.judged[query.id]
    replaced = {id: made[number].documents[id] for id, number in sources.items()}
    return Subset(name, whole, chosen, asked, judged, replaced)


def list_heads(collection: Collection, ids: Container[str]) -> set[str]:
    """The title of each of these documents, or its first sentence."""
    return {take_head(item)[0] for item in collection.docs() if item.id in ids} - {""}


def _draw(id: str, number: int) -> int:
    return hash_text(f"{id}\0{number}")
