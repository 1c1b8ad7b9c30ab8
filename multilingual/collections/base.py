"""What every collection offers, its counts, and the check that holds its parts against each other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol, runtime_checkable

from ...errors import InputError, list_few
from ...items import Item
from ...runs import Qrels
from .topics import Source, check_topic_languages


@dataclass(frozen=True)
class CollectionCounts:
    """What `check` found; `langs` counts documents by language (`""`: not given), `skipped` bad lines."""

    documents: int
    langs: Mapping[str, int]
    images: int
    queries: int
    judged: int = 0
    relevant: int = 0
    skipped: int = 0


class MissingPart(InputError):
    """The collection has no topics, or no judgements."""


@runtime_checkable
class Collection(Protocol):
    """Documents, queries and judgements that belong together.

    `queries` takes what NeuCLIR topics offer: `fields` ("title+description"), `lang` (of the query) and
    `source`; None means the collection's own choice. `qrels` and `queries` raise `MissingPart`, an `InputError`,
    where there are none.
    """

    @property
    def name(self) -> str: ...

    @property
    def langs(self) -> frozenset[str]: ...

    def docs(self) -> Iterator[Item]: ...

    def queries(
        self, *, fields: str | None = None, lang: str | None = None, source: Source | None = None
    ) -> Iterable[Item]: ...

    def qrels(self) -> Qrels: ...

    def check(self) -> CollectionCounts:
        """Read everything once and count it; `InputError` on what does not fit together."""
        ...


def check_collection(
    docs: Iterable[Item],
    topics: Iterable[Item],
    qrels: Qrels,
    where: str,
    published: Mapping[str, int] = MappingProxyType({}),
) -> CollectionCounts:
    """CollectionCounts of a collection; `InputError` on no documents, or judgements of unknown topics or documents.

    Also on another number of documents in a language than was `published` (both are named), and where all
    documents have a language and no topic is meant for any of them.
    """
    topics = list(topics)
    known = {topic.id for topic in topics}
    judged = {doc for grades in qrels.values() for doc in grades}
    unknown = set(judged)
    langs: Counter[str] = Counter()
    images = 0
    for doc in docs:
        langs[doc.lang or ""] += 1
        images += doc.image is not None
        unknown.discard(doc.id)
    if not langs:
        raise InputError(f"{where} has no documents")
    for lang, expected in published.items():
        if langs[lang] != expected:
            raise InputError(
                f"{where} has {langs[lang]:,} documents{' in ' * bool(lang)}{lang}, but {expected:,} were published: "
                "complete the files, or add sample=true to use what is there"
            )
    if "" not in langs:
        check_topic_languages(topics, langs, where)
    if strangers := [topic for topic in qrels if topic not in known]:
        raise InputError(f"the qrels of {where} judge topics that it does not have: {list_few(strangers)}")
    if unknown:
        raise InputError(
            f"the qrels of {where} judge documents that it does not have: {list_few(sorted(unknown))}"
        )
    return CollectionCounts(
        documents=langs.total(),
        langs=dict(langs.most_common()),
        images=images,
        queries=len(known),
        judged=sum(len(grades) for grades in qrels.values()),
        relevant=sum(grade > 0 for grades in qrels.values() for grade in grades.values()),
    )
