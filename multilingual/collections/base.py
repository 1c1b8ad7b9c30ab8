"""What every collection offers, its counts, the check that holds its parts together, and documents held in memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, NoReturn, Protocol, runtime_checkable

from ...errors import InputError, UnreadableItem, list_few
from ...items import Item, SeenIds
from ...rows.fields import FileRow
from ...runs import Qrels
from .passed import PassedOver
from .records import Rows
from .topics import Source, check_topic_languages

PROBLEMS = 10  # bad rows that are described; all are counted


class MissingPart(InputError):
    """The collection has no documents, no topics, or no judgements."""


class MediaCounts:
    """Base of the dataclasses that count a collection; `media` counts what is not text, by modality."""

    media: Mapping[str, int]

    @property
    def images(self) -> int:
        """How many pictures there are."""
        return self.media.get("image", 0)

    def to_json(self) -> dict[str, Any]:
        """The counts by name; pictures as `images`, other media in `media`, if there are any."""
        counts = {name: dict(each) if isinstance(each, Mapping) else each for name, each in vars(self).items()}
        others = {name: count for name, count in counts.pop("media").items() if name != "image"}
        return counts | {"images": self.images} | ({"media": others} if others else {})


@dataclass(frozen=True)
class CollectionCounts(MediaCounts):
    """What `check` counted: `langs` documents by language (`""`: not given), `media` documents by what they hold
    beside text, `judged` judgements, `relevant` those of a grade above 0, `skipped` bad rows."""

    documents: int
    langs: Mapping[str, int]
    media: Mapping[str, int]
    queries: int
    judged: int = 0
    relevant: int = 0
    skipped: int = 0

    @classmethod
    def from_json(cls, counts: Mapping[str, Any]) -> CollectionCounts:
        """What `to_json` gave."""
        own = {name: count for name, count in counts.items() if name not in ("images", "media")}
        images = {"image": counts["images"]} if counts["images"] else {}
        return cls(media=images | counts.get("media", {}), **own)


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


class FileCollection:
    """What collections read from files share: bad rows are named by file and line, or skipped; an id occurs once.

    Files are streamed; of documents already read only a 64-bit hash of the id is kept. With `skip_bad` bad rows are
    counted in `skipped` in place of being errors, and `problems` describes the first ten. A kind gives `document_rows`,
    `read_document`, `queries` and `qrels`.
    """

    name: str

    def __init__(self, *, skip_bad: bool = False) -> None:
        self.skip_bad = skip_bad
        self.passed = PassedOver()  # by the latest pass, of a kind that leaves something out on purpose
        # By what was read (documents, topics), so that a second pass does not count twice.
        self._skipped: Counter[str] = Counter()
        self._problems: dict[str, list[str]] = {}

    @property
    def skipped(self) -> int:
        """How many bad rows the latest passes left out."""
        return self._skipped.total()

    @property
    def problems(self) -> list[str]:
        """What was wrong with the first of them, at most ten."""
        return [problem for problems in self._problems.values() for problem in problems][:PROBLEMS]

    def docs(self) -> Iterator[Item]:
        """The documents, streamed in the order of the files."""
        return self.read_items("documents", self.document_rows(), self.read_document)

    def document_rows(self) -> Rows:
        """The rows of all documents with their places: lines of JSON, or what `read_document` takes."""
        raise NotImplementedError

    def read_document(self, row: Any) -> Item | None:
        """The document of a row, a `FileRow` where it was a line; None leaves it out, `InputError` if it is wrong."""
        raise NotImplementedError

    def read_items(self, what: str, rows: Rows, read: Callable[[Any], Item | None]) -> Iterator[Item]:
        """The items of rows, as `docs` gives them; `what` they are keeps their problems apart from others'."""
        self._skipped[what], self._problems[what] = 0, []
        seen = SeenIds()
        for place, row in rows:
            try:
                item = read(FileRow.parse(row) if type(row) is bytes else row)
                if item is not None and seen.add(item.id):
                    raise InputError(f"the id {item.id!r} occurs a second time")
            except InputError as error:
                problem = f"{place}: {error}"
                if not self.skip_bad:
                    raise UnreadableItem(problem) from None
                self._skipped[what] += 1
                if len(self._problems[what]) < PROBLEMS:
                    self._problems[what].append(problem)
                continue
            if item is not None:
                yield item


