"""Files: read line by line, written whole or not at all, and directories that one process at a time may write to."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from filelock import FileLock, Timeout

from .errors import InputError


def read_lines(path: Path) -> Iterator[str]:
    """The lines of a UTF-8 file; `InputError` as `read_raw_lines`, and naming the line that is not UTF-8."""
    for number, line in read_raw_lines(path):
        try:
            yield line.decode("utf-8")
        except UnicodeDecodeError as error:
            raise InputError(f"{path}:{number}: not UTF-8 text ({error.reason})") from None


def read_raw_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """The numbered lines of a file, plain or gz, without a byte order mark; `InputError` if it cannot be read."""
    number = 0
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                yield number, line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"{path}: damaged or truncated gzip after line {number} ({error})") from None
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from None


def hash_file(path: Path) -> str:
    """The sha256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def write_atomically(path: str | Path) -> Iterator[IO[str]]:
    """A UTF-8 text file that appears under its name only when it is complete."""
    with place_atomically(path) as partial, partial.open("w", encoding="utf-8", newline="\n") as out:
        yield out


def write_json(path: str | Path, value: object) -> None:
    """JSON as people read it, in a file that appears under its name only when it is complete."""
    with write_atomically(path) as out:
        json.dump(value, out, indent=2, ensure_ascii=False)


@contextmanager
def place_atomically(path: str | Path) -> Iterator[Path]:
    """Where to write a file that takes the name `path` when the block ends; nothing is left of one that fails.

    `InputError` where it cannot be written, a full disk included.
    """
    path = Path(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield partial
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from None
    finally:
        with suppress(OSError):  # a path that could not be opened cannot be unlinked: that is no second error
            partial.unlink(missing_ok=True)


@contextmanager
def lock_directory(folder: Path) -> Iterator[None]:
    """The right to write to a directory, for one process; the system takes it back when that process ends.

    `InputError` if another process has it, or if nothing can be written there.
    """
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise InputError(f"another process is writing to {folder}: wait until it is done") from None
    except OSError as error:
        raise InputError(f"cannot write to {folder}: {error.strerror}") from None
    try:
        yield
    finally:
        lock.release()
