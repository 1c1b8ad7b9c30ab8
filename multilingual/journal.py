"""What long judging has finished, kept on disk as it comes, so that a killed run goes on where it was."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import InputError


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
            torn = False
            if path.exists():
                for line in path.read_text("utf-8").splitlines():
                    try:
                        entry = json.loads(line)
                        self.found[entry["key"]] = entry["value"], entry["counts"]
                        torn = False
                    except (ValueError, KeyError, TypeError):
                        torn = True
            self._out = path.open("a", encoding="utf-8")
            if torn:
                self._out.write("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"cannot use the journal {path}: {getattr(error, 'strerror', error)}") from None

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
        """Close the file and leave it, for the next run to go on."""
        self._out.close()

    def remove(self) -> None:
        """Close the file and take it away: the work is done and written elsewhere."""
        self.close()
        self.path.unlink(missing_ok=True)
