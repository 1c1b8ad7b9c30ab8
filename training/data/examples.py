"""Examples to train on: queries, documents that answer them, hard negatives, and a teacher's scores."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import islice
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
from ...items import Item, windows
from ...media.modalities import to_file
from ...multilingual.collections.base import Collection, MissingPart, fetch_documents
from ...multilingual.collections.records import read_json_lines, to_json_line
from ...multilingual.collections.registry import load_collection
from ...multilingual.languages import fill_languages
from ...rows.fields import FileRow
from .example import Example
from .formats import ExampleFormat, OwnFormat, Place, find_format_of
from .held_out import refuse_test_set
from .judged import select_judged

CARD_FORMAT = 1
LINES = (".jsonl", ".jsonl.gz", ".json", ".json.gz")  # how a file of examples ends
UNKNOWN = "?"  # stands for no known language in a card
SHOWN = 12  # pairs of languages in a line for people


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


def name_pairs(pairs: Mapping[str, int]) -> str:
    """The languages of queries and positives in one line: the commonest `SHOWN`, and how many more there are."""
    common = sorted(pairs.items(), key=lambda pair: -pair[1])[:SHOWN]
    more = [f"{len(pairs) - SHOWN} more pairs in the card"] * (len(pairs) > SHOWN)
    return "queries and positives: " + ", ".join([f"{pair} {number}" for pair, number in common] + more)


def load_examples(data: str | Path, *, force: bool = False) -> Examples:
    """DATA of the command line: a file of examples, or a collection whose judgements are made examples of.

    A file is ours, or of another toolkit (`formats.FORMATS`), known by the keys of its first line; languages that it
    does not give are identified.

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
    try:
        name, form = find_format_of(FileRow.parse(first[1]))
    except InputError as error:
        raise InputError(f"{first[0]}: {error}") from None
    if not isinstance(form, OwnFormat):
        return Examples(str(path), partial(_read_others, path, form), source={"file": path.name, "format": name})
    return _open_file(path)


def _read_others(path: Path, form: ExampleFormat) -> Iterator[Example]:
    """Examples in a format without languages, which are identified as far as they are clear."""
    for some in windows(_read_file(path, form), 64):
        items = iter(fill_languages(item for example in some for item in (example.query, *example.documents)))
        for example in some:
            query, *documents = islice(items, 1 + len(example.documents))
            cut = len(example.positives)
            yield Example(query, tuple(documents[:cut]), tuple(documents[cut:]), example.scores)


def read_examples(path: str | Path) -> Iterator[Example]:
    """The examples of a file as `write_examples` has them, plain or gz, streamed; `InputError` names file and line.

    A line is `{"query": {"id", "text", "lang"}, "positives": [...], "negatives": [...], "scores": [...]}`, the last two
    optional; documents are like queries. A picture, or another medium, is a path relative to the file, whose folder it
    may not leave.
    """
    return _read_file(Path(path), OwnFormat())


def _read_file(path: Path, form: ExampleFormat) -> Iterator[Example]:
    root = path.resolve().parent
    for place, line in read_json_lines(path):
        try:
            yield form.read(FileRow.parse(line), root)
        except InputError as error:
            raise InputError(f"{place}: {error}") from None


def write_as(path: str | Path, examples: Iterable[Example], form: ExampleFormat) -> dict[str, int]:
    """Write examples, streaming, as another toolkit has them; how many `examples`, and `lines` they became.

    The file appears under its name when it is complete. `InputError` where nothing can be written, for media, which
    others' files do not hold, and where no example becomes a line.
    """
    written = Counter[str]()

    def refuse(name: str, value: object, label: str) -> str:
        raise InputError(f"{label} holds {name}, and such a file holds text alone")

    with write_atomically(path) as out:
        for example in examples:
            lines = [*_write_lines(example, form, refuse)]
            out.writelines(lines)
            written.update(examples=bool(lines), lines=len(lines), left_out=not lines)
        if not written["lines"]:
            raise InputError(f"no example becomes a line of {path}: have they enough negatives?")
    return dict(written)


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
            out.writelines(_write_lines(example, OwnFormat(), media.place))
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
        queries, qrels = select_judged(collection, **wording)
    except MissingPart as error:
        raise InputError(f"{error}: without judgements there is nothing to train on; `crosslens synthesize`?") from None
    if not queries:
        raise InputError(f"no topic of {collection.name} has a document of a grade above 0: nothing to train on")
    source = {"collection": collection.name, "topics_without_positives": len(collection.qrels().keys() - qrels.keys())}
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


def _write_lines(example: Example, form: ExampleFormat, place: Place) -> Iterator[str]:
    return (to_json_line(example.query.id, record) for record in form.write(example, place))


def _write_content(example: Example) -> str:
    """A line that says what an example holds, with hashes of media in place of their paths."""

    def place(name: str, value: object, label: str) -> str:
        return hashlib.sha256(to_file(name, value, label)[0]).hexdigest()

    return "".join(_write_lines(example, OwnFormat(), place))


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