class DocumentsAlone(FileCollection):
    """What people have lying about, without topics and judgements; `shown` is what errors call it."""

    shown: str

    def queries(self, *, fields: str | None = None, lang: str | None = None, source: Source | None = None) -> NoReturn:
        """`MissingPart`: there are documents alone."""
        raise MissingPart(f"{self.shown} has no topics: they need a directory with docs.jsonl and topics.jsonl")

    def qrels(self) -> NoReturn:
        """`MissingPart`: there are documents alone."""
        raise MissingPart(f"{self.shown} has no qrels: they need a directory with docs.jsonl and qrels.txt")


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
    return InMemoryDocuments({item.id: item for item in find_documents(collection, ids)})


def find_documents(
    collection: Collection, ids: Iterable[str], what: str = "documents", where: str = ""
) -> Iterator[Item]:
    """The documents `ids` of a collection in its order, read no further than the last; `InputError` on unknown ids."""
    lacking = set(ids)
    number = len(lacking)
    for item in collection.docs() if lacking else ():
        if item.id in lacking:
            lacking.discard(item.id)
            yield item
            if not lacking:
                return
    if lacking:
        few = list_few(sorted(lacking))
        raise InputError(
            f"{len(lacking)} of {number} {what} are not in the collection {where or collection.name}: {few}"
        )


def check_collection(
    collection: Collection, where: str, published: Mapping[str, int] = MappingProxyType({})
) -> CollectionCounts:
    """Counts of a collection; `InputError` on no documents, or judgements of unknown topics or documents.

    Also on another number of documents in a language than was `published` (the text gives both), and where all
    documents have a language and no topic is meant for any of them.
    """
    topics: list[Item] = []
    qrels: Qrels = {}
    with suppress(MissingPart):
        topics = list(collection.queries())
    with suppress(MissingPart):
        qrels = collection.qrels()
    unknown = {doc for grades in qrels.values() for doc in grades}
    langs: Counter[str] = Counter()
    media: Counter[str] = Counter()
    for doc in collection.docs():
        langs[doc.lang or ""] += 1
        if doc.image is not None or doc.media:
            media.update(doc.modalities - {"text"})
        unknown.discard(doc.id)
    if not langs:
        first = next(iter(getattr(collection, "problems", ())), "")
        raise InputError(f"{where} has no documents" + (f" that can be read: {first}" if first else ""))
    for lang, expected in published.items():
        check_count(where, langs[lang], expected, f"documents in {lang}" if lang else "documents")
    if "" not in langs:
        check_topic_languages(topics, langs, where)
    known = {topic.id for topic in topics}
    if strangers := [topic for topic in qrels if topic not in known]:
        raise InputError(f"the qrels of {where} judge topics that it does not have: {list_few(strangers)}")
    if unknown:
        raise InputError(f"the qrels of {where} judge documents that it does not have: {list_few(sorted(unknown))}")
    grades = [grade for judged in qrels.values() for grade in judged.values()]
    return CollectionCounts(
        documents=langs.total(),
        langs=dict(langs.most_common()),
        media=dict(media),
        queries=len(known),
        judged=len(grades),
        relevant=sum(grade > 0 for grade in grades),
        skipped=getattr(collection, "skipped", 0),
    )


def check_count(where: str, found: int, expected: int, what: str) -> None:
    """`InputError` with both numbers unless as many were found as were published."""
    if found != expected:
        raise InputError(
            f"{where} has {found:,} {what}, but {expected:,} were published: "
            "complete the files, or add sample=true to use what is there"
        )
