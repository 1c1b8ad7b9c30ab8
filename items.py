"""What flows in: one `Item` for queries and documents, whatever they hold; encoders turn items into batches."""

from __future__ import annotations

import hashlib
import json
import re
import sys
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np

from .errors import InputError, check_known
from .media.drawing import Drawing
from .media.language_codes import parse_language
from .media.modalities import MEDIA, join_modalities, update_hash

if TYPE_CHECKING:
    import PIL.Image
    import scipy.sparse

Modality = str  # "text", or a name in `media.modalities.MEDIA`: "image"
Role = Literal["query", "document"]
T = TypeVar("T")
K = TypeVar("K")

SEAL = "sha256"  # the key of a JSON object's own checksum


@dataclass(frozen=True, slots=True)
class Item:
    """A query or a document: text, an image, other media, or several of them; a picture needs no text.

    `lang` is a language as people write it (`zh-CN`, `Chinese`), and is held as its ISO 639-3 code (`zho`). `image` is
    a path, encoded bytes, a PIL image or a `Drawing`, and is opened when it is encoded, never before. `media` holds
    what else there is, by the names of registered modalities (`media.modalities`), in the same ways. `InputError` for a
    field of another type, for what is no language, and for a medium that is not registered.
    """

    id: str
    text: str | None = None
    image: Path | bytes | PIL.Image.Image | Drawing | None = None
    lang: str | None = None
    meta: Mapping[str, object] = field(default_factory=dict)
    media: Mapping[Modality, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._check_types()
        if self.lang is not None:
            try:
                code = parse_language(self.lang)
            except InputError as error:
                raise InputError(f"item {self.id!r}: {error}") from None
            object.__setattr__(self, "lang", code)
        for name in self.media:
            check_known(name, MEDIA.keys() - {"image"}, f"medium of item {self.id!r}:")

    def _check_types(self) -> None:
        if not isinstance(self.id, str):
            raise InputError(f"the id of an item must be text, not {_describe(self.id)}")
        for name, value in (("text", self.text), ("lang", self.lang)):
            if value is not None and not isinstance(value, str):
                raise InputError(f"the {name} of item {self.id!r} must be text, not {_describe(value)}")
        if (
            self.image is not None
            and not isinstance(self.image, Path | bytes | Drawing)
            and not _is_picture(self.image)
        ):
            raise InputError(
                f"the image of item {self.id!r} must be a pathlib.Path, bytes or a PIL image, not "
                f"{_describe(self.image)}"
            )
        for name, held in (("meta", self.meta), ("media", self.media)):
            if not isinstance(held, Mapping):
                raise InputError(f"{name} of item {self.id!r} must be a dictionary, not {_describe(held)}")
            for key in held:
                if not isinstance(key, str):
                    raise InputError(f"the keys in {name} of item {self.id!r} must be text, not {_describe(key)}")

    @property
    def modalities(self) -> frozenset[Modality]:
        """What the item holds; blank text does not count."""
        held = [name for name, value in self.contents.items() if value is not None]
        return frozenset(("text", *held) if self.text and not self.text.isspace() else held)

    @property
    def modality(self) -> str:
        """What the item holds, as one name: `text`, `image`, `text+image`; empty if nothing."""
        return join_modalities(self.modalities)

    @property
    def contents(self) -> Mapping[Modality, object]:
        """Its media by name, the image among them; None for an image that is not there."""
        return {"image": self.image, **self.media}

    def content_hash(self) -> str:
        """32 hex digits over text, media and language: equal content gives equal vectors."""
        return self.hash_as(self.lang)

    def hash_as(self, lang: str | None) -> str:
        """`content_hash` with the language as an earlier version has stored it."""
        hashing = hashlib.blake2b(digest_size=16)
        for part in (self.text, lang):
            hashing.update(b"\0" if part is None else b"\1" + part.encode("utf-8", "surrogatepass"))
        for name, value in self.contents.items():
            if name != "image":
                hashing.update(f"\2{name}\0".encode())
            if value is not None:
                update_hash(hashing, name, value)
        return hashing.hexdigest()


# A query, or several, as people write them: see `list_items`.
Queries = Item | str | Mapping[str, Any] | Iterable[Item | str | Mapping[str, Any] | tuple[str, str]]
# Other names that fields go by: those of BEIR's files and of PyTerrier's data frames.
_ALSO = {"_id": "id", "qid": "id", "docno": "id", "query": "text"}
_FIELDS = ("id", "text", "image", "lang", "meta", "media")


def list_items(given: Any, what: str = "query", first: int = 1) -> list[Item]:
    """Queries, or what else they are, as people write them: one, an iterable of them, or a data frame of pandas.

    One is text, an `Item`, a pair `(id, text)` in a list, or a dictionary of an item's fields, whose other keys join
    its `meta`. What has no id gets its place as one, counted from `first`. `InputError` for anything else.
    """
    if isinstance(given, str | Item | Mapping):
        given = [given]
    elif is_frame(given):
        given = given.to_dict("records")
    elif isinstance(given, bytes | bytearray) or not isinstance(given, Iterable):
        raise _no_item(given, what)
    return [_read_item(one, str(place), what) for place, one in enumerate(given, first)]


def is_frame(value: object) -> bool:
    """Whether it is a data frame of pandas."""
    pandas = sys.modules.get("pandas")  # nothing is one where it was not imported
    return pandas is not None and isinstance(value, pandas.DataFrame)


def _read_item(one: object, place: str, what: str) -> Item:
    if isinstance(one, Item):
        return one
    if isinstance(one, str):
        return Item(place, one)
    if isinstance(one, tuple) and len(one) == 2 and all(isinstance(each, str) for each in one):
        return Item(*one)
    if not isinstance(one, Mapping):
        raise _no_item(one, what)
    held = {_ALSO.get(key, key): value for key, value in one.items() if not _is_missing(value)}
    if not held.keys() & {"text", "image", "media"}:
        raise InputError(f"a dictionary is one {what}, with its `text` or `image`, and not {_describe(one)}")
    fields = {name: held.pop(name) for name in _FIELDS if name in held}
    if isinstance(id := fields.get("id", place), Integral):
        id = str(id)
    if isinstance(image := fields.get("image"), str):
        image = Path(image)
    meta = fields.get("meta", {})
    meta = {**meta, **held} if isinstance(meta, Mapping) else meta
    return Item(id, fields.get("text"), image, fields.get("lang"), meta, fields.get("media", {}))


def _is_missing(value: object) -> bool:
    """Whether it stands where there is nothing: None, and the nan or NA of a data frame."""
    if value is None or (isinstance(value, Real) and value != value):
        return True
    pandas = sys.modules.get("pandas")
    return pandas is not None and (value is pandas.NA or value is pandas.NaT)


def _no_item(value: object, what: str) -> InputError:
    return InputError(
        f"a {what} is text, an Item or a dictionary of its fields, alone or in a list, and not {_describe(value)}"
    )


_STRANGE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufeff\ud800-\udfff]|(?![ \t\r\n])\s")


