"""Files of records, a line of JSON each."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ...errors import InputError
from ...files import read_raw_lines

Rows = Iterator[tuple[str, Any]]  # each row with its place, `FILE:LINE`, as error messages name it


def find_json_lines(root: Path, stem: str) -> Path | None:
    """STEM.jsonl or STEM.jsonl.gz; `InputError` where both are there."""
    return find_packed(root, f"{stem}.jsonl")


def find_packed(root: Path, name: str) -> Path | None:
    """NAME or NAME.gz; `InputError` where both are there."""
    plain, packed = (path if os.path.lexists(path) else None for path in (root / name, root / f"{name}.gz"))
    if plain and packed:
        raise InputError(f"{root} has both {plain.name} and {packed.name}; keep one")
    return plain or packed


def read_json_lines(*paths: Path) -> Iterator[tuple[str, bytes]]:
    """The lines of files that are not blank, not parsed yet, with their places; `InputError` as `read_raw_lines`."""
    for path in paths:
        for number, line in read_raw_lines(path):
            if line.strip():
                yield f"{path}:{number}", line


def to_json_line(id: str, record: Mapping[str, Any]) -> str:
    """A record as a line of JSON; `InputError`, which names its id, on what no such line can hold."""
    try:
        line = json.dumps(record, ensure_ascii=False, allow_nan=False)
        line.encode("utf-8")
    except (TypeError, ValueError) as error:
        raise InputError(f"{id!r} cannot be written as JSON: {error}") from None
    return line + "\n"
