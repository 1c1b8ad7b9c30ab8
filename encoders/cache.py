"""The vector cache: the same text or picture is not encoded twice, in no collection and no run."""

from __future__ import annotations

import hashlib
import itertools
import stat
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse

from ..errors import InputError
from ..items import Batch, Dense, Item, Modality, Multi, Role, Sparse, windows
from .base import Encoder, EncoderSpec, Tokenizes
from .cache_store import Store, located

if TYPE_CHECKING:
    import PIL.Image

# Items looked up at a time, and held at most while they wait for those before them; a page has many vectors.
HELD = {"dense": 512, "sparse": 512, "multi": 32}

Row = Any  # float32 [dim]; float32 [tokens, dim]; or int32 and float32 [terms]


class Cached:
    """An encoder that keeps its documents' vectors, and encodes only those that are not kept (`encoders.base.Encoder`).

    Vectors are kept as they are, float32, under what they were made from: the spec's fingerprint and dtype, what the
    encoder reads of an item (its text with the language, since some encoders look at that, and its picture's bytes)
    and nothing else, so that a copy of a picture under another name is found. They are kept as the encoder yields
    them. What a fresh run would compute may differ in the last bits, as it does between batches of other sizes.
    Queries are encoded every time. `found` counts vectors that were not encoded.

    Memory is that of the encoder, and at most `HELD` vectors looked up and as many waiting.
    """

    def __init__(self, encoder: Encoder, store: Store | None = None) -> None:
        self.spec = encoder.spec
        self.encoder = encoder
        self.processes: int = getattr(encoder, "processes", 1)  # see `encoders.workers`
        self.store = store or Store(located(encoder.spec), encoder.spec)
        self.found = 0

    def encode(self, items: Iterable[Item], role: Role) -> Iterator[Batch]:
        """As the encoder does, in the order of the items; batches may be cut elsewhere."""
        if role == "query":
            yield from self.encoder.encode(items, role)
            return
        line = _Line(items, self.spec, self.store)
        while not line.ended:
            missing = line.missing()
            if (first := next(missing, None)) is not None:
                for batch in self.encoder.encode(itertools.chain([first], missing), role):
                    line.take(batch)
                    yield from line.ready()
                line.settle()
            yield from line.ready()
        self.found += line.found

    def close(self) -> None:
        """Let go of the file; the next use opens it again."""
        self.store.close()


class CachedText(Cached):
    """`Cached` for an encoder that can say where its tokens are (`encoders.base.Tokenizes`)."""

    encoder: Any

    def token_spans(self, texts: Sequence[str]) -> list[np.ndarray]:
        spans: list[np.ndarray] = self.encoder.token_spans(texts)
        return spans

    def room(self, role: Role = "document") -> int:
        room: int = self.encoder.room(role)
        return room


def cached(encoders: Sequence[Encoder]) -> list[Encoder]:
    """The encoders with their caches before them."""
    return [(CachedText if isinstance(each, Tokenizes) else Cached)(each) for each in encoders]


def settled(encoders: Sequence[Encoder]) -> int:
    """Close the caches of the encoders that have one; how many vectors were not encoded."""
    found = 0
    for each in encoders:
        if isinstance(each, Cached):
            each.close()
            found += each.found
    return found


@dataclass(slots=True, eq=False)
class _Place:
    """An item in the line: its vector once there is one, or the place of an item before it with the same content."""

    id: str
    key: bytes | None
    row: Row = None
    like: _Place | None = None
    asked: bool = True

    @property
    def vector(self) -> Row:
        return self.row if self.like is None else self.like.row


class _Line:
    """Items in their order, from being read to being yielded; some are found, the others go to the encoder.

    The encoder may read `missing` in a thread of its own.
    """

    def __init__(self, items: Iterable[Item], spec: EncoderSpec, store: Store) -> None:
        self.ended = False
        self.found = 0
        self._spec = spec
        self._store = store
        self._most = HELD[spec.kind]
        self._lock = threading.Lock()
        self._places: deque[_Place] = deque()
        self._asked: deque[_Place] = deque()
        self._known: dict[
            bytes, _Place
        ] = {}  # asked, and perhaps encoded, since the last look into the store
        self._waiting = 0  # of the places, those that needed no encoding
        self._items = self._looked_up(items)

    def missing(self) -> Iterator[Item]:
        """Items to encode; stops when there are no more, or when enough others wait for what was asked so far.

        Most collections' items are all missing, or none: the encoder then has one stream, and reads ahead in it.
        """
        for item, place in self._items:
            with self._lock:
                first = None if place.key is None else self._known.get(place.key)
                if place.row is None:
                    place.like = first
                self._places.append(place)
                place.asked = place.row is None and first is None
                if place.asked:
                    self._asked.append(place)
                    if place.key is not None:
                        self._known[place.key] = place
                else:
                    self.found += 1
                    self._waiting += 1
                full = self._waiting >= self._most
            if place.asked:
                yield item
            if full:
                return
        self.ended = True

    def take(self, batch: Batch) -> None:
        """Vectors of the first items that the encoder was given; those that are finite are kept."""
        rows = _rows(batch)
        with self._lock:
            if [place.id for place in itertools.islice(self._asked, len(rows))] != list(batch.ids):
                raise InputError(f"{self._spec.name} gave vectors in another order than that of the items")
            places = [self._asked.popleft() for _ in rows]
        pairs = zip(places, rows, strict=True)
        self._store.put({place.key: _packed(row) for place, row in pairs if place.key and _finite(row)})
        with self._lock:  # last, since who is not known any more is looked for in the store
            for place, row in zip(places, rows, strict=True):
                place.row = row

    def settle(self) -> None:
        """`InputError` if the encoder has not given a vector for each item."""
        if self._asked:
            raise InputError(f"{self._spec.name} gave no vector for item {self._asked[0].id!r}")

    def ready(self) -> Iterator[Batch]:
        """The items before the first that is not encoded yet."""
        while True:
            group: list[_Place] = []
            with self._lock:
                while self._places and len(group) < self._most and self._places[0].vector is not None:
                    group.append(self._places.popleft())
                self._waiting -= sum(not place.asked for place in group)
            if not group:
                return
            yield _joined([place.id for place in group], [place.vector for place in group], self._spec)

    def _looked_up(self, items: Iterable[Item]) -> Iterator[tuple[Item, _Place]]:
        for group in windows(items, self._most):
            places = [_Place(item.id, content_key(item, self._spec.modalities)) for item in group]
            with self._lock:
                self._known = {key: place for key, place in self._known.items() if place.row is None}
            vectors = self._store.get(list(dict.fromkeys(place.key for place in places if place.key)))
            for item, place in zip(group, places, strict=True):
                if place.key is not None and (vector := vectors.get(place.key)) is not None:
                    place.row = _unpacked(vector, self._spec)
                yield item, place