def split_fields(line: str) -> list[str]:
    """The fields of a line of TREC's files, between spaces or tabs; `ValueError` on what readers differ about.

    That is other white space (a space that does not break), control characters, and a byte order mark in the middle.
    """
    if not (line.isascii() and line.rstrip("\r\n").replace("\t", " ").isprintable()) and _STRANGE.search(line):
        raise ValueError("white space other than spaces and tabs, or a control character")
    return line.split()


def is_word(name: str) -> bool:
    """Whether an id can stand in a line of TREC's files: some text without white space and control characters."""
    return bool(name) and _STRANGE.search(name) is None and not any(each in name for each in " \t\r\n")


def check_text(item: Item) -> None:
    """`InputError` where half of a surrogate pair, which is no text, stands in the item's id, text or language.

    Python has them from file names and arguments that are not UTF-8.
    """
    for name in ("id", "text", "lang"):
        value = getattr(item, name)
        try:
            if isinstance(value, str):
                value.encode()
        except UnicodeEncodeError as error:
            raise InputError(
                f"item {item.id!r} is not valid Unicode: character {error.start + 1} of its {name} is half of a "
                "surrogate pair, as Python makes of bytes that are not UTF-8; give it as UTF-8"
            ) from None


def check_id(id: str, whose: str) -> None:
    """`InputError` for an id that is empty, or that a line of a file could not hold: with tabs, line ends or the like.

    `whose` it is (`item`, `query`) is in the error.
    """
    if not id:
        raise InputError(f"{whose} has no id")
    if not id.isprintable():
        for character in id:
            if unicodedata.category(character) in ("Cc", "Zl", "Zp"):
                raise InputError(f"the id {id[:100]!r} of {whose} has the character {character!r} in it: take it out")


