"""The vector cache: the same text or picture is not encoded twice, in no collection and no run."""

from __future__ import annotations

import itertools
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...errors import InputError
from ...items import Batch, Item, Role, windows
from ..base import Encoder, EncoderSpec, Tokenizes
from ..rows import Row, join_rows, split_rows, take_floats
from .keys import compute_key, pack_row, unpack_row
from .store import VectorStore, locate_vectors

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
        self.store = store or VectorStore(locate_vectors(encoder.spec), encoder.spec)
        self.found = 0

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


class CachedTextEncoder(CachedEncoder):
    """`CachedEncoder` for an encoder that can say where its tokens are (`encoders.base.Tokenizes`)."""

    encoder: Any

    def token_spans(self, texts: Sequence[str]) -> list[np.ndarray]:
        spans: list[np.ndarray] = self.encoder.token_spans(texts)
        return spans

    def room(self, role: Role = "document") -> int:
        room: int = self.encoder.room(role)
        return room


def add_caches(encoders: Sequence[Encoder]) -> list[Encoder]:
    """The encoders with their caches before them."""
    return [CachedTextEncoder(each) if isinstance(each, Tokenizes) else CachedEncoder(each) for each in encoders]


def close_caches(encoders: Sequence[Encoder]) -> int:
    """Close the caches of the encoders that have one; how many vectors were not encoded."""
    layers = [each for each in encoders if isinstance(each, CachedEncoder)]
    for each in layers:
        each.close()
    return sum(each.found for each in layers)


@dataclass(slots=True, eq=False)
class _Waiting:
    """An item in the queue: its row once there is one, or the item before it with the same content."""

    id: str
    key: bytes | None
    row: Row = None
    like: _Waiting | None = None
    encoded: bool = True  # rather than found

    @property
    def result(self) -> Row:
        return self.row if self.like is None else self.like.row


class _Queue:
    """Items in their order, from being read to being yielded; some are found, the others go to the encoder.

    The encoder may read the missing ones in a thread of its own.
    """

    def __init__(self, items: Iterable[Item], spec: EncoderSpec, store: VectorStore) -> None:
        self.ended = False
        self.found = 0
        self._spec = spec
        self._store = store
        self._most = HELD[spec.kind]
        self._lock = threading.Lock()
        self._waiting: deque[_Waiting] = deque()
        self._at_encoder: deque[_Waiting] = deque()
        # Given to the encoder, and perhaps encoded, since the last look into the store.
        self._recent: dict[bytes, _Waiting] = {}
        self._spared = 0  # of those waiting, the ones that needed no encoding
        self._items = self._look_up(items)

    def read_missing(self) -> Iterator[Item]:
        """Items to encode; stops when there are no more, or when enough others wait for what was given so far.

        Most collections' items are all missing, or none: the encoder then has one stream, and reads ahead in it.
        """
        for item, place in self._items:
            with self._lock:
                if place.row is None and place.key is not None:
                    place.like = self._recent.get(place.key)
                place.encoded = place.row is None and place.like is None
                self._waiting.append(place)
                if place.encoded:
                    self._at_encoder.append(place)
                    if place.key is not None:
                        self._recent[place.key] = place
                else:
                    self.found += 1
                    self._spared += 1
                full = self._spared >= self._most
            if place.encoded:
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
            places = [self._at_encoder.popleft() for _ in rows]
        pairs = list(zip(places, rows, strict=True))
        finite = (pair for pair in pairs if pair[0].key and np.isfinite(take_floats(pair[1])).all())
        self._store.put({place.key: pack_row(row) for place, row in finite if place.key})
        with self._lock:  # last, since who is not recent any more is looked for in the store
            for place, row in pairs:
                place.row = row

    def require_all(self) -> None:
        """`InputError` if the encoder has not given a vector for each item."""
        if self._at_encoder:
            raise InputError(f"{self._spec.name} gave no vector for item {self._at_encoder[0].id!r}")

    def pop_ready(self) -> Iterator[Batch]:
        """The items before the first that is not encoded yet."""
        while True:
            group: list[_Waiting] = []
            with self._lock:
                while self._waiting and len(group) < self._most and self._waiting[0].result is not None:
                    group.append(self._waiting.popleft())
                self._spared -= sum(not place.encoded for place in group)
            if not group:
                return
            yield join_rows([place.id for place in group], [place.result for place in group], self._spec)

    def _look_up(self, items: Iterable[Item]) -> Iterator[tuple[Item, _Waiting]]:
        for group in windows(items, self._most):
            places = [_Waiting(item.id, compute_key(item, self._spec.modalities)) for item in group]
            with self._lock:
                self._recent = {key: place for key, place in self._recent.items() if place.row is None}
            vectors = self._store.get(list(dict.fromkeys(place.key for place in places if place.key)))
            for item, place in zip(group, places, strict=True):
                if place.key is not None and (vector := vectors.get(place.key)) is not None:
                    place.row = unpack_row(vector, self._spec)
                yield item, place
