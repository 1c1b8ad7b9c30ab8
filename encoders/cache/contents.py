"""What the vector cache holds, and making it smaller."""

from __future__ import annotations

import math
import re
import sqlite3
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from ...errors import InputError, unknown_name
from ...files import write_size
from .store import begin, count_days, locate_vector_cache, open_vectors, read_spec

NAME = re.compile(r"([0-9a-f]{12})-(\w+)\.sqlite")
UNITS = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
UNITS |= {"KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}
# What a file says that is none, is damaged, or lacks our tables; 0 is what `read_spec` says itself.
UNREADABLE = (0, sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


@dataclass(frozen=True)
class CacheFile:
    """One encoder's file: `bytes` on disk, the `day` of the last use (from 1970); `error` says why it is unreadable."""

    path: Path
    name: str
    fingerprint: str
    dtype: str
    vectors: int
    bytes: int
    day: int | None
    error: str = ""

    def to_json(self) -> dict[str, object]:
        return {
            "encoder": self.name,
            "fingerprint": self.fingerprint,
            "dtype": self.dtype,
            "vectors": self.vectors,
            "bytes": self.bytes,
            "last_used": write_date(self.day),
            "error": self.error or None,
        }

    def __str__(self) -> str:
        state = f"{self.vectors:,} vectors, {write_size(self.bytes)}, last used {write_date(self.day) or 'never'}"
        if self.error:
            state = f"{write_size(self.bytes)}, cannot be read ({self.error})"
        return f"{self.fingerprint}  {self.name} in {self.dtype}: {state}"


@dataclass(frozen=True)
class CacheContents:
    """The whole cache; `removed` vectors and `freed` bytes were taken out of it just now."""

    directory: Path
    files: tuple[CacheFile, ...]
    removed: int | None = None
    freed: int | None = None

    def to_json(self) -> dict[str, object]:
        pruned = {} if self.freed is None else {"removed": self.removed, "freed": self.freed}
        return {
            "directory": str(self.directory),
            "encoders": [each.to_json() for each in self.files],
            "vectors": sum(each.vectors for each in self.files),
            "bytes": sum(each.bytes for each in self.files),
            **pruned,
        }

    def __str__(self) -> str:
        pruned = [] if self.freed is None else [f"{self.removed:,} vectors removed, {write_size(self.freed)} freed"]
        vectors, size = sum(each.vectors for each in self.files), sum(each.bytes for each in self.files)
        whole = f"{self.directory}: {vectors:,} vectors, {write_size(size)}"
        return "\n".join([*pruned, *map(str, self.files), whole])


def read_contents() -> CacheContents:
    """What the cache holds, the largest file first."""
    where = locate_vector_cache()
    paths = sorted(where.glob("*.sqlite"))
    found = [_read_file(path, *match.groups()) for path in paths if (match := NAME.fullmatch(path.name))]
    return CacheContents(where, tuple(sorted(found, key=lambda each: -each.bytes)))


def prune_cache(*, older_than: int | None = None, encoder: str | None = None, to: str | None = None) -> CacheContents:
    """Take vectors out, and what is left of the cache.

    Those last used more than `older_than` days ago (0: before today); then the longest unused until the files take
    no more than `to` (`500MB`, `5GB`, `2GiB`); all, if neither is given. `encoder`, a fingerprint or a SPEC, keeps to
    the files of that encoder. An empty file is removed where no process has it open, an unreadable one always.
    `InputError` for an encoder that is not there, days below 0, a size that is none, or if another process keeps a
    file locked.
    """
    if older_than is not None and older_than < 0:
        raise InputError(f"--older-than counts days and must be 0 or more, not {older_than}")
    most = None if to is None else parse_size(to)
    kept = read_contents().files
    chosen = [each for each in kept if encoder in (None, each.fingerprint, each.name)]
    if encoder is not None and not chosen:
        raise unknown_name(encoder, [*(each.name for each in kept), *(each.fingerprint for each in kept)], "encoder")
    sound = [each.path for each in chosen if not each.error]
    for unreadable in (each.path for each in chosen if each.error):
        for part in _list_parts(unreadable):
            part.unlink(missing_ok=True)
    removed = 0
    if older_than is not None or most is None:
        removed += sum(_remove(path, math.inf if older_than is None else count_days() - older_than) for path in sound)
    if most is not None:
        removed += _shrink_to(sound, most)
    freed = sum(each.bytes - _count_bytes(each.path) for each in chosen)
    return replace(read_contents(), removed=removed, freed=freed)


def parse_size(text: str) -> int:
    """Bytes of a size as people write it: `5GB` (10^9), `2GiB` (2^30), `0`; `InputError` if it is none."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?I?B?)\s*", text.upper())
    unit = match and (match[2] if match[2].endswith("B") else match[2] + "B")
    if match is None or unit not in UNITS:
        raise InputError(f"{text!r} is not a size: write 500MB, 5GB or 2GiB")
    return int(float(match[1]) * UNITS[unit])


def _read_file(path: Path, fingerprint: str, dtype: str) -> CacheFile:
    try:
        with closing(open_vectors(path)) as db:
            spec = read_spec(db)
            vectors, last = db.execute("SELECT count(*), max(day) FROM keys").fetchone()
        return CacheFile(path, spec.name, fingerprint, spec.dtype, vectors, _count_bytes(path), last)
    except sqlite3.Error as error:
        if getattr(error, "sqlite_errorcode", 0) & 0xFF not in UNREADABLE:
            raise InputError(f"cannot read {path}: {error}") from None
        return CacheFile(path, "?", fingerprint, dtype, 0, _count_bytes(path), None, str(error))


def shrink_vectors(most: int, before: float = math.inf) -> int:
    """Remove the longest unused vectors until all take `most` bytes, of those last used before a day; how many."""
    return _shrink_to([each.path for each in read_contents().files if not each.error], most, before)


def _shrink_to(paths: Sequence[Path], most: int, before: float = math.inf) -> int:
    """Remove the longest unused vectors of all files until these take `most` bytes; how many were removed."""
    removed = 0
    while (over := sum(map(_count_bytes, paths)) - most) > 0:
        # What a vector takes is known on average only: so again until it fits.
        days: list[tuple[int, int, float, Path]] = []
        for path in paths:
            if path.exists():
                with closing(open_vectors(path)) as db:
                    counts = db.execute("SELECT day, count(*) FROM keys GROUP BY day").fetchall()
                each = _count_bytes(path) / max(1, sum(count for _, count in counts))
                days += [(used, count, each, path) for used, count in counts if used < before]
        if not days:
            break
        quota: dict[Path, int] = {}
        for _, count, each, path in sorted(days, key=lambda found: found[0]):
            taken = min(count, math.ceil(over / each))
            quota[path] = quota.get(path, 0) + taken
            over -= math.ceil(taken * each)
            if over <= 0:
                break
        for path, count in quota.items():
            removed += _remove(path, before, count)
    return removed


def _remove(path: Path, before: float, most: int = -1) -> int:
    """Remove the vectors last used before a day, the longest unused and oldest first and at most so many."""
    try:
        with closing(open_vectors(path)) as db:
            with begin(db):
                db.execute("CREATE TEMP TABLE gone AS SELECT key, row FROM keys LIMIT 0")
                db.execute(
                    "INSERT INTO gone SELECT key, row FROM keys WHERE day < ? ORDER BY day, row LIMIT ?", (before, most)
                )
                (count,) = db.execute("SELECT count(*) FROM gone").fetchone()
                db.execute("DELETE FROM vectors WHERE row IN (SELECT row FROM gone)")
                db.execute("DELETE FROM keys WHERE key IN (SELECT key FROM gone)")
                (left,) = db.execute("SELECT count(*) FROM keys").fetchone()
            if count:
                _shrink(db, path)
            if not left:
                _drop_empty(db, path)
            return int(count)
    except sqlite3.OperationalError as error:
        raise InputError(f"cannot prune {path}: {error}; is another process using it?") from None
    except sqlite3.DatabaseError as error:
        raise InputError(f"cannot prune {path}: {error}; remove it") from None


def _shrink(db: sqlite3.Connection, path: Path) -> None:
    """Give what deleted rows took back to the disk."""
    try:
        db.execute("VACUUM")
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_FULL:
            raise
        raise InputError(
            f"{path}: vectors are removed, but to give their room back takes as much room as the others need, and the "
            "disk is full; without --older-than and --to whole files go"
        ) from None


def _drop_empty(db: sqlite3.Connection, path: Path) -> None:
    """Remove an empty file, unless another process has it open: that one would write on to nowhere."""
    db.execute("PRAGMA busy_timeout = 0")
    with suppress(sqlite3.OperationalError):  # in use
        if db.execute("PRAGMA journal_mode = DELETE").fetchone()[0] != "delete":
            return
        db.execute("BEGIN EXCLUSIVE")
        if db.execute("SELECT count(*) FROM keys").fetchone()[0] == 0:
            path.unlink()
        db.execute("ROLLBACK")


def _count_bytes(path: Path) -> int:
    total = 0
    for each in _list_parts(path):
        with suppress(FileNotFoundError):
            total += each.stat().st_size
    return total


def _list_parts(path: Path) -> list[Path]:
    """A database's file, and those that SQLite keeps beside it while it is open."""
    return [path, *(path.with_name(path.name + end) for end in ("-wal", "-shm"))]


def write_date(number: int | None) -> str | None:
    return None if number is None else datetime.fromtimestamp(number * 86400, UTC).date().isoformat()