def _is_picture(value: object) -> bool:
    # Nothing is a PIL image where PIL was not imported.
    pillow = sys.modules.get("PIL.Image")
    return pillow is not None and isinstance(value, pillow.Image)


def _describe(value: object) -> str:
    return f"{repr(value)[:60]} ({type(value).__name__})"


@dataclass(frozen=True, slots=True)
class Dense:
    """One vector an item: `vectors` is float32 [n, dim]."""

    ids: Sequence[str]
    vectors: np.ndarray


@dataclass(frozen=True, slots=True)
class Multi:
    """Many vectors an item (late interaction): `vectors[i]` is float32 [tokens_i, dim]."""

    ids: Sequence[str]
    vectors: Sequence[np.ndarray]


@dataclass(frozen=True, slots=True)
class Sparse:
    """Weighted terms an item: `vectors` is a CSR matrix, float32 [n, vocabulary]."""

    ids: Sequence[str]
    vectors: scipy.sparse.csr_matrix


Batch = Dense | Multi | Sparse


def hash_text(text: str) -> int:
    """64 bits of a string, the same everywhere: among ten million strings one pair is equal with probability 3e-6."""
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")


def hash_json(value: object, digits: int = 12) -> str:
    """Hex digits over a JSON-able value, the same everywhere and in whatever order its keys stand."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:digits]


def seal(value: Mapping[str, Any]) -> dict[str, Any]:
    """A JSON object with a checksum of all else that it holds, under `sha256`."""
    plain = {key: each for key, each in value.items() if key != SEAL}
    # Keys are strings, as they are when it is read again.
    return {**plain, SEAL: hash_json(json.loads(json.dumps(plain)), 64)}


def open_seal(value: Any) -> dict[str, Any]:
    """What was sealed, without its checksum; `ValueError` if it is no object, or not what was written.

    An object without a checksum, as earlier versions wrote it, is given back as it is.
    """
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    plain = {key: each for key, each in value.items() if key != SEAL}
    if SEAL in value and value[SEAL] != hash_json(plain, 64):
        raise ValueError("its checksum differs")
    return plain


class SeenIds:
    """Which ids were seen, at 8 bytes an id: 64-bit hashes in a sorted array, and the latest in a set beside it."""

    def __init__(self, merge_at: int = 1 << 16) -> None:
        self._merge_at = merge_at
        self._sorted = np.zeros(0, np.uint64)
        self._latest: set[int] = set()

    def __len__(self) -> int:
        return len(self._sorted) + len(self._latest)

    def __contains__(self, id: object) -> bool:
        return isinstance(id, str) and self._holds(hash_text(id))

    def _holds(self, key: int) -> bool:
        if key in self._latest:
            return True
        place = int(self._sorted.searchsorted(np.uint64(key)))
        return place < len(self._sorted) and int(self._sorted[place]) == key

    def add(self, id: str) -> bool:
        """Whether the id was seen before."""
        key = hash_text(id)
        if self._holds(key):
            return True
        self._latest.add(key)
        # A set costs about 70 bytes an id, so it stays a small part; growing with the array bounds the sorting.
        if len(self._latest) > max(self._merge_at, len(self._sorted) // 8):
            latest = np.fromiter(self._latest, np.uint64, len(self._latest))
            self._sorted = np.sort(np.concatenate([self._sorted, latest]))
            self._latest.clear()
        return False


def windows(stream: Iterable[T], size: int) -> Iterator[list[T]]:
    """Consecutive lists of at most `size` elements; the stream is read no further ahead than that."""
    elements = iter(stream)
    while window := list(islice(elements, size)):
        yield window


def group_positions(keys: Iterable[K]) -> dict[K, list[int]]:
    """The positions of each key, keys in the order in which they first occur."""
    positions: dict[K, list[int]] = {}
    for position, key in enumerate(keys):
        positions.setdefault(key, []).append(position)
    return positions


def split_by_weight(stream: Iterable[T], most: float, weight: Callable[[T], float]) -> Iterator[list[T]]:
    """Consecutive lists, each ended by the element that brings the sum of weights to `most`."""
    group: list[T] = []
    held = 0.0
    for element in stream:
        group.append(element)
        held += weight(element)
        if held >= most:
            yield group
            group, held = [], 0.0
    if group:
        yield group
