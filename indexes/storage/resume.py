"""What of a stream of items is not stored yet, and in portions of about a minute's work: a kill loses one of them."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from ...errors import InputError
from ...items import Item, check_id, check_text, hash_text

SECONDS = 60.0  # e5-small takes half of it for a window on two cores


class ItemState(NamedTuple):
    """An item's metadata as JSON, and the hash that shows whether the item has changed, 32 hex digits."""

    meta: str
    hash: str

    @classmethod
    def of(cls, item: Item) -> ItemState:
        """That of an item to be stored.

        `InputError` names an item that cannot be: without an id or content, or with what is not text or JSON.
        """
        if not isinstance(item, Item):
            raise InputError(f"an index holds Items, not {repr(item)[:60]} ({type(item).__name__})")
        if not item.id:
            raise InputError(f"an item has no id (text {(item.text or '')[:40]!r}, image {str(item.image)[:40]})")
        check_text(item)
        check_id(item.id, "an item")
        if not item.modalities:
            raise InputError(f"item {item.id!r} is empty: it has neither text nor image")
        try:
            meta = json.dumps(dict(item.meta), ensure_ascii=False, sort_keys=True, allow_nan=False)
            _check_keys(item.meta)
            meta.encode()
        except UnicodeEncodeError as error:
            raise InputError(f"the metadata of item {item.id!r} is not valid Unicode: {error.reason}") from None
        except (TypeError, ValueError, RecursionError) as error:
            raise InputError(f"the metadata of item {item.id!r} cannot be stored as JSON: {error}") from None
        return cls(meta, hash_stored(item, item.lang, meta))


def hash_stored(item: Item, lang: str | None, meta: str) -> str:
    """The hash of an item with its language and its metadata as they are stored, 32 hex digits."""
    return hashlib.blake2b((item.hash_as(lang) + meta).encode(), digest_size=16).hexdigest()


class Portion(NamedTuple):
    """A window of a stream, and those `items` of it to be stored, with their states; `new` if none is stored yet."""

    window: list[Item]
    items: list[Item]
    states: list[ItemState]
    new: bool

    def cut(self, size: int) -> tuple[Portion, Portion]:
        """The first `size` items to be stored, with what lies before them, and the rest."""
        last = self.items[size - 1]
        end = next(place for place, item in enumerate(self.window) if item is last) + 1
        return (
            Portion(self.window[:end], self.items[:size], self.states[:size], self.new),
            Portion(self.window[end:], self.items[size:], self.states[size:], self.new),
        )


class StoredStates:
    """Ids and hashes of the stored rows as sorted 64-bit digests: 16 bytes a document.

    `batches` have the columns `id`, `hash`, and `missing`, which is true for rows that lack vectors.
    """

    def __init__(self, batches: Iterable[pa.RecordBatch]) -> None:
        ids = [np.zeros(0, np.uint64)]
        states = [np.zeros(0, np.uint64)]
        for batch in batches:
            names, hashes, missing = (batch.column(name).to_pylist() for name in ("id", "hash", "missing"))
            pairs = zip(hashes, missing, strict=True)
            ids.append(np.array([hash_text(name) for name in names], np.uint64))
            states.append(np.array([0 if lacks else _shorten(hash) for hash, lacks in pairs], np.uint64))
        joined = np.concatenate(ids)
        order = np.argsort(joined)
        self._ids, self._states = joined[order], np.concatenate(states)[order]

    def look_up(self, ids: Sequence[str], hashes: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Two masks over `ids`: those that are stored, and those stored with this hash and all vectors."""
        wanted = np.array([hash_text(each) for each in ids], np.uint64)
        if not len(self._ids):
            return np.zeros(len(ids), bool), np.zeros(len(ids), bool)
        places = np.searchsorted(self._ids, wanted).clip(max=len(self._ids) - 1)
        known = self._ids[places] == wanted
        states = np.array([_shorten(each) for each in hashes], np.uint64)
        return known, known & (self._states[places] == states)

    def select(self, window: list[Item], describe: Callable[[Item], ItemState]) -> Portion:
        """What of a window is not stored as it is; `describe` gives an item's state, or refuses it."""
        states = [describe(item) for item in window]
        known, same = self.look_up([item.id for item in window], [state.hash for state in states])
        rows = np.flatnonzero(~same)
        return Portion(window, [window[row] for row in rows], [states[row] for row in rows], not known[rows].any())


def pace(
    portions: Iterable[Portion], seconds: float = SECONDS, clock: Callable[[], float] = time.monotonic
) -> Iterator[Portion]:
    """Portions cut into ones of about `seconds` of work at most; those of a fast encoder stay whole.

    What is done between two of them is the work for the first. A single item comes first, and shows how fast the
    encoder is. Sizes are powers of two, and so mostly the same from run to run: vectors depend a little on what is
    encoded with them.
    """
    size = 1
    for portion in portions:
        while portion.items:
            part, portion = portion.cut(size) if len(portion.items) > size else (portion, EMPTY)
            started = clock()
            yield part
            fitting = len(part.items) * seconds / max(clock() - started, 1e-3)
            size = 1 << (max(int(fitting), 1).bit_length() - 1)
        if portion.window:
            yield portion


EMPTY = Portion([], [], [], False)


def _shorten(hash: str) -> int:
    """64 bits of a stored hash; never 0, which marks rows that lack vectors."""
    return int(hash[:16], 16) or 1


def _check_keys(value: object) -> None:
    """`TypeError` on a key that JSON would turn into text, at any depth."""
    if isinstance(value, Mapping):
        for key, each in value.items():
            if not isinstance(key, str):
                raise TypeError(f"the key {key!r} is not text")
            _check_keys(each)
    elif isinstance(value, list | tuple):
        for each in value:
            _check_keys(each)
