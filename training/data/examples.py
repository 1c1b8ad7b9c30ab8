"""Examples to train on: queries, documents that answer them, hard negatives, and a teacher's scores."""

from __future__ import annotations

import hashlib
import math
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from ...errors import InputError, list_few
from ...files import (
    check_file,
    find_target,
    hash_file,
    is_stream,
    place_atomically,
    read_json,
    write_atomically,
    write_json,
)
from ...items import Item
from ...media.modalities import to_file
from ...multilingual.collections.base import Collection, MissingPart, fetch_documents
from ...multilingual.collections.records import FileRow, make_item, read_json_lines, to_json_line
from ...multilingual.collections.registry import load_collection
from ...multilingual.languages import fill_languages
from .held_out import refuse_test_set

CARD_FORMAT = 1
LINES = (".jsonl", ".jsonl.gz", ".json", ".json.gz")  # how a file of examples ends
UNKNOWN = "?"  # stands for no known language in a card


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


@dataclass(frozen=True)
class Examples:
    """Examples of a file or a collection, streamed each time they are asked for.

    `name` is for people; `judged` the name of the collection whose topics they are, empty where that is not known.
    `source` says where they come from, JSON-able. `counted` is what is known of them without a pass over all.
    """

    name: str
    read: Callable[[], Iterator[Example]]
    judged: str = ""
    source: Mapping[str, Any] = field(default_factory=dict)
    counted: Mapping[str, Any] | None = None

    def __iter__(self) -> Iterator[Example]:
        return self.read()

    def __len__(self) -> int:
        return int(self.card["examples"])

    @cached_property
    def card(self) -> Mapping[str, Any]:
        """Counts of examples, documents and languages, a sha256, and the `source`; takes a pass if none was taken."""
        if self.counted is not None:
            return self.counted
        tally, hashing = Tally(), hashlib.sha256()
        for example in self:
            tally.add(example)
            hashing.update(_write_content(example).encode())
        return {"format": CARD_FORMAT, **tally.describe(), "sha256": hashing.hexdigest(), "source": dict(self.source)}

    @property
    def langs(self) -> frozenset[str]:
        """The languages of queries and documents, those that are known."""
        return frozenset(lang for held in self.card["langs"].values() for lang in held) - {UNKNOWN}

    def check_enough(self, least: int) -> None:
        """`InputError` unless there are so many examples."""
        if len(self) < least:
            raise InputError(f"{self.name} has {len(self)} examples, and {least} are needed at least")

    def check_languages(self, langs: Iterable[str]) -> None:
        """`InputError` naming those of the languages in which there is no query and no document."""
        if lacking := sorted(set(langs) - self.langs):
            held = list_few(sorted(self.langs), 8)
            raise InputError(f"{self.name} has nothing in {', '.join(lacking)}, only in {held}")


class Tally:
    """What a card counts: examples, positives, negatives, those that are scored, and their languages."""

    def __init__(self) -> None:
        self.examples = self.scored = 0
        self.langs: dict[str, Counter[str]] = {part: Counter() for part in ("queries", "positives", "negatives")}
        self.pairs: Counter[str] = Counter()

    def add(self, example: Example) -> None:
        """Count an example."""
        self.examples += 1
        self.scored += bool(example.scores)
        asked = example.query.lang or UNKNOWN
        parts = ((example.query,), example.positives, example.negatives)
        for counts, items in zip(self.langs.values(), parts, strict=True):
            counts.update(item.lang or UNKNOWN for item in items)
        self.pairs.update(f"{asked}-{document.lang or UNKNOWN}" for document in example.positives)

    def describe(self) -> dict[str, Any]:
        """As the card has it: `pairs` are the languages of query and positive, `langs` those of each part."""
        return {
            "examples": self.examples,
            "positives": self.langs["positives"].total(),
            "negatives": self.langs["negatives"].total(),
            "scored": self.scored,
            "pairs": dict(sorted(self.pairs.items())),
            "langs": {part: dict(sorted(counts.items())) for part, counts in self.langs.items()},
        }


