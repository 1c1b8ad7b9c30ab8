"""Items as rows of the documents table and back, and vectors as columns of it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ...items import Item
from ...media.language_codes import find_language
from ...media.modalities import to_bytes
from .analysis import analyse
from .filters import list_facets
from .fulltext import COLUMNS, choose_group
from .resume import ItemState

# The key of an item's metadata under which texts stand, by language ("" for the item's own), that only full text reads.
EXPANSIONS = "_expansions"
PASSAGE = "_passage"  # the key of a passage's metadata that says what it is a passage of


def make_media_fields(name: str) -> list[pa.Field]:
    """The columns of a medium: its bytes, or the path of a file that holds it."""
    return [pa.field(name, pa.binary()), pa.field(f"{name}_path", pa.string())]


FIELDS = [
    pa.field("id", pa.string(), nullable=False),
    pa.field("lang", pa.string()),
    pa.field("modality", pa.string()),
    pa.field("text", pa.string()),
    *make_media_fields("image"),
    pa.field("meta", pa.string()),
    pa.field("facets", pa.list_(pa.string())),
    pa.field("hash", pa.string()),
]


def list_media(names: Iterable[str]) -> list[str]:
    """The media that have columns among the `names` of a table's columns, whether registered here or not."""
    there = list(names)
    return [each for each in there if f"{each}_path" in there]


def make_rows(
    items: Sequence[Item],
    states: Sequence[ItemState],
    vectors: Mapping[str, pa.Array],
    schema: pa.Schema,
    analysis: int,
) -> pa.Table:
    """A window of items as rows of the documents table; `vectors` are the columns of their vectors by name.

    `analysis` is the version of the analysis of full text.
    """
    columns: dict[str, Any] = {
        "id": [item.id for item in items],
        "lang": [item.lang for item in items],
        "modality": [item.modality for item in items],
        "text": [item.text for item in items],
        "meta": [state.meta for state in states],
        "facets": [list_facets(item.meta) for item in items],
        "hash": [state.hash for state in states],
        **vectors,
    }
    for name in list_media(schema.names):
        held = [item.contents.get(name) for item in items]
        columns[name] = [None if each is None or isinstance(each, Path) else to_bytes(name, each) for each in held]
        columns[f"{name}_path"] = [str(each.absolute()) if isinstance(each, Path) else None for each in held]
    texts = [_list_texts(item) for item in items]
    for name in set(COLUMNS).intersection(schema.names):
        group = COLUMNS[name]
        columns[name] = [analyse(each[group], group, analysis) if group in each else None for each in texts]
    nothing = [None] * len(items)
    return pa.Table.from_pydict({name: columns.get(name, nothing) for name in schema.names}, schema)


def find_whole(meta: Mapping[str, object]) -> object:
    """What the metadata of a passage says of its whole document, if that is in its vector, too."""
    part = meta.get(PASSAGE)
    return part.get("whole") if isinstance(part, Mapping) else None


def _list_texts(item: Item) -> dict[str, str]:
    """What full text looks at of an item, by group of languages: its text, and what it was expanded with."""
    texts: dict[str, list[str]] = {choose_group(item.lang): [item.text]} if item.text else {}
    expansions = item.meta.get(EXPANSIONS)
    for lang, text in expansions.items() if isinstance(expansions, Mapping) else ():
        texts.setdefault(choose_group(lang or item.lang), []).append(str(text))
    return {group: "\n".join(each) for group, each in texts.items()}


def read_items(batch: pa.RecordBatch) -> Iterator[Item]:
    """The items of rows that have the columns `id`, `text`, `lang`, `meta` and those of some media."""
    names = list_media(batch.schema.names)
    for row in batch.to_pylist():
        paths = {name: row[f"{name}_path"] for name in names}
        media = {name: row[name] if path is None else Path(path) for name, path in paths.items()}
        image = media.pop("image")
        held = {name: value for name, value in media.items() if value is not None}
        lang = find_language(row["lang"])  # earlier versions stored whatever they were given
        yield Item(row["id"], row["text"], image, lang, json.loads(row["meta"]), held)


def read_halves(array: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """A column of dense vectors as float32 [n, dim] (a copy, nan where it is null), and the mask of the others."""
    vectors = view_halves(array).astype(np.float32)
    held = array.is_valid().to_numpy(zero_copy_only=False)
    vectors[~held] = np.nan
    return vectors, held


def view_halves(array: pa.Array) -> np.ndarray:
    """The same as it lies in memory, float16 [n, dim]: anything where it is null."""
    # `values` ignores the array's own offset and holds something for null rows, too.
    values = array.values.to_numpy(zero_copy_only=False).reshape(-1, array.type.list_size)
    vectors: np.ndarray = values[array.offset : array.offset + len(array)]
    return vectors


def make_halves(vectors: np.ndarray, held: np.ndarray) -> pa.Array:
    """Rows of float [n, dim] as a column of float16 vectors, null where not `held`."""
    filled = np.where(held[:, None], vectors, 0).astype(np.float16)
    return pa.FixedSizeListArray.from_arrays(pa.array(filled.reshape(-1)), vectors.shape[1], mask=pa.array(~held))


def make_lists(lengths: Sequence[int] | np.ndarray, held: np.ndarray, *values: pa.Array) -> list[pa.Array]:
    """Columns of lists, null where not `held`: `lengths` int [held rows] are the same for each array of `values`."""
    counts = np.zeros(len(held), np.int64)
    counts[held] = lengths
    offsets = pa.array(np.append(0, np.cumsum(counts)), pa.int32(), mask=np.append(~held, False))
    return [pa.ListArray.from_arrays(offsets, each) for each in values]


def read_lists(array: pa.Array) -> tuple[np.ndarray, pa.Array]:
    """A column of lists without nulls: where each begins and the last ends, int64 [n + 1], and all their values."""
    offsets = array.offsets.to_numpy().astype(np.int64)
    # A block is a part of a larger array.
    return offsets - offsets[0], array.values.slice(offsets[0], offsets[-1] - offsets[0])
