"""Where one encoder's vectors are kept between runs: a SQLite file, keyed by what the encoder reads of an item."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ...checkpoints.offline.packages import locate_cache
from ...files import open_file, parse_json
from ...items import Item, Modality
from ...media.drawing import Drawing
from ...media.modalities import MEDIA
from ..base import EncoderSpec
from ..batching import Row

log = logging.getLogger("crosslens")

# Raised when rows are written in another way, or when encoders with the spec that they had make other vectors.
FORMAT = 1
PAGE = 16384  # bytes: vectors of 384 to 1,024 dimensions fill such pages to 76-96%
WAIT = 20.0  # seconds for another process to finish what it writes
TOGETHER = 500  # keys a statement: old SQLites take no more than 999

# Days of use are not in the table of vectors: to note that a million were used again would write all of it again.
TABLES = """
CREATE TABLE about (spec TEXT NOT NULL);
CREATE TABLE vectors (row INTEGER PRIMARY KEY, sum BLOB NOT NULL, vector BLOB NOT NULL);
CREATE TABLE keys (key BLOB PRIMARY KEY, row INTEGER NOT NULL, day INTEGER NOT NULL) WITHOUT ROWID;
"""


class VectorStore:
    """Vectors as bytes, by 16-byte keys, on disk; a cache, so that nothing here is an error of the caller.

    What cannot be read is not found; what cannot be written is not kept; either is one warning. Rows carry a checksum
    over key and vector, and one that does not hold is not found and is written again. `put` commits: a kill at any
    moment leaves what was put before. Several processes and threads may use a file at once (SQLite's write-ahead log,
    so on a local disk). `day` counts from 1970 and is that of the last use.
    """

    def __init__(self, path: Path, spec: EncoderSpec) -> None:
        self.path = path
        self.spec = spec
        self._lock = threading.Lock()
        self._db: sqlite3.Connection | None = None
        self._readable = self._writable = True
        self._damaged: set[bytes] = set()

    def get(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        """The vectors that are there; those used today for the first time are marked as used."""
        found: dict[bytes, bytes] = {}
        if not self._readable:
            return found
        today, stale = count_days(), []
        with self._lock:
            with self._survive("read"):
                for key, used, sum, vector in _select(self._open(), "k.key, k.day, v.sum, v.vector", keys):
                    if not isinstance(vector, bytes) or sum != _checksum(key, vector):
                        if not self._damaged:
                            log.warning("the cache %s holds damaged vectors: they are encoded again", self.path)
                        self._damaged.add(key)
                        continue
                    found[key] = vector
                    if used != today:
                        stale.append((today, key))
            if stale and self._writable:
                with self._survive("write"), begin(self._open()) as db:
                    db.executemany("UPDATE keys SET day = ? WHERE key = ?", stale)
        return found

    def put(self, vectors: Mapping[bytes, bytes]) -> None:
        """Keep vectors; those that another process has kept meanwhile stay as they are."""
        if not vectors or not self._writable:
            return
        today = count_days()
        with self._lock, self._survive("write"):
            with begin(self._open()) as db:
                for key in self._damaged & vectors.keys():
                    db.execute("DELETE FROM vectors WHERE row = (SELECT row FROM keys WHERE key = ?)", (key,))
                there = {key for (key,) in _select(db, "k.key", list(vectors))}
                (last,) = db.execute("SELECT coalesce(max(row), 0) FROM vectors").fetchone()
                numbered = list(enumerate((key for key in vectors if key not in there), last + 1))
                rows = ((row, _checksum(key, vectors[key]), vectors[key]) for row, key in numbered)
                db.executemany("INSERT INTO vectors VALUES (?, ?, ?)", rows)
                used = ((key, row, today) for row, key in numbered)
                db.executemany("INSERT OR REPLACE INTO keys VALUES (?, ?, ?)", used)
            self._damaged -= vectors.keys()

    def close(self) -> None:
        """Let go of the file; the next use opens it again."""
        with self._lock:
            if self._db is not None:
                with suppress(sqlite3.Error):
                    self._db.close()
                self._db = None

    def _open(self) -> sqlite3.Connection:
        if self._db is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            db = open_vectors(self.path)
            try:
                self._prepare(db)
            except BaseException:
                db.close()
                raise
            self._db = db
        return self._db

    def _prepare(self, db: sqlite3.Connection) -> None:
        if _read_format(db) == 0:
            db.execute(f"PRAGMA page_size = {PAGE}")
            with suppress(sqlite3.OperationalError):  # where another process is just doing it
                db.execute("PRAGMA journal_mode = WAL")
            with begin(db):
                if _read_format(db) == 0:
                    for statement in TABLES.split(";"):
                        db.execute(statement)
                    db.execute("INSERT INTO about VALUES (?)", (json.dumps(self.spec.to_json()),))
                    db.execute(f"PRAGMA user_version = {FORMAT}")
        if self.spec.difference(read_spec(db)):
            raise sqlite3.DatabaseError("it holds the vectors of another encoder")

    @contextmanager
    def _survive(self, what: Literal["read", "write"]) -> Iterator[None]:
        """Errors of the file inside the block become one warning, and the file is not read (or written) again."""
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            self._writable = False
            if what == "read":
                self._readable = False
            advice = "set CROSSLENS_VECTORS to another directory, or write --no-cache"
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF
            if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                advice = "another process keeps it locked"
            elif code == sqlite3.SQLITE_FULL:
                advice = "make room, for example by `crosslens cache --prune --to SIZE`"
            elif isinstance(error, sqlite3.Error) and code in (0, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
                advice = f"remove it by `crosslens cache --prune --encoder {self.spec.fingerprint}`"
            reason = error.strerror if isinstance(error, OSError) else error
            log.warning("going on without the cache: cannot %s %s (%s); %s", what, self.path, reason, advice)


def compute_key(item: Item, modalities: Collection[Modality]) -> bytes | None:
    """16 bytes over what an encoder of these modalities reads of an item; None if a medium of it cannot be read.

    Unlike `Item.content_hash`, which serves to resume, this reads files: a path says nothing in another collection.
    """
    digest = hashlib.blake2b(digest_size=16)
    if "text" in modalities and item.text is not None:
        for part in (item.text, item.lang or ""):
            data = part.encode("utf-8", "surrogatepass")
            digest.update(b"text %d " % len(data) + data)
    for name, value in item.contents.items():
        if name in modalities and value is not None:
            if name != "image":  # pictures came first, and their keys have no name
                digest.update(f"{name} ".encode())
            try:
                digest.update(_digest(name, value))
            except (OSError, ValueError):  # the encoder says what is wrong with it
                return None
    return digest.digest()


def pack_row(row: Row) -> bytes:
    """Little-endian float32, before them as many int32 where they are sparse."""
    if isinstance(row, tuple):
        return row[0].astype("<i4").tobytes() + row[1].astype("<f4").tobytes()
    return bytes(row.astype("<f4", copy=False).tobytes())


def unpack_row(packed: bytes, spec: EncoderSpec) -> Row | None:
    """The row that was packed; None if it cannot be one of this encoder's."""
    size = {"dense": 4 * spec.dim, "multi": 4 * spec.dim, "sparse": 8}[spec.kind]
    if len(packed) % size or (spec.kind == "dense" and len(packed) != size):
        return None
    if spec.kind == "sparse":
        half = len(packed) // 2
        return np.frombuffer(packed[:half], "<i4"), np.frombuffer(packed[half:], "<f4")
    row = np.frombuffer(packed, "<f4").astype(np.float32)  # a copy, which may be written to as a new one may
    return row if spec.kind == "dense" else row.reshape(-1, spec.dim)


