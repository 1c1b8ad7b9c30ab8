"""Checksums of an index's files: which files its state consists of, and whether they are what was written.

A disk, a copy or a network may change a byte and say nothing. So the card has the size and the sha256 of each file of
a finished index, and a checksum of its own.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ...errors import InputError, list_few
from ...files import hash_file

Checksums = Mapping[str, tuple[int, str]]  # a file's path within the index -> its size in bytes, and its sha256

# What can be made again is checked whenever an index is opened, and of the rest the smallest files up to so many bytes:
# all of a small index. Hashing 1.4 GB takes a second on one core.
LITTLE = 256 << 20
THREADS = min(8, os.cpu_count() or 1)
CORRECTED = "corrected.lance"
DERIVED = ("moments_*", "postings_*/*", f"{CORRECTED}/**/*")  # what follows from the documents' table
UNREAD = "_transactions"  # of a table: what only writers that meet look at

_hashed: dict[Path, tuple[tuple[int, ...], str]] = {}  # what this process has hashed, with size, time and inode


def list_checksums(
    folder: Path, tables: Mapping[str, int], derived: Iterable[str], known: Checksums
) -> dict[str, tuple[int, str]]:
    """The checksums of the files that an index consists of now: `tables` maps the names of its tables to versions.

    `derived` are the names of its derived files and directories.

    Files of tables never change once they are written, so those in `known` are not read again. `InputError` if a file
    cannot be read.
    """
    try:
        return _list_checksums(_list_files(folder, tables, set(derived)), folder, known)
    except OSError as error:
        raise InputError(f"cannot read {error.filename or folder}: {error.strerror or error}") from None


def _list_checksums(paths: Iterable[Path], folder: Path, known: Checksums) -> dict[str, tuple[int, str]]:
    kept, new = {}, []
    for path in paths:
        name, size = path.relative_to(folder).as_posix(), path.stat().st_size
        if ".lance/" in name and name in known and known[name][0] == size:
            kept[name] = known[name]
        else:
            new.append(path)
    with ThreadPoolExecutor(THREADS) as threads:
        sums = threads.map(hash_unchanged, new)
        made = {
            path.relative_to(folder).as_posix(): (path.stat().st_size, sum) for path, sum in zip(new, sums, strict=True)
        }
    return dict(sorted({**kept, **made}.items()))


def check_files(folder: Path, checksums: Checksums) -> None:
    """`InputError` naming the files that are not there, or not what was written, as far as opening an index looks."""
    wanted = {name: each for name, each in checksums.items() if f"/{UNREAD}/" not in name}
    if damage := find_damage(folder, wanted, _choose(wanted)):
        told = list_few(f"{name} {what}" for name, what in damage.items())
        raise InputError(f"{folder} is damaged: {told}; `crosslens verify {folder}` says what can be repaired")


def find_damage(folder: Path, checksums: Checksums, read: Iterable[str] | None = None) -> dict[str, str]:
    """What is wrong with which files, by name: all are looked at, and those in `read` are hashed.

    Without `read` all are hashed, those that this process has hashed before, too.
    """
    hash = hash_file if read is None else hash_unchanged
    found = {}
    for name, (size, _) in checksums.items():
        try:
            there = (folder / name).stat().st_size
        except OSError as error:
            found[name] = f"cannot be read ({error.strerror})" if (folder / name).exists() else "is missing"
        else:
            if there != size:
                found[name] = f"has {there:,} bytes, not {size:,}"
    names = [name for name in (checksums if read is None else read) if name not in found]
    with ThreadPoolExecutor(THREADS) as threads:
        for name, sum in zip(names, threads.map(lambda name: _hash(hash, folder / name), names), strict=True):
            if sum != checksums[name][1]:
                found[name] = "is not what was written (its sha256 differs)" if sum else "cannot be read"
    return dict(sorted(found.items()))


def hash_unchanged(path: Path) -> str:
    """The sha256 of a file; one that has the size, time and inode that it had is not read again by this process."""
    stat = path.stat()
    state = (stat.st_size, stat.st_mtime_ns, stat.st_ino, stat.st_dev)
    held = _hashed.get(path)
    if held is None or held[0] != state:
        _hashed[path] = held = state, hash_file(path)
    return held[1]


def is_derived(name: str) -> bool:
    """Whether a file follows from the table of documents, and is small or searched by."""
    return any(Path(name).match(pattern) for pattern in DERIVED) or name.startswith(f"{CORRECTED}/")


def _choose(checksums: Checksums) -> list[str]:
    """The files that are hashed when an index is opened."""
    chosen = [name for name in checksums if is_derived(name)]
    left = LITTLE
    for name, (size, _) in sorted(checksums.items(), key=lambda pair: pair[1][0]):
        if not is_derived(name):
            left -= size
            if left < 0:
                break
            chosen.append(name)
    return chosen


def _list_files(folder: Path, tables: Mapping[str, int], derived: Container[str]) -> Iterator[Path]:
    for pattern in ("moments_*", "postings_*/*"):
        yield from (path for path in sorted(folder.glob(pattern)) if path.relative_to(folder).parts[0] in derived)
    for name, version in tables.items():
        yield from _list_table(folder / f"{name}.lance", version)


def _list_table(table: Path, version: int) -> Iterator[Path]:
    """The files of a version of a Lance table: its manifest, and what that names.

    The manifest is a protocol buffer, in which names of files stand as they are, ids of indexes as 16 bytes, and
    files of deletions as the numbers that their names are made of.
    """
    manifest = find_manifest(table, version)
    fragments, indexes = _split_manifest(manifest.read_bytes())
    yield manifest
    for path in sorted(table.glob("*/**/*")):
        kind, first = path.relative_to(table).parts[:2]
        try:
            named = indexes if kind == "_indices" else fragments
            if kind == "_indices":
                key = uuid.UUID(first).bytes
            elif kind == "_deletions":
                _, read, id = map(int, path.stem.split("-"))
                key = b"\x10" + _write_varint(read) + b"\x18" + _write_varint(id)
            else:
                key = path.stem.encode()
        except ValueError:  # not a file of Lance's
            continue
        if kind in ("data", "_indices", "_deletions", UNREAD) and key in named and path.is_file():
            yield path


def find_manifest(table: Path, version: int) -> Path:
    """The manifest of a version of a Lance table, by either of Lance's ways to name it."""
    newest = table / "_versions" / f"{2**64 - 1 - version:020d}.manifest"  # so that the latest is listed first
    return newest if newest.exists() else table / "_versions" / f"{version}.manifest"