def load_examples(data: str | Path, *, force: bool = False) -> Examples:
    """DATA of the command line: a file of examples, or a collection whose judgements are made examples of.

    Of a collection a topic is an example if a document has a grade above 0; those that were judged not relevant are its
    negatives. Its documents are held in memory once they are asked for. `InputError` for what is neither, for a
    collection without a positive, for a file that is not what its card describes, and, unless forced, for what is
    called a test set (`held_out.is_test_set`).
    """
    path = Path(data)
    if path.is_dir() or (not path.exists() and not str(data).endswith(LINES)):
        collection = load_collection(data)
        if not force:
            refuse_test_set(data, collection)
        return join_collection(collection)
    check_file(path)
    if not force:
        refuse_test_set(path)
    first = next(read_json_lines(path), None)
    if first is None:
        raise InputError(f"{path} is empty: no examples in it")
    return _open_file(path)


def read_examples(path: str | Path) -> Iterator[Example]:
    """The examples of a file as `write_examples` has them, plain or gz, streamed; `InputError` names file and line.

    A line is `{"query": {"id", "text", "lang"}, "positives": [...], "negatives": [...], "scores": [...]}`, the last two
    optional; documents are like queries. A picture, or another medium, is a path relative to the file, whose folder it
    may not leave.
    """
    path = Path(path)
    root = path.resolve().parent
    for place, line in read_json_lines(path):
        try:
            yield _parse_example(FileRow.parse(line), root)
        except InputError as error:
            raise InputError(f"{place}: {error}") from None


def write_examples(path: str | Path, examples: Iterable[Example], source: Mapping[str, Any]) -> dict[str, Any]:
    """Write examples, streaming, and FILE.card.json beside them; the card is returned.

    The file appears under its name when it is complete, packed where that ends in `.gz`. Media that do not lie in its
    folder are copied to FILE.media/, once each. `source` says where they come from (collection, index, run, seed), and
    stands in the card. `InputError` where nothing can be written, and for no example at all.
    """
    path = find_target(path)
    if not path.parent.is_dir():
        raise InputError(f"there is no directory {path.parent} to write {path.name} in")
    if is_stream(path):
        raise InputError(f"{path} is a stream, and examples have a card beside them: name a file")
    media = _MediaFolder(path)
    tally = Tally()
    with write_atomically(path) as out:
        for example in examples:
            out.write(_write_line(example, media.place))
            tally.add(example)
        if not tally.examples:
            raise InputError(f"no examples to write to {path}")
        with suppress(FileNotFoundError):
            _name_card(path).unlink()  # so that a kill leaves no card of other examples
    card = {"format": CARD_FORMAT, **tally.describe(), "sha256": hash_file(path), "source": dict(source)}
    write_json(_name_card(path), card)
    return card


def join_collection(collection: Collection, **wording: Any) -> Examples:
    """The judgements of a collection as examples, their documents joined by id; `InputError` as `load_examples`.

    `wording` (`fields`, `lang`, `source`) is that of the topics, as `Collection.queries` takes it.
    """
    try:
        qrels = collection.qrels()
    except MissingPart as error:
        raise InputError(f"{error}: without judgements there is nothing to train on; `crosslens synthesize`?") from None
    topics = collection.queries(**wording)
    asked = [query for query in topics if any(grade > 0 for grade in qrels.get(query.id, {}).values())]
    if not asked:
        raise InputError(f"no topic of {collection.name} has a document of a grade above 0: nothing to train on")
    queries = list(fill_languages(asked))
    source = {
        "collection": collection.name,
        "topics_without_positives": len(qrels.keys() - {each.id for each in asked}),
    }
    held: dict[str, Item] = {}

    def read() -> Iterator[Example]:
        if not held:
            wanted = dict.fromkeys(document for query in queries for document in qrels[query.id])
            found = fetch_documents(collection, wanted).items
            held.update((item.id, item) for item in fill_languages(found.values()))
        for query in queries:
            grades = qrels[query.id]
            yield Example(
                query,
                tuple(held[document] for document, grade in grades.items() if grade > 0),
                tuple(held[document] for document, grade in grades.items() if grade <= 0),
            )

    return Examples(collection.name, read, collection.name, source)


