"""The vector cache: the same text or picture is not encoded twice, in no collection and no run."""

from __future__ import annotations

import itertools
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ...errors import InputError
from ...items import Batch, Item, Role, windows
from ..base import Encoder, EncoderSpec, Tokenizes
from ..batching import Row, join_rows, split_rows, take_floats
from .store import VectorStore, compute_key, locate_vectors, pack_row, unpack_row

# Items looked up at a time, and held at most while they wait for those before them; a page has many vectors.
HELD = {"dense": 512, "sparse": 512, "multi": 32}


class CachedEncoder:
    """An encoder that keeps its documents' vectors, and encodes only those that are not kept (`encoders.base.Encoder`).

    Vectors are kept as they are, float32, under what they were made from: the spec's fingerprint and dtype, what the
    encoder reads of an item (its text with the language, since some encoders look at that, and its picture's bytes)
    and nothing else, so that a copy of a picture under another name is found. They are kept as the encoder yields
    them. What a fresh run would compute may differ in the last bits, as it does between batches of other sizes.
    Queries are encoded every time. `found` counts vectors that were not encoded.

    Memory is that of the encoder, and at most `HELD` vectors looked up and as many waiting.
    """

    def __init__(self, encoder: Encoder, store: VectorStore | None = None) -> None:
        self.spec = encoder.spec
        self.encoder = encoder
        self.processes: int = getattr(encoder, "processes", 1)  # see `encoders.workers`
        self.known_languages: frozenset[str] = getattr(encoder, "known_languages", frozenset())  # see `Ensemble`
        self.store = store or VectorStore(locate_vectors(encoder.spec), encoder.spec)
        self.found = 0
        if isinstance(encoder, Tokenizes):  # then this one is, too
            self.token_spans, self.room = encoder.token_spans, encoder.room

    def encode(self, items: Iterable[Item], role: Role) -> Iterator[Batch]:
        """As the encoder does, in the order of the items; batches may be cut elsewhere."""
        if role == "query":
            yield from self.encoder.encode(items, role)
            return
        queue = _Queue(items, self.spec, self.store)
        while not queue.ended:
            missing = queue.read_missing()
            if (first := next(missing, None)) is not None:
                for batch in self.encoder.encode(itertools.chain([first], missing), role):
                    queue.take(batch)
                    yield from queue.pop_ready()
                queue.require_all()
            yield from queue.pop_ready()
        self.found += queue.found

    def close(self) -> None:
        """Let go of the file; the next use opens it again."""
        self.store.close()


def close_caches(encoders: Sequence[Encoder]) -> int:
    """Close the caches of the encoders that have one; how many vectors were not encoded."""
    layers = [each for each in encoders if isinstance(each, CachedEncoder)]
    for each in layers:
        each.close()
    return sum(each.found for each in layers)


@dataclass(slots=True, eq=False)
class _Vector:
    """What items of one content share: its key in the store, if it has one, and its row once there is one."""

    key: bytes | None
    row: Row = None


class _Place(NamedTuple):
    """Where an item stands in the queue; `spared` if its vector was found, or is that of an item before it."""

    id: str
    vector: _Vector
    spared: bool


class _Queue:
    """Items in order, from being read to being yielded; those not found go to the encoder, perhaps in a thread."""

    def __init__(self, items: Iterable[Item], spec: EncoderSpec, store: VectorStore) -> None:
        self.ended = False
        self.found = 0
        self._spec = spec
        self._store = store
        self._most = HELD[spec.kind]
        self._lock = threading.Lock()
        self._waiting: deque[_Place] = deque()
        self._at_encoder: deque[_Place] = deque()
        # Given to the encoder, and perhaps encoded, since the last look into the store.
        self._recent: dict[bytes, _Vector] = {}
        self._spared = 0  # of those waiting
        self._items = self._look_up(items)

    def read_missing(self) -> Iterator[Item]:
        """Items to encode; stops when there are no more, or when enough others wait for what was given so far.

        Most collections' items are all missing, or none: the encoder then has one stream, and reads ahead in it.
        """
        for item, vector in self._items:
            with self._lock:
                first = vector
                if vector.row is None and vector.key is not None:
                    first = self._recent.setdefault(vector.key, vector)
                spared = vector.row is not None or first is not vector
                self._waiting.append(place := _Place(item.id, first, spared))
                if not spared:
                    self._at_encoder.append(place)
                self.found += spared
                self._spared += spared
                full = self._spared >= self._most
            if not spared:
                yield item
            if full:
                return
        self.ended = True

    def take(self, batch: Batch) -> None:
        """Vectors of the first items that the encoder was given; those that are finite are kept."""
        rows = split_rows(batch)
        with self._lock:
            if [place.id for place in itertools.islice(self._at_encoder, len(rows))] != list(batch.ids):
                raise InputError(f"{self._spec.name} gave vectors in another order than that of the items")
            pairs = [(self._at_encoder.popleft().vector, row) for row in rows]
        self._store.put(
            {each.key: pack_row(row) for each, row in pairs if each.key and np.isfinite(take_floats(row)).all()}
        )
        with self._lock:  # last, since who is not recent any more is looked for in the store
            for each, row in pairs:
                each.row = row

    def require_all(self) -> None:
        """`InputError` if the encoder has not given a vector for each item."""
        if self._at_encoder:
            raise InputError(f"{self._spec.name} gave no vector for item {self._at_encoder[0].id!r}")

    def pop_ready(self) -> Iterator[Batch]:
        """The items before the first that is not encoded yet."""
        while True:
            group: list[_Place] = []
            with self._lock:
                while self._waiting and len(group) < self._most and self._waiting[0].vector.row is not None:
                    group.append(self._waiting.popleft())
                self._spared -= sum(place.spared for place in group)
            if not group:
                return
            yield join_rows([place.id for place in group], [place.vector.row for place in group], self._spec)

    def _look_up(self, items: Iterable[Item]) -> Iterator[tuple[Item, _Vector]]:
        for group in windows(items, self._most):
            keys = [compute_key(item, self._spec.modalities) for item in group]
            with self._lock:
                self._recent = {key: each for key, each in self._recent.items() if each.row is None}
            packed = self._store.get(list(dict.fromkeys(key for key in keys if key)))
            for item, key in zip(group, keys, strict=True):
                yield item, _Vector(key, unpack_row(packed[key], self._spec) if key in packed else None)
