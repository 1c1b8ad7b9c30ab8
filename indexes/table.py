"""The Lance tables of an index: columns, rows from items and back, filters, what is stored, and vectors."""

from __future__ import annotations

import hashlib
import io
import json
import warnings
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from lancedb.index import Bitmap, BTree, LabelList

from ..errors import InputError, list_few, unknown_name
from ..items import Item, windows
from .base import Where
from .card import Space
from .fulltext import COLUMNS, analysed, column, group_of
from .storage import DATABASE, connected, failing

DOCUMENTS, CORRECTED = "documents", "corrected"
MODALITIES = ("text", "image", "text+image")
READ = 8192  # rows a block when a whole table is read
LOOKUP = 2000  # ids in one `IN` list
COMPACT_EVERY = 256  # commits; each one rewrites the list of all fragments
INDEX_FILTERS_FROM = 10_000  # rows; below, a scan is as fast
PATIENCE = timedelta(seconds=7199)  # for a served database to build an index: the longest it takes
LONGEST_FACET = 200  # characters; longer values are stored as their digest

FIELDS = [
    pa.field("id", pa.string(), nullable=False),
    pa.field("lang", pa.string()),
    pa.field("modality", pa.string()),
    pa.field("text", pa.string()),
    pa.field("image", pa.binary()),
    pa.field("image_path", pa.string()),
    pa.field("meta", pa.string()),
    pa.field("facets", pa.list_(pa.string())),
    pa.field("hash", pa.string()),
]
FILTERS = ("id", "lang", "modality", "facets")  # columns that the table of corrected vectors repeats


