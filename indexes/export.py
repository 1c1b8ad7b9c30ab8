"""The vectors of an index as files for other programs: Parquet, or numpy's format with the ids beside."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ..errors import InputError
from ..files import place_atomically, write_atomically
from .base import Index
from .storage.card import Space

SPEC = b"crosslens"  # the key of a Parquet file's metadata under which the encoder is described
Block = tuple[Sequence[str], Any]


@dataclass(frozen=True)
class ExportedVectors:
    """What was written: `rows` vectors of one encoder; `lacking` documents (or passages) have none of it."""

    files: tuple[Path, ...]
    encoder: str
    fingerprint: str
    kind: str
    dim: int
    rows: int
    lacking: int

    def to_json(self) -> dict[str, object]:
        return {**vars(self), "files": [str(each) for each in self.files]}

    def __str__(self) -> str:
        what = {"dense": f"vectors of {self.dim} dimensions", "multi": "lists of vectors", "sparse": "lists of weights"}
        return f"{', '.join(map(str, self.files))}: {self.rows:,} {what[self.kind]} of {self.encoder}"

    @property
    def notes(self) -> list[str]:
        return [f"{self.lacking:,} have none, and are left out"] if self.lacking else []


def export_vectors(
    index: Index, path: Path, encoder: str | None = None, *, progress: Callable[[int], None] | None = None
) -> ExportedVectors:
    """Write the stored vectors of an encoder (a SPEC or fingerprint), as it made them but for rounding to float16.

    To a `.parquet` a row a document: `id` and `vector` (float32, of a fixed size); `vectors` (a list of such) for many
    a document; `terms` and `weights` for sparse ones. In an index of passages a row is a passage, `id` is
    `DOCUMENT#NUMBER`, and `document` says whose. To a `.npy` float32 [n, dim] of dense ones, and beside it in
    `NAME.ids.txt` the ids, one a line. Memory is constant, and files appear when they are complete. `InputError` for
    another ending, an unfinished index, and an encoder that the index does not have.
    """
    writers = {".parquet": _open_parquet, ".npy": _open_numpy}
    if path.suffix not in writers:
        raise InputError(f"{path} ends neither in .parquet nor in .npy")
    index = index.view()
    index.require_complete()
    space, tables = index.card.find_space(encoder), index.storage.tables
    if path.suffix == ".npy" and space.spec.kind != "dense":
        raise InputError(
            f"a .npy holds one vector a document, and {space.spec.name} makes {space.spec.kind} ones: write a .parquet"
        )
    rows = int(tables.documents.count_rows(f"{space.column} IS NOT NULL"))
    done = 0
    with writers[path.suffix](path, space, rows, index.card.passages is not None) as (files, write):
        for block in index.kind.scan(space):
            write(block)
            done += len(block[0])
            if progress is not None:
                progress(done)
    spec = space.spec
    return ExportedVectors(files, spec.name, space.fingerprint, spec.kind, spec.dim, done, len(tables) - done)


Writer = tuple[tuple[Path, ...], Callable[[Block], None]]


@contextmanager
def _open_numpy(path: Path, space: Space, rows: int, passages: bool) -> Iterator[Writer]:
    names = path.with_suffix(".ids.txt")
    shape = {"descr": "<f4", "fortran_order": False, "shape": (rows, space.spec.dim)}
    with place_atomically(path) as partial, partial.open("wb") as out, write_atomically(names) as listed:
        np.lib.format.write_array_header_1_0(out, shape)

        def write(block: Block) -> None:
            ids, vectors = block
            out.write(np.ascontiguousarray(vectors, "<f4").tobytes())
            listed.writelines(f"{id}\n" for id in ids)

        yield (path, names), write


@contextmanager
def _open_parquet(path: Path, space: Space, rows: int, passages: bool) -> Iterator[Writer]:
    from pyarrow import parquet

    spec = space.spec
    one = pa.list_(pa.float32(), spec.dim)
    columns = {
        "dense": [pa.field("vector", one)],
        "multi": [pa.field("vectors", pa.list_(one))],
        "sparse": [pa.field("terms", pa.list_(pa.int32())), pa.field("weights", pa.list_(pa.float32()))],
    }[spec.kind]
    owner = [pa.field("document", pa.string())] if passages else []
    about = {SPEC: json.dumps({"fingerprint": space.fingerprint, **spec.to_json()}).encode()}
    schema = pa.schema([pa.field("id", pa.string()), *owner, *columns], about)
    with place_atomically(path) as partial, parquet.ParquetWriter(partial, schema) as out:

        def write(block: Block) -> None:
            ids, vectors = block
            held = [pa.array(ids, pa.string())]
            if passages:
                held.append(pa.array([id.rpartition("#")[0] for id in ids], pa.string()))
            out.write_batch(pa.record_batch([*held, *_make_columns(spec.kind, spec.dim, vectors)], schema=schema))

        yield (path,), write


def _make_columns(kind: str, dim: int, vectors: Any) -> list[pa.Array]:
    if kind == "dense":
        return [pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1), pa.float32()), dim)]
    if kind == "multi":
        offsets = pa.array(np.append(0, np.cumsum([len(each) for each in vectors])), pa.int32())
        flat = pa.array(np.concatenate([np.zeros((0, dim), np.float32), *vectors]).reshape(-1), pa.float32())
        return [pa.ListArray.from_arrays(offsets, pa.FixedSizeListArray.from_arrays(flat, dim))]
    offsets = pa.array(vectors.indptr, pa.int32())
    return [pa.ListArray.from_arrays(offsets, pa.array(each)) for each in (vectors.indices, vectors.data)]
