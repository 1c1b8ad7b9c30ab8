"""Examples and their texts in a file on disk, found by number: memory holds numbers alone, however many there are."""

from __future__ import annotations

import json
import os
from array import array
from collections.abc import Callable, Hashable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import Generic, TypeVar, overload

import numpy as np

from ...items import Item
from .example import Example

N = TypeVar("N", int, float)
BUFFER = 1 << 20  # bytes that are written at once
MASK = (1 << 64) - 1  # hashes have a sign
MOVED = 1 << 18  # digests that find their slots together when a table grows
_encode = json.JSONEncoder(ensure_ascii=False).encode


class ItemStore:
    """Items in a temporary file, at 8 bytes of memory each; the file has no name, and goes with the process.

    Held are id, text, language and media, not `meta`. Media that are no paths stay in memory. `OSError` where the
    disk is full.
    """

    def __init__(self, folder: Path) -> None:
        self._file = TemporaryFile(dir=folder, buffering=BUFFER)  # noqa: SIM115 - closed with the store
        self._ends = array("Q", [0])
        self._written = 0  # items that have left the buffer
        self._held: dict[int, Item] = {}

    def __len__(self) -> int:
        return len(self._ends) - 1

    def append(self, item: Item) -> None:
        """Hold an item; its number is how many there were."""
        record = write_record(item)
        if record is None:
            self._held[len(self)] = item
        content = (record or "").encode("utf-8", "surrogatepass")
        self._file.write(content)
        self._ends.append(self._ends[-1] + len(content))

    def __getitem__(self, number: int) -> Item:
        if (held := self._held.get(number)) is not None:
            return held
        if number >= self._written:
            self._file.flush()
            self._written = len(self)
        start, end = self._ends[number : number + 2]
        id, text, lang, image, media = json.loads(os.pread(self._file.fileno(), end - start, start))
        paths = {name: Path(each) for name, each in media.items()}
        return Item(id, text, None if image is None else Path(image), lang, media=paths)

    def close(self) -> None:
        """Give the disk's room back."""
        with suppress(OSError):  # of what a full disk left in the buffer
            self._file.close()


def write_record(item: Item) -> str | None:
    """All that a model reads of an item, as one text; None where a medium of it is no path."""
    if any(not isinstance(each, Path | None) for each in item.contents.values()):
        return None
    image = None if item.image is None else str(item.image)
    media = {name: str(each) for name, each in item.media.items() if each is not None}
    return _encode([item.id, item.text, item.lang, image, media])


class RaggedArray(Generic[N]):
    """Rows of numbers, each of its own length, in two flat arrays."""

    def __init__(self, code: str) -> None:
        self.values: array[N] = array(code)
        self._ends = array("Q", [0])

    def __len__(self) -> int:
        return len(self._ends) - 1

    def append(self, row: Iterable[N]) -> None:
        """Add a row."""
        self.values.extend(row)
        self._ends.append(len(self.values))

    def __getitem__(self, number: int) -> array[N]:
        return self.values[self._ends[number] : self._ends[number + 1]]


class DigestTable:
    """Numbers below 2**31 by the hashes of keys, at 18 to 27 bytes each: two flat arrays, and open addressing.

    Of keys 64 bits are held, Python's hash: among ten million texts two have the same with probability 3e-6.
    """

    def __init__(self) -> None:
        self._count, self._size = 0, 1024
        self._clear()

    def _clear(self) -> None:
        self._digests, self._numbers = array("Q", [0]) * self._size, array("i", [-1]) * self._size

    def setdefault(self, key: Hashable, number: int) -> int:
        """The number of a key; `number` from now on, where it had none."""
        digests, numbers, size = self._digests, self._numbers, self._size
        digest = hash(key) & MASK
        slot = digest % size
        while (held := numbers[slot]) >= 0:
            if digests[slot] == digest:
                return held
            slot = slot + 1 if slot + 1 < size else 0
        digests[slot], numbers[slot] = digest, number
        self._count += 1
        if 3 * self._count > 2 * size:
            self._grow()
        return number

    def _grow(self) -> None:
        old = np.frombuffer(self._digests, np.uint64), np.frombuffer(self._numbers, np.int32)
        self._size += self._size // 2
        self._clear()
        digests, numbers = np.frombuffer(self._digests, np.uint64), np.frombuffer(self._numbers, np.int32)
        for first in range(0, len(old[0]), MOVED):
            some, theirs = (each[first : first + MOVED] for each in old)
            some, theirs = some[theirs >= 0], theirs[theirs >= 0]
            slots = (some % np.uint64(self._size)).astype(np.int64)
            while len(some):
                free = numbers[slots] < 0
                digests[slots[free]] = some[free]
                placed = free & (digests[slots] == some)  # of several that came to one slot, the last
                numbers[slots[placed]] = theirs[placed]
                some, theirs, slots = some[~placed], theirs[~placed], (slots[~placed] + 1) % self._size


class StoredExamples(Sequence[Example]):
    """Examples in an `ItemStore`, each item once; they are equal to those that were given, but for `meta`.

    In memory are about 40 bytes an example, 4 for each of its documents, and of each score 8.
    """

    def __init__(self, examples: Iterable[Example], folder: Path) -> None:
        self.items = ItemStore(folder)
        self._queries = array("I")
        self._positives, self._negatives = RaggedArray[int]("I"), RaggedArray[int]("I")
        self._scores = RaggedArray[float]("d")
        numbers = DigestTable()
        for example in examples:
            self._queries.append(self._hold(example.query, numbers))
            self._positives.append([self._hold(each, numbers) for each in example.positives])
            self._negatives.append([self._hold(each, numbers) for each in example.negatives])
            self._scores.append(example.scores)
        self._places: Sequence[int] = range(len(self._queries))

    def _hold(self, item: Item, numbers: DigestTable) -> int:
        count, record = len(self.items), write_record(item)
        number = count if record is None else numbers.setdefault(record, count)
        if number == count:
            self.items.append(item)
        return number

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, number: int) -> Example: ...

    @overload
    def __getitem__(self, number: slice) -> list[Example]: ...

    def __getitem__(self, number: int | slice) -> Example | list[Example]:
        if isinstance(number, slice):
            return [self[each] for each in range(*number.indices(len(self)))]
        place = self._places[number]
        positives, negatives = (
            tuple(self.items[each] for each in rows[place]) for rows in (self._positives, self._negatives)
        )
        return Example(self.items[self._queries[place]], positives, negatives, tuple(self._scores[place]))

    def keep(self, wanted: Callable[[Example], bool]) -> None:
        """Leave out all examples but those that are wanted; these have new numbers."""
        self._places = array("I", (self._places[number] for number, each in enumerate(self) if wanted(each)))

    def close(self) -> None:
        """Give the disk's room back."""
        self.items.close()