class Tables:
    """The tables `documents` and `corrected` under one directory, or in memory for `memory://`.

    `documents` has a row an item, with the vectors as encoded; `corrected` is derived from it, row for row,
    and is replaced as a whole. Writers must hold the index's lock. Failures to read or write are
    `InputError`.
    """

    def __init__(self, where: str | Path) -> None:
        self.where = str(where)
        with failing("open", self.where):
            self._database = connected(self.where)
            names = set(self._database.list_tables().tables)
            self._open = {name: self._database.open_table(name) for name in names & {DOCUMENTS, CORRECTED}}
        self._commits = 0

    def create(self, lexical: bool) -> None:
        """The empty documents table, with full-text columns if `lexical`; nothing if it is there."""
        if DOCUMENTS not in self._open:
            fields = FIELDS + [pa.field(name, pa.string()) for name in (COLUMNS if lexical else ())]
            with failing("write", self.where):
                self._open[DOCUMENTS] = self._database.create_table(DOCUMENTS, schema=pa.schema(fields))

    @property
    def documents(self) -> Any:
        if DOCUMENTS not in self._open:
            raise InputError(f"{self.where} has lost its table of documents; make the index again")
        return self._open[DOCUMENTS]

    def holding(self, name: str) -> Any:
        """The table that has the vector column `name`."""
        return self._open[CORRECTED] if name.startswith("c_") else self.documents

    def __len__(self) -> int:
        return int(self.documents.count_rows())

    def add_space(self, space: Space) -> None:
        """An empty vector column, unless it is there."""
        if space.column not in self.documents.schema.names:
            with failing("write", self.where):
                self.documents.add_columns([pa.field(space.column, pa.list_(pa.float16(), space.spec.dim))])

    def stored(self, spaces: Sequence[Space]) -> Stored:
        """Which items are stored with all the vectors that they can have in `spaces`."""
        missing = [
            f"({space.column} IS NULL AND modality IN ({_quoted(_readable(space.spec.modalities))}))"
            for space in spaces
        ]
        wanted = {"id": "id", "hash": "hash", "missing": " OR ".join(missing) or "false"}
        return Stored(self._scan(self.documents, wanted))

    def write(self, rows: pa.Table, new: bool, compacting: bool = True) -> None:
        """Commit a window of rows: appended if all are `new`, else replacing those of the same ids."""
        with failing("write", self.where):
            if new:
                self.documents.add(rows, on_bad_vectors="null")
            else:
                upsert = self.documents.merge_insert("id")
                upsert = upsert.when_matched_update_all().when_not_matched_insert_all()
                upsert.execute(rows, on_bad_vectors="null")
        self._commits += 1
        if compacting and self._commits % COMPACT_EVERY == 0:
            self.compact()

    def remove(self, ids: Sequence[str]) -> None:
        """Take the documents of `ids` out; what is not stored is passed over."""
        with failing("write", self.where):
            for part in windows(ids, LOOKUP):
                self.documents.delete(f"id IN ({_quoted(part)})")

    def compact(self) -> None:
        """Join small fragments, and remove what older versions and killed writers have left behind."""
        with failing("write", self.where), warnings.catch_warnings():
            # The lock makes this process the only writer; readers of an index that changes must open it
            # again.
            warnings.simplefilter("ignore", UserWarning)
            for table in self._open.values():
                table.optimize(cleanup_older_than=timedelta(0), delete_unverified=True)

    def settle(self) -> None:
        """Wait until all indexes are built: a served database does it when it likes."""
        if self.where.startswith(DATABASE):
            with failing("write", self.where):
                for table in self._open.values():
                    if names := [index.name for index in table.list_indices()]:
                        table.wait_for_index(names, timeout=PATIENCE)

    def index_filters(self) -> None:
        """Scalar indexes on what `where` and `get` look up."""
        for table in self._open.values():
            if table.count_rows() >= INDEX_FILTERS_FROM:
                with failing("write", self.where):
                    table.create_index("id", config=BTree())
                    table.create_index("lang", config=Bitmap())
                    table.create_index("modality", config=Bitmap())
                    table.create_index("facets", config=LabelList())

    def replace_corrected(
        self,
        spaces: Sequence[Space],
        correct: Callable[[Space, np.ndarray, list[Any], list[str]], np.ndarray],
    ) -> None:
        """Write the table of corrected vectors anew, a block at a time; without spaces there is none."""
        if not spaces:
            if CORRECTED in self._open:
                with failing("write", self.where):
                    self._database.drop_table(CORRECTED)
                del self._open[CORRECTED]
            return
        fields = [field for field in FIELDS if field.name in FILTERS]
        fields += [pa.field(space.corrected, pa.list_(pa.float16(), space.spec.dim)) for space in spaces]
        schema = pa.schema(fields)

        def blocks() -> Iterator[pa.RecordBatch]:
            columns = [*FILTERS, *(space.column for space in spaces)]
            for batch in self._scan(self.documents, columns):
                arrays = [batch.column(name) for name in FILTERS]
                langs = batch.column("lang").to_pylist()
                modalities = batch.column("modality").to_pylist()
                for space in spaces:
                    vectors, held = dense(batch.column(space.column))
                    read = [as_read(modality, space) for modality in modalities]
                    vectors[held] = correct(space, vectors[held], _masked(langs, held), _masked(read, held))
                    arrays.append(halves(vectors, held))
                yield pa.record_batch(arrays, schema=schema)

        with failing("write", self.where):
            mode = "overwrite" if CORRECTED in self._open else "create"
            reader = pa.RecordBatchReader.from_batches(schema, blocks())
            self._open[CORRECTED] = self._database.create_table(
                CORRECTED, reader, schema=schema, mode=mode, on_bad_vectors="null"
            )

    def blocks(
        self, space: Space, corrected: bool, where: str | None = None
    ) -> Iterator[tuple[list[str], list[str | None], list[str], np.ndarray]]:
        """Ids, languages, modalities (as the space's encoder read them), and vectors float32 [n, dim].

        In the order of the rows, which is the same corrected or not; documents without a vector are left out.
        """
        name = space.corrected if corrected else space.column
        condition = f"{name} IS NOT NULL" + (f" AND ({where})" if where else "")
        for batch in self._scan(self.holding(name), ["id", "lang", "modality", name], condition):
            ids, langs, modalities = (batch.column(part).to_pylist() for part in ("id", "lang", "modality"))
            yield ids, langs, [as_read(each, space) for each in modalities], dense(batch.column(name))[0]

    def columns(self, names: Sequence[str], where: str | None = None) -> Iterator[pa.RecordBatch]:
        """Columns of the documents, a few thousand rows at a time."""
        yield from self._scan(self.documents, list(names), where)

    def summaries(self) -> Iterator[tuple[str, str | None, list[str], str]]:
        """Id, language, facets and hash of every document."""
        for batch in self._scan(self.documents, ["id", "lang", "facets", "hash"]):
            yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)

    def matching(self, where: str) -> list[str]:
        """The ids of the documents that a filter keeps."""
        return [
            each
            for batch in self._scan(self.documents, ["id"], where)
            for each in batch.column("id").to_pylist()
        ]

    def vectors(self, name: str, ids: Sequence[str], dim: int) -> np.ndarray:
        """A vector column at `ids`, float32 [n, dim]; nan where there is none."""
        rows = {each: row for row, each in enumerate(ids)}
        found = np.full((len(ids), dim), np.nan, np.float32)
        for batch in self._at(self.holding(name), ["id", name], ids):
            vectors, held = dense(batch.column(name))
            places = np.array([rows[each] for each in batch.column("id").to_pylist()], dtype=np.int64)
            found[places[held]] = vectors[held]
        return found

    def column(self, name: str, ids: Sequence[str]) -> list[Any]:
        """The value of a column (`lang`, `modality`) for each document of `ids`."""
        found: dict[str, Any] = {}
        for batch in self._at(self.documents, ["id", name], ids):
            found.update(zip(*(column.to_pylist() for column in batch.columns), strict=True))
        return [found[each] for each in ids]

    def items(self, ids: Sequence[str]) -> list[Item]:
        """The stored items of `ids`, in that order; `InputError` naming unknown ids."""
        found = self.held(ids)
        self.require(ids, found)
        return [found[each] for each in ids]

    def require(self, ids: Iterable[str], found: Container[str]) -> None:
        """`InputError` naming the `ids` that are not `found`."""
        if unknown := [each for each in dict.fromkeys(ids) if each not in found]:
            raise InputError(f"no documents with the ids {list_few(unknown)} in {self.where}")

    def held(self, ids: Sequence[str]) -> dict[str, Item]:
        """The stored items of those of `ids` that are stored."""
        found: dict[str, Item] = {}
        columns = ["id", "text", "image", "image_path", "lang", "meta"]
        for batch in self._at(self.documents, columns, list(dict.fromkeys(ids))):
            for row in batch.to_pylist():
                path = row["image_path"]
                image = row["image"] if path is None else Path(path)
                found[row["id"]] = Item(row["id"], row["text"], image, row["lang"], json.loads(row["meta"]))
        return found

    def _at(self, table: Any, columns: list[str], ids: Sequence[str]) -> Iterator[pa.RecordBatch]:
        for part in windows(ids, LOOKUP):
            yield from self._scan(table, columns, f"id IN ({_quoted(part)})")

    def _scan(self, table: Any, columns: Any, where: str | None = None) -> Iterator[pa.RecordBatch]:
        with failing("read", self.where):
            query = table.search().select(columns).limit(None)
            yield from (query.where(where) if where else query).to_batches(batch_size=READ)


