"""What long judging has finished, kept on disk as it comes, so that a killed run goes on where it was."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from io import TextIOWrapper
from pathlib import Path
from typing import Any

from ...errors import InputError
from ...files import check_file, open_to_append, parse_json


class Journal:
    """JSON lines `{"key": ..., "value": ..., "counts": {...}}`, appended and flushed one by one.

    A key says all that the value depends on, so lines of other work are simply never asked for. A line that a kill
    cut short is left out. `counts` is what was counted since the line before; `counted` sums it over the lines that
    were used, so that totals hold over all sessions.
    """

    def __init__(self, path: Path) -> None:
        """`InputError` if the file cannot be read or written."""
        self.path = path
        self.found: dict[str, tuple[Any, Mapping[str, int]]] = {}
        self.counted: Counter[str] = Counter()
        try:
            # A kill may cut the last line anywhere, in the middle of a character and just before its end, too.
            if there := os.path.lexists(path):
                check_file(path)
            kept = path.read_text("utf-8", errors="replace") if there else ""
            for line in kept.split("\n"):
                with suppress(ValueError, KeyError, TypeError):
                    entry = parse_json(line)
                    self.found[entry["key"]] = entry["value"], entry["counts"]
            self._out = TextIOWrapper(open_to_append(path), "utf-8")
            if not kept.endswith("\n") and kept:
                self._out.write("\n")
        except OSError as error:
            raise InputError(f"cannot use the journal {path}: {error.strerror}") from None

    def get(self, key: str) -> Any | None:
        """The value of finished work, or None."""
        if key not in self.found:
            return None
        value, counts = self.found[key]
        self.counted.update(counts)
        return value

    def put(self, key: str, value: Any, counts: Mapping[str, int]) -> None:
        """Keep a value; it is on the disk when this returns."""
        line = json.dumps({"key": key, "value": value, "counts": dict(counts)}, ensure_ascii=False)
        self._out.write(line + "\n")
        self._out.flush()
        os.fsync(self._out.fileno())

    def close(self) -> None:
        """Close the file and leave it, for the next run to go on; who writes the result takes it away."""
        self._out.close()