def _open_file(path: Path) -> Examples:
    card = _name_card(path)
    read = partial(read_examples, path)
    if not os.path.lexists(card):
        return Examples(str(path), read, source={"file": path.name})
    counted = read_json(card)
    try:
        if counted["format"] != CARD_FORMAT:
            raise InputError(f"{card} has the format {counted['format']}, and this version knows {CARD_FORMAT}")
        same = counted["sha256"] == hash_file(path)
        source = counted["source"]
        judged = str(source.get("collection", ""))
        _ = counted["examples"] + sum(map(len, counted["langs"].values()))
    except (KeyError, TypeError, AttributeError):
        raise InputError(f"{card} is no card of examples: remove it, and they are counted again") from None
    if not same:
        raise InputError(
            f"{path} is not what {card.name} describes (its sha256 differs): remove the card if it should be"
        )
    return Examples(str(path), read, judged, source, counted)


def _name_card(path: Path) -> Path:
    return path.with_name(path.name + ".card.json")


def _parse_example(fields: FileRow, root: Path) -> Example:
    query = fields.get("query")
    if not isinstance(query, dict):
        raise InputError("no query: an example is an object with query and positives")
    documents = {
        key: tuple(_parse_item(each, root, "document") for each in _read_list(fields, key))
        for key in ("positives", "negatives")
    }
    scores = _read_list(fields, "scores")
    if not all(isinstance(score, int | float) and not isinstance(score, bool) for score in scores):
        raise InputError("scores must be numbers")
    return Example(_parse_item(query, root, "query"), **documents, scores=tuple(map(float, scores)))


def _parse_item(given: object, root: Path, what: str) -> Item:
    if not isinstance(given, dict):
        raise InputError(f"a {what} must be an object with id and text, not {type(given).__name__}")
    fields = FileRow(given)
    return make_item(what, fields.read_id(), fields.read_text("text"), fields.read_media(root), fields.read_lang(), {})


def _read_list(fields: FileRow, key: str) -> list[Any]:
    value = fields.get(key)
    if value is None:
        return []
    if not isinstance(value, list):
        raise InputError(f"{key} must be a list, not {type(value).__name__}")
    return value


def _write_line(example: Example, place: Callable[[str, object, str], str]) -> str:
    """The line of an example; `place` gives the path of a medium."""

    def write(item: Item) -> dict[str, Any]:
        media = {name: place(name, each, repr(item.id)) for name, each in item.contents.items() if each is not None}
        return {"id": item.id, **{key: each for key in ("text", "lang") if (each := getattr(item, key))}, **media}

    record: dict[str, Any] = {"query": write(example.query), "positives": [*map(write, example.positives)]}
    if example.negatives:
        record["negatives"] = [*map(write, example.negatives)]
    if example.scores:
        record["scores"] = list(example.scores)
    return to_json_line(example.query.id, record)


def _write_content(example: Example) -> str:
    """A line that says what an example holds, with hashes of media in place of their paths."""
    return _write_line(example, lambda name, value, label: hashlib.sha256(to_file(name, value, label)[0]).hexdigest())


class _MediaFolder:
    """Where media of a file of examples lie: where they are if that is in its folder, else copied, named by hash."""

    def __init__(self, path: Path) -> None:
        self.root = path.parent.resolve()
        self.copies = self.root / f"{path.name}.media"

    def place(self, name: str, value: object, label: str) -> str:
        """The path of a medium relative to the file."""
        if isinstance(value, Path) and (there := Path(os.path.realpath(value))).is_relative_to(self.root):
            return str(there.relative_to(self.root))
        content, suffix = to_file(name, value, label)
        digest = hashlib.sha256(content).hexdigest()
        copy = self.copies / digest[:2] / f"{digest[2:34]}{suffix}"
        if not copy.exists():
            try:
                copy.parent.mkdir(parents=True, exist_ok=True)
                with place_atomically(copy) as partial:
                    partial.write_bytes(content)
            except OSError as error:
                raise InputError(f"cannot write {copy}: {error.strerror}") from None
        return str(copy.relative_to(self.root))