class Fresh(NamedTuple):
    """A window of items, and those of it to be stored, with their metadata and hashes; `new` if none of them is."""

    window: list[Item]
    items: list[Item]
    states: list[tuple[str, str]]
    new: bool


class Stored:
    """Ids and states of the stored rows as sorted 64-bit digests: 16 bytes a document."""

    def __init__(self, batches: Iterable[pa.RecordBatch]) -> None:
        ids: list[np.ndarray] = []
        states: list[np.ndarray] = []
        for batch in batches:
            hashes, missing = batch.column("hash").to_pylist(), batch.column("missing").to_pylist()
            ids.append(np.array([digest(each) for each in batch.column("id").to_pylist()], np.uint64))
            states.append(
                np.array([0 if m else state(h) for h, m in zip(hashes, missing, strict=True)], np.uint64)
            )
        joined = np.concatenate(ids) if ids else np.zeros(0, np.uint64)
        order = np.argsort(joined)
        self._ids = joined[order]
        self._states = (np.concatenate(states) if states else joined)[order]

    def look(self, ids: Sequence[str], hashes: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Two masks over `ids`: those that are stored, and those stored with this hash and all vectors."""
        wanted = np.array([digest(each) for each in ids], np.uint64)
        if not len(self._ids):
            return np.zeros(len(ids), bool), np.zeros(len(ids), bool)
        places = np.searchsorted(self._ids, wanted).clip(max=len(self._ids) - 1)
        known = self._ids[places] == wanted
        return known, known & (self._states[places] == np.array([state(each) for each in hashes], np.uint64))

    def fresh(self, window: list[Item], checked: Callable[[Item], tuple[str, str]]) -> Fresh:
        """What of a window is not stored as it is; `checked` gives an item's metadata and hash, or refuses it."""
        states = [checked(item) for item in window]
        known, same = self.look([item.id for item in window], [hash for _, hash in states])
        rows = np.flatnonzero(~same)
        return Fresh(
            window, [window[row] for row in rows], [states[row] for row in rows], not known[rows].any()
        )


def digest(text: str) -> int:
    """64 bits of a string."""
    return int.from_bytes(
        hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big"
    )


def state(hash: str) -> int:
    """64 bits of a stored hash; never 0, which marks rows that lack vectors."""
    return int(hash[:16], 16) or 1


def prepared(item: Item) -> tuple[str, str]:
    """The item's metadata as JSON, and the hash that says whether it has changed.

    `InputError` names an item that cannot be stored: without an id or content, or with what is not text or
    JSON.
    """
    if not item.id:
        raise InputError(f"an item has no id (text {(item.text or '')[:40]!r}, image {str(item.image)[:40]})")
    if not item.modalities:
        raise InputError(f"item {item.id!r} is empty: it has neither text nor image")
    try:
        meta = json.dumps(dict(item.meta), ensure_ascii=False, sort_keys=True)
        for part in (item.id, item.text or "", item.lang or "", meta):
            part.encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"item {item.id!r} has a character that is not valid Unicode: {error.reason}"
        ) from None
    except (TypeError, ValueError) as error:
        raise InputError(f"the metadata of item {item.id!r} cannot be stored as JSON: {error}") from None
    content = item.content_hash() + meta
    return meta, hashlib.blake2b(content.encode(), digest_size=16).hexdigest()