def locate_vector_cache() -> Path:
    """Where vectors are kept: `CROSSLENS_VECTORS`, else `vectors` beside the checkpoints; not created."""
    if chosen := os.environ.get("CROSSLENS_VECTORS"):
        return Path(chosen).expanduser()
    return locate_cache() / "vectors"


def locate_vectors(spec: EncoderSpec) -> Path:
    """The file of an encoder: one for each space, and for each precision that vectors of it were computed in."""
    dtype = "".join(each if each.isalnum() else "_" for each in spec.dtype)
    return locate_vector_cache() / f"{spec.fingerprint}-{dtype}.sqlite"


def open_vectors(path: Path) -> sqlite3.Connection:
    """The database in `path`, which is made if it is not there, without transactions of Python's own."""
    db = sqlite3.connect(path, timeout=WAIT, isolation_level=None, check_same_thread=False)
    # In WAL mode a kill loses nothing so, and a power cut no more than the last commits.
    db.execute("PRAGMA synchronous = NORMAL")
    return db


@contextmanager
def begin(db: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """The right to write until the block ends: committed then, or undone if it fails."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield db
        db.execute("COMMIT")
    except BaseException:
        with suppress(sqlite3.Error):  # some errors, a full disk among them, have undone it already
            db.execute("ROLLBACK")
        raise


def read_spec(db: sqlite3.Connection) -> EncoderSpec:
    """Whose vectors a file holds; `sqlite3.DatabaseError` if it is not a file of this format."""
    if (found := _read_format(db)) != FORMAT:
        raise sqlite3.DatabaseError(f"it is of format {found}, and this crosslens reads {FORMAT}")
    row = db.execute("SELECT spec FROM about").fetchone()
    try:
        return EncoderSpec.from_json(parse_json(row[0]))
    except (TypeError, ValueError, AttributeError):
        raise sqlite3.DatabaseError("it does not say whose vectors it holds") from None


def count_days() -> int:
    """Today, in days since 1970 (UTC)."""
    return int(time.time() // 86400)


def _checksum(key: bytes, vector: bytes) -> bytes:
    """8 bytes over a key and its vector."""
    return hashlib.blake2b(vector, digest_size=8, key=key).digest()


def _read_format(db: sqlite3.Connection) -> int:
    return int(db.execute("PRAGMA user_version").fetchone()[0])


def _select(db: sqlite3.Connection, columns: str, keys: Sequence[bytes]) -> Iterator[Any]:
    """Columns of the keys (k) and vectors (v) that are there."""
    for start in range(0, len(keys), TOGETHER):
        part = keys[start : start + TOGETHER]
        marks = ",".join("?" * len(part))
        yield from db.execute(
            f"SELECT {columns} FROM keys k CROSS JOIN vectors v ON v.row = k.row WHERE k.key IN ({marks})", part
        )


def _digest(name: str, value: object) -> bytes:
    """A digest of a medium: of the encoded bytes, in a file or not, or of what stands for a decoded one."""
    if isinstance(value, Drawing):
        value = value.read()
    if isinstance(value, bytes):
        return b"encoded " + hashlib.blake2b(value).digest()
    if isinstance(value, Path):
        with open_file(value) as file:
            return b"encoded " + hashlib.file_digest(file, "blake2b").digest()
    if name == "image":
        return b"decoded " + _digest_pixels(value)
    return b"decoded " + hashlib.blake2b(MEDIA[name].digest(value)).digest()


def _digest_pixels(image: Any) -> bytes:
    """A digest of a decoded picture, as files of this format have it since before there were other media."""
    from ...media.images import describe_pixels

    palette, transparent, orientation = describe_pixels(image)
    digest = hashlib.blake2b(repr((image.mode, image.size, palette, transparent, orientation)).encode())
    digest.update(image.tobytes())
    return digest.digest()