def _split_manifest(data: bytes) -> tuple[bytes, bytes]:
    """What of a manifest names fragments, and what of it indexes; it also says what its transaction has replaced.

    Each part is a message after its length; the end of the file says where the first is, and its field 6 the second.
    """

    def read(start: int) -> bytes:
        return data[start + 4 : start + 4 + int.from_bytes(data[start : start + 4], "little")]

    message = read(int.from_bytes(data[-16:-8], "little"))
    indexes, at = b"", 0
    while at < len(message):
        tag, at = _read_varint(message, at)
        field, kind = tag >> 3, tag & 7
        number, at = _read_varint(message, at) if kind in (0, 2) else ({1: 8, 5: 4}[kind], at)
        if field == 6 and kind == 0:
            indexes = read(number)
        at += number if kind else 0
    return message, indexes


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    """A number as `_write_varint` writes it, and where it ends."""
    end = at
    while data[end] > 127:
        end += 1
    return sum((byte & 127) << 7 * place for place, byte in enumerate(data[at : end + 1])), end + 1


def _write_varint(number: int) -> bytes:
    """A number as a protocol buffer has it: 7 bits a byte, the lowest first."""
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


def _hash(hash: Callable[[Path], str], path: Path) -> str:
    """The sha256 of a file, "" if it cannot be read."""
    try:
        return hash(path)
    except (OSError, InputError):
        return ""