def rows(
    items: Sequence[Item],
    meta: Sequence[str],
    hashes: Sequence[str],
    vectors: Sequence[tuple[Space, np.ndarray, np.ndarray]],
    schema: pa.Schema,
) -> pa.Table:
    """A window of items as rows of the documents table.

    `vectors` holds for each space float32 [n, dim] and the mask of the rows that have one.
    """
    images = [item.image for item in items]
    columns: dict[str, Any] = {
        "id": [item.id for item in items],
        "lang": [item.lang for item in items],
        "modality": [modality(item) for item in items],
        "text": [item.text for item in items],
        "image": [None if image is None or isinstance(image, Path) else encoded(image) for image in images],
        "image_path": [str(image.absolute()) if isinstance(image, Path) else None for image in images],
        "meta": meta,
        "facets": [facets(item.meta) for item in items],
        "hash": hashes,
    }
    groups = [group_of(item.lang) for item in items]
    for name in schema.names:
        if name in COLUMNS:
            columns[name] = [
                analysed(item.text, group) if item.text and column(group) == name else None
                for item, group in zip(items, groups, strict=True)
            ]
    for space, block, held in vectors:
        columns[space.column] = halves(block, held)
    arrays = [
        columns[field.name]
        if isinstance(columns.get(field.name), pa.Array)
        else pa.array(columns.get(field.name, [None] * len(items)), field.type)
        for field in schema
    ]
    return pa.Table.from_arrays(arrays, schema=schema)


