"""JSON lines of training data, ours and those of other toolkits: known by their keys, read as examples, written."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, ClassVar, Protocol

from ...errors import InputError, check_at_least, list_few
from ...items import Item, hash_text
from ...rows.fields import FileRow, make_item
from ...specs import Spec, bind_options, find_factory
from .example import Example

Place = Callable[[str, object, str], str]  # the path of a medium, given its kind, itself, and whose it is


class ExampleFormat(Protocol):
    """How examples stand in lines of JSON."""

    def fits(self, row: FileRow) -> bool:
        """Whether a line is of this format, by its keys."""
        ...

    def read(self, row: FileRow, root: Path) -> Example:
        """The example of a line, media relative to `root`; `InputError` for what is wrong with it."""
        ...

    def write(self, example: Example, place: Place) -> Iterator[dict[str, Any]]:
        """The lines of an example, none where the format cannot hold it."""
        ...


@dataclass(frozen=True)
class OwnFormat:
    """`crosslens`: query, positives, negatives and scores, with languages and media."""

    def fits(self, row: FileRow) -> bool:
        return isinstance(row.get("query"), dict)

    def read(self, row: FileRow, root: Path) -> Example:
        query = row.get("query")
        if not isinstance(query, dict):
            raise InputError("no query: an example is an object with query and positives")
        positives, negatives = (
            tuple(_read_item(each, root, "document") for each in _read_list(row, key))
            for key in ("positives", "negatives")
        )
        return Example(_read_item(query, root, "query"), positives, negatives, _read_scores(row))

    def write(self, example: Example, place: Place) -> Iterator[dict[str, Any]]:
        def write(item: Item) -> dict[str, Any]:
            media = {name: place(name, each, repr(item.id)) for name, each in item.contents.items() if each is not None}
            return {"id": item.id, **{key: each for key in ("text", "lang") if (each := getattr(item, key))}, **media}

        record: dict[str, Any] = {"query": write(example.query), "positives": [*map(write, example.positives)]}
        if example.negatives:
            record["negatives"] = [*map(write, example.negatives)]
        if example.scores:
            record["scores"] = list(example.scores)
        yield record


@dataclass(frozen=True)
class TevatronFormat:
    """`tevatron`, `miracl`: query_id, query, positive_passages and negative_passages of docid, title and text."""

    def fits(self, row: FileRow) -> bool:
        return "positive_passages" in row

    def read(self, row: FileRow, root: Path) -> Example:
        text = _read_query(row, "query")
        query = Item(row.read_id("query_id") if "query_id" in row else _name_text(text), text)
        positives, negatives = (
            tuple(self._read_passage(each) for each in _read_list(row, key))
            for key in ("positive_passages", "negative_passages")
        )
        return Example(query, positives, negatives)

    def write(self, example: Example, place: Place) -> Iterator[dict[str, Any]]:
        _check_texts(example, "tevatron")
        positives, negatives = (
            [{"docid": each.id, "title": "", "text": each.text} for each in some]
            for some in (example.positives, example.negatives)
        )
        yield {
            "query_id": example.query.id, "query": example.query.text, "positive_passages": positives,
            "negative_passages": negatives,
        }  # fmt: skip

    def _read_passage(self, given: object) -> Item:
        if not isinstance(given, dict):
            raise InputError(f"a passage must be an object with docid, title and text, not {type(given).__name__}")
        row = FileRow(given)
        text = row.join_texts("title", "text")
        if text is None:
            raise InputError(f"the passage {row.get('docid')!r} has no text")
        return Item(row.read_id("docid") if "docid" in row else _name_text(text), text)


@dataclass(frozen=True)
class ListFormat:
    """`mteb`: a query and lists of texts, `positive` and `negative`; it holds no scores."""

    keys: ClassVar[tuple[str, str]] = ("positive", "negative")
    scored: ClassVar[bool] = False

    def fits(self, row: FileRow) -> bool:
        return isinstance(row.get(self.keys[0]), list)

    def read(self, row: FileRow, root: Path) -> Example:
        text = _read_query(row, "query")
        positives, negatives = (tuple(map(_make_document, _read_list(row, key))) for key in self.keys)
        scores = [score for key in self.keys for score in _read_scores(row, f"{key}_scores")]
        return Example(Item(_name_text(text), text), positives, negatives, tuple(scores))

    def write(self, example: Example, place: Place) -> Iterator[dict[str, Any]]:
        _check_texts(example, " or ".join(self.keys))
        texts = [[each.text for each in some] for some in (example.positives, example.negatives)]
        record: dict[str, Any] = {"query": example.query.text, **dict(zip(self.keys, texts, strict=True))}
        if self.scored and example.scores:
            cut = len(example.positives)
            halves = example.scores[:cut], example.scores[cut:]
            record |= {f"{key}_scores": list(half) for key, half in zip(self.keys, halves, strict=True)}
        yield record


@dataclass(frozen=True)
class BgeFormat(ListFormat):
    """`bge`: query, `pos` and `neg`, as FlagEmbedding has them, with `pos_scores` and `neg_scores`."""

    keys: ClassVar[tuple[str, str]] = ("pos", "neg")
    scored: ClassVar[bool] = True


# The columns of sentence-transformers have any names; these are those that its data sets have.
ANCHORS = ("anchor", "query", "question")
POSITIVES = ("positive", "answer")


@dataclass(frozen=True)
class ColumnFormat:
    """`sentence-transformers?negatives=`: anchor, positive and negative, or negative_1 to negative_n, and scores.

    It writes a line for each positive and each negative; with `negatives` a line for each positive with so many
    negatives, and none of examples that have fewer (`negatives=0`: pairs alone). `scores` are those of the positive and
    the negatives of the line.
    """

    negatives: int | None = None

    def __post_init__(self) -> None:
        check_at_least(0, "sentence-transformers", negatives=self.negatives)

    def fits(self, row: FileRow) -> bool:
        return all(any(isinstance(row.get(key), str) for key in keys) for keys in (ANCHORS, POSITIVES))

    def read(self, row: FileRow, root: Path) -> Example:
        text = _read_query(row, next((key for key in ANCHORS if key in row), ANCHORS[0]))
        positive = _read_query(row, next((key for key in POSITIVES if key in row), POSITIVES[0]))
        numbered = sorted((number, key) for key in row if (number := _number(key)) is not None)
        negatives = tuple(_make_document(row[key]) for _, key in numbered)
        return Example(Item(_name_text(text), text), (_make_document(positive),), negatives, _read_scores(row))

    def write(self, example: Example, place: Place) -> Iterator[dict[str, Any]]:
        _check_texts(example, "sentence-transformers")
        cut = len(example.positives)
        scores: Sequence[float] = example.scores
        places = [[n] for n in range(len(example.negatives))]
        if self.negatives is not None:
            places = [[*range(self.negatives)]] if len(example.negatives) >= self.negatives else []
        for number, positive in enumerate(example.positives):
            for some in places:
                names = ["negative"] if self.negatives is None else [f"negative_{n}" for n in range(1, len(some) + 1)]
                texts = {name: example.negatives[n].text for name, n in zip(names, some, strict=True)}
                kept = {"scores": [scores[number], *(scores[cut + n] for n in some)]} if scores else {}
                yield {"anchor": example.query.text, "positive": positive.text, **texts, **kept}


# A new format is one class and one line here; other packages add theirs by entry points of `crosslens.examples`. The
# first that fits a file reads it.
FORMATS = {
    "crosslens": "training.data.formats:OwnFormat",
    "tevatron": "training.data.formats:TevatronFormat",
    "mteb": "training.data.formats:ListFormat",
    "bge": "training.data.formats:BgeFormat",
    "sentence-transformers": "training.data.formats:ColumnFormat",
}
ALIASES = {"miracl": "tevatron"}


def load_format(text: str) -> ExampleFormat:
    """The format that a SPEC names: `tevatron`, `sentence-transformers?negatives=4`, ...; `InputError` lists them."""
    spec = Spec.parse(text)
    spec = replace(spec, family=ALIASES.get(spec.family, spec.family))
    factory, spec = find_factory(spec, "examples", FORMATS, "format of examples", more=tuple(ALIASES))
    found: ExampleFormat = factory(**bind_options(spec, factory))
    return found


def find_format_of(row: FileRow) -> tuple[str, ExampleFormat]:
    """The name of a line's format, and it; `InputError` for a line of none."""
    for name in (*FORMATS, *(each.name for each in entry_points(group="crosslens.examples"))):
        if (found := load_format(name)).fits(row):
            return name, found
    if "positive_document_ids" in row:
        raise InputError("the documents are ids of a corpus: give lines with positive_passages, or a collection")
    raise InputError(f"no training data that is known, by its keys {list_few(row, 6)}")


