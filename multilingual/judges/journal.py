"""What long judging has finished, kept on disk as it comes, so that a killed run goes on where it was."""

from __future__ import annotations

import json
import logging
import os
import time
import zlib
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from ...errors import InputError
from ...files import check_file, open_to_append

log = logging.getLogger("crosslens")

SYNC = 1.0  # seconds between two times that all of it is forced onto the disk: what a loss of power may take


class Journal:
    """JSON lines `{"key": ..., "value": ..., "counts": {...}, "crc": ...}`, appended one by one.

    A key says all that the value depends on, so lines of other work are simply never asked for. `counts` is what was
    counted since the line before; `counted` sums it over the lines that were used, so that totals hold over all
    sessions. `crc` is the CRC-32 of the line without it (lines of earlier versions have none). A last line that a
    kill cut short is cut off; damaged lines are left out, with a warning, and their work is done again.
    """

    def __init__(self, path: Path) -> None:
        """`InputError` if the file cannot be read or written."""
        self.path = path
        self.found: dict[str, tuple[Any, Mapping[str, int]]] = {}
        self.counted: Counter[str] = Counter()
        try:
            if there := os.path.lexists(path):
                check_file(path)
            kept = path.read_bytes() if there else b""
            *lines, last = kept.split(b"\n")
            damaged = sum(not self._take(line) for line in lines)
            whole = bool(last) and self._take(last)  # a kill may come just before the end of the line
            if last and not whole:
                os.truncate(path, len(kept) - len(last))
            self._out = open_to_append(path).detach()  # unbuffered
            if whole:
                self._write(b"\n")
        except OSError as error:
            raise InputError(f"cannot use the journal {path}: {error.strerror}") from None
        self._synced = time.monotonic()
        if damaged:
            log.warning("%s: %d damaged lines are left out, and their work is done again", path, damaged)

    def __len__(self) -> int:
        """How many values it holds."""
        return len(self.found)

    def get(self, key: str) -> Any | None:
        """The value of finished work, or None."""
        if key not in self.found:
            return None
        value, counts = self.found[key]
        self.counted.update(counts)
        self.found[key] = value, {}  # what it cost is counted once
        return value

    def put(self, key: str, value: Any, counts: Mapping[str, int]) -> None:
        """Keep a value; it outlives the process when this returns, and a loss of power a second later.

        `InputError` where it cannot be written.
        """
        text = _write_line({"key": key, "value": value, "counts": dict(counts)})
        self.found[key] = value, {}
        try:
            self._write(f'{text[:-1]}, "crc": {zlib.crc32(text.encode())}}}\n'.encode())
            if time.monotonic() - self._synced > SYNC:
                os.fsync(self._out.fileno())
                self._synced = time.monotonic()
        except OSError as error:
            raise InputError(f"cannot write the journal {self.path}: {error.strerror}") from None

    def take_counts(self) -> Counter[str]:
        """What `counted` holds, which is then empty."""
        counted, self.counted = self.counted, Counter()
        return counted

    def clear(self) -> None:
        """Begin again with nothing in it."""
        self.found.clear()
        self.counted.clear()
        self._out.truncate(0)

    def close(self) -> None:
        """Close the file and leave it, for the next run to go on; who writes the result takes it away.

        One with nothing in it is removed.
        """
        empty = not os.fstat(self._out.fileno()).st_size
        self._out.close()
        if empty:
            with suppress(OSError):
                self.path.unlink()

    def _take(self, line: bytes) -> bool:
        """Whether the line is whole; then it is among what was found."""
        try:
            entry = json.loads(line)  # what is infinite, or half a surrogate pair, is a value here
            crc = entry.pop("crc", None)
            if entry.keys() != {"key", "value", "counts"}:
                return False
            if crc is not None and crc != zlib.crc32(_write_line(entry).encode()):
                return False
            numbers = entry["counts"].values()
            if not isinstance(entry["key"], str) or not all(type(number) in (int, float) for number in numbers):
                return False
            self.found[entry["key"]] = entry["value"], Counter(entry["counts"])
        except (ValueError, TypeError, AttributeError, RecursionError):
            return False
        return True

    def _write(self, line: bytes) -> None:
        left = memoryview(line)
        while left:  # a disk that fills up takes a part, and fails at the next
            left = left[self._out.write(left) :]


def _write_line(entry: Mapping[str, Any]) -> str:
    """An entry as JSON, its parts in their order; ASCII, in which lone surrogates have a form too."""
    return json.dumps(entry)