def modality(item: Item) -> str:
    """`text`, `image` or `text+image`."""
    return "+".join(each for each in ("text", "image") if each in item.modalities)


def as_read(modality: str, space: Space) -> str:
    """What of a document's modality the encoder of `space` reads; empty if nothing."""
    return "+".join(each for each in modality.split("+") if each in space.spec.modalities)


def encoded(image: Any) -> bytes:
    """Encoded bytes as they are; a PIL image as PNG, which loses nothing that encoders look at."""
    if isinstance(image, bytes):
        return image
    if image.mode not in ("1", "L", "LA", "P", "RGB", "RGBA", "I", "I;16"):
        image = image.convert("RGB")
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


def facets(meta: Mapping[str, object]) -> list[str]:
    """`key=value` for each scalar in the metadata, and for each scalar in a list there."""
    return [
        facet(key, each)
        for key, value in meta.items()
        for each in (value if isinstance(value, list | tuple) else (value,))
        if isinstance(each, str | int | float)
    ]


def facet(key: str, value: str | int | float | bool) -> str:
    """A field and its value as one string; 2020, 2020.0 and "2020" are the same, True is `true`."""
    if isinstance(value, bool):
        text = str(value).lower()
    elif isinstance(value, float) and value.is_integer():
        text = str(int(value))
    else:
        text = str(value)
    if len(text) > LONGEST_FACET:
        text = "blake2b:" + hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
    # So that the first "=" is always the one between key and value.
    return key.replace("%", "%25").replace("=", "%3D") + "=" + text


def key_of(facet: str) -> str:
    """The field of a facet."""
    return facet.partition("=")[0].replace("%3D", "=").replace("%25", "%")


def where_sql(where: Where | None, keys: Sequence[str]) -> str | None:
    """A filter as SQL; `InputError` on a field that is not `lang`, `modality` or in `keys`, or has no value.

    `modality` is matched whole: `image` does not keep pictures with a caption, which are `text+image`.
    """
    parts = []
    for key, value in (where or {}).items():
        values = list(value) if isinstance(value, Sequence) and not isinstance(value, str) else [value]
        if not values or not all(isinstance(each, str | int | float) for each in values):
            raise InputError(f"the filter on {key!r} needs a value, or a list of them, not {value!r}")
        if key == "modality" and (unknown := [each for each in values if each not in MODALITIES]):
            raise unknown_name(str(unknown[0]), MODALITIES, "modality")
        if key in ("lang", "modality"):
            parts.append(f"{key} IN ({_quoted(map(str, values))})")
        elif key in keys:
            parts.append(f"array_has_any(facets, make_array({_quoted(facet(key, each) for each in values)}))")
        else:
            raise unknown_name(key, ("lang", "modality", *keys), "field to filter by")
    return " AND ".join(parts) or None


def dense(array: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """A vector column as float32 [n, dim] (a copy, nan where it is null), and the mask of the others."""
    dim = array.type.list_size
    # `values` ignores the array's own offset and holds something for null rows, too.
    values = array.values.to_numpy(zero_copy_only=False)
    vectors = values.reshape(-1, dim)[array.offset : array.offset + len(array)].astype(np.float32)
    held = array.is_valid().to_numpy(zero_copy_only=False)
    vectors[~held] = np.nan
    return vectors, held


def halves(vectors: np.ndarray, held: np.ndarray) -> pa.Array:
    """Rows of float [n, dim] as float16, null where not `held`."""
    filled = np.where(held[:, None], vectors, 0).astype(np.float16)
    return pa.FixedSizeListArray.from_arrays(
        pa.array(filled.reshape(-1)), vectors.shape[1], mask=pa.array(~held)
    )


def _readable(modalities: Sequence[str]) -> list[str]:
    return [each for each in MODALITIES if set(each.split("+")) & set(modalities)]


def _quoted(values: Iterable[str]) -> str:
    return ", ".join("'" + value.replace("'", "''") + "'" for value in values)


def _masked(values: Sequence[Any], mask: np.ndarray) -> list[Any]:
    return [value for value, kept in zip(values, mask, strict=True) if kept]