def _read_item(given: object, root: Path, what: str) -> Item:
    if not isinstance(given, dict):
        raise InputError(f"a {what} must be an object with id and text, not {type(given).__name__}")
    row = FileRow(given)
    try:
        id = row.read_id()
    except InputError as error:
        raise InputError(f"a {what}: {error}") from None
    return make_item(what, id, row.read_text("text"), row.read_media(root), row.read_lang(), {})


def _read_list(row: Mapping[str, Any], key: str) -> list[Any]:
    value = row.get(key)
    if value is None:
        return []
    if not isinstance(value, list):
        raise InputError(f"{key} must be a list, not {type(value).__name__}")
    return value


def _read_scores(row: Mapping[str, Any], key: str = "scores") -> tuple[float, ...]:
    scores = _read_list(row, key)
    if not all(isinstance(score, int | float) and not isinstance(score, bool) for score in scores):
        raise InputError(f"{key} must be numbers")
    return tuple(map(float, scores))


def _read_query(row: FileRow, key: str) -> str:
    text = row.read_text(key)
    if not text or text.isspace():
        raise InputError(f"no {key}")
    return text


def _make_document(text: object) -> Item:
    if not isinstance(text, str) or not text.strip():
        raise InputError(f"a document must be a text, not {str(text)[:60]!r}")
    return Item(_name_text(text), text)


def _name_text(text: str) -> str:
    """The id of a text that has none: the same for the same text."""
    return f"{hash_text(text):016x}"


def _number(key: str) -> int | None:
    """The number of a column of negatives, None for another."""
    head, _, number = key.partition("_")
    if head != "negative" or (number and not number.isdecimal()):
        return None
    return int(number or 0)


def _check_texts(example: Example, name: str) -> None:
    for item in (example.query, *example.documents):
        if item.modalities != {"text"}:
            raise InputError(f"{item.id!r} holds {item.modality or 'nothing'}, and {name} files hold text alone")