# What an item is to an encoder


def content_key(item: Item, modalities: Sequence[Modality]) -> bytes | None:
    """16 bytes over what an encoder of these modalities reads of an item; None if its picture cannot be read.

    Unlike `Item.content_hash`, which serves to resume, this reads picture files: a path says nothing in another
    collection.
    """
    digest = hashlib.blake2b(digest_size=16)
    if "text" in modalities and item.text is not None:
        for part in (item.text, item.lang or ""):
            data = part.encode("utf-8", "surrogatepass")
            digest.update(b"text %d " % len(data) + data)
    if "image" in modalities and item.image is not None:
        try:
            digest.update(_picture(item.image))
        except (OSError, ValueError):  # the encoder says what is wrong with it
            return None
    return digest.digest()


def _picture(image: Path | bytes | PIL.Image.Image) -> bytes:
    """A digest of a picture: of the encoded bytes, in a file or not, or of a decoded one's pixels and their meaning."""
    if isinstance(image, bytes):
        return b"encoded " + hashlib.blake2b(image).digest()
    if isinstance(image, Path):
        if not stat.S_ISREG(image.stat().st_mode):  # reading a pipe might never end
            raise ValueError(f"{image} is not a regular file")
        with image.open("rb") as file:
            return b"encoded " + hashlib.file_digest(file, "blake2b").digest()
    orientation = image.getexif().get(0x0112)
    told = (image.mode, image.size, image.getpalette("RGBA") if image.mode == "P" else None)
    digest = hashlib.blake2b(repr((*told, image.info.get("transparency"), orientation)).encode())
    digest.update(image.tobytes())
    return b"decoded " + digest.digest()


# Batches as rows, and rows as bytes: little-endian float32, before them as many int32 where they are sparse


def _rows(batch: Batch) -> list[Row]:
    if isinstance(batch, Sparse):
        matrix = scipy.sparse.csr_matrix(batch.vectors, dtype=np.float32)
        bounds = itertools.pairwise(matrix.indptr.tolist())
        return [(matrix.indices[start:end].astype("<i4"), matrix.data[start:end]) for start, end in bounds]
    if isinstance(batch, Dense):
        return list(np.asarray(batch.vectors, np.float32))
    return [np.asarray(vectors, np.float32) for vectors in batch.vectors]


def _finite(row: Row) -> bool:
    return bool(np.isfinite(row[1] if isinstance(row, tuple) else row).all())


def _packed(row: Row) -> bytes:
    if isinstance(row, tuple):
        return row[0].astype("<i4").tobytes() + row[1].astype("<f4").tobytes()
    packed: bytes = row.astype("<f4", copy=False).tobytes()
    return packed


def _unpacked(vector: bytes, spec: EncoderSpec) -> Row | None:
    """The row that was packed; None if it cannot be one of this encoder's."""
    size = {"dense": 4 * spec.dim, "multi": 4 * spec.dim, "sparse": 8}[spec.kind]
    if len(vector) % size or (spec.kind == "dense" and len(vector) != size):
        return None
    if spec.kind == "sparse":
        half = len(vector) // 2
        return np.frombuffer(vector[:half], "<i4"), np.frombuffer(vector[half:], "<f4")
    row = np.array(
        np.frombuffer(vector, "<f4"), np.float32
    )  # a copy, which may be written to as a new one may
    return row if spec.kind == "dense" else row.reshape(-1, spec.dim)


def _joined(ids: list[str], rows: list[Row], spec: EncoderSpec) -> Batch:
    if spec.kind == "dense":
        return Dense(ids, np.stack(rows))
    if spec.kind == "multi":
        return Multi(ids, rows)
    starts = np.cumsum([0, *(len(terms) for terms, _ in rows)])
    terms = np.concatenate([terms for terms, _ in rows])
    weights = np.concatenate([weights for _, weights in rows])
    return Sparse(ids, scipy.sparse.csr_matrix((weights, terms, starts), (len(rows), spec.dim)))
