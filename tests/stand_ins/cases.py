"""How collections of the contract suite are written: small files, each kind a function with `@case()`."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image


@dataclass(frozen=True)
class Written:
    """A collection that a case has written.

    `name` is what `load_collection` takes. `docs`, `topics` and `qrels` are files of it: documents are rows of `docs`
    (JSON lines), and without the others there are no queries or judgements; None where that is not so.
    """

    name: str
    docs: Path | None = None
    topics: Path | None = None
    qrels: Path | None = None


CASES: dict[str, Callable[[Path], Written]] = {}
LINES: list[str] = []  # the cases with `docs`


def case(*, lines: bool = True) -> Callable[[Callable[[Path], Written]], Callable[[Path], Written]]:
    """A kind of collection; `lines`: its documents are lines of JSON."""

    def add(build: Callable[[Path], Written]) -> Callable[[Path], Written]:
        CASES[build.__name__] = build
        if lines:
            LINES.append(build.__name__)
        return build

    return add


def put(path: Path, *rows: object) -> Path:
    """JSON lines (gzipped if named so) from records, or the text given."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join((r if isinstance(r, str) else json.dumps(r, ensure_ascii=False)) + "\n" for r in rows)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def put_parquet(path: Path, *rows: dict[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(list(rows)), path)
    return path


def picture(colour: str = "red", kind: str = "JPEG") -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (4, 4), colour).save(out, kind)
    return out.getvalue()


def put_picture(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(picture())
    return path
