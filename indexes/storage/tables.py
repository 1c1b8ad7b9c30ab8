"""The Lance tables of an index: what is stored in them, written, searched and read."""

from __future__ import annotations

import json
import warnings
from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ...errors import InputError, check_known, list_few
from ...items import Item, windows
from ...media.language_codes import find_language
from ...media.modalities import MEDIA
from ...runs import Hit
from .card import Space
from .filters import list_modalities, quote_all
from .fulltext import COLUMNS, FullText, Words, find_names, index_text, search_text
from .place import DATABASE, connect_database, is_remote, translate_errors
from .resume import StoredStates, hash_stored
from .rows import FIELDS, find_whole, list_media, make_halves, make_media_fields, read_halves, read_items

DOCUMENTS, CORRECTED = "documents", "corrected"
READ = 8192  # rows a block when a whole table is read
ITEMS = 256  # rows a block where pictures are read, too
LOOKUP = 2000  # ids in one `IN` list
THREADS = 4  # full-text queries under way at a time
COMPACT_EVERY = 256  # commits; each one rewrites the list of all fragments
INDEX_FILTERS_FROM = 10_000  # rows; below, a scan is as fast
FOREVER = timedelta(days=36_500)
SLACK = timedelta(minutes=2)  # between the moment at which an age is measured and that at which Lance looks at it
PATIENCE = timedelta(seconds=7199)  # for a served database to build an index: the longest it takes
# Columns that `where` and `get` look up, with their kinds of index; the table of corrected vectors repeats them.
FILTERS = {"id": "BTree", "lang": "Bitmap", "modality": "Bitmap", "facets": "LabelList"}

Block = tuple[list[str], list[str | None], list[str], np.ndarray]
StoredBlock = tuple[np.ndarray, list[str | None], list[str], np.ndarray | None]


class Tables:
    """The tables `documents` and `corrected` under one directory, or in memory for `memory://`.

    `documents` has a row an item, with the vectors as encoded; `corrected` is derived from it, row for row, and is
    replaced as a whole. With `versions` they are read as they were then, whatever is written later; without, as they
    are. Writers must hold the index's lock, and name in `kept` the versions that are read elsewhere. Failures to read
    or write are `InputError`.
    """

    def __init__(self, where: str | Path, versions: Mapping[str, int] | None = None) -> None:
        self.where = str(where)
        self.kept: Sequence[Mapping[str, int]] = ()
        with translate_errors("open", self.where):
            self._database = connect_database(self.where)
            names = set(self._database.list_tables().tables) & {DOCUMENTS, CORRECTED}
            self._open = {name: self._database.open_table(name) for name in names}
        self._commits = 0
        if versions:
            self.pin(versions)

    def pin(self, versions: Mapping[str, int]) -> None:
        """From now on read each table as it was at its version; `InputError` if that is gone."""
        self._keep_to(versions)
        for name, table in self._open.items():
            try:
                with translate_errors("open", self.where):
                    table.checkout(versions[name])
            except ValueError:
                raise InputError(
                    f"{self.where} has lost version {versions[name]} of its table of {name}; make the index again"
                ) from None

    @property
    def versions(self) -> dict[str, int]:
        """The versions of the tables that are read."""
        with translate_errors("read", self.where):
            return {name: int(table.version) for name, table in self._open.items()}

    def restore(self, versions: Mapping[str, int]) -> None:
        """Make the tables what they were at `versions`, which they are unless a writer was killed in a change."""
        self._keep_to(versions)
        for name, version in versions.items():
            table = self._open[name]
            if int(table.version) != version:
                with translate_errors("write", self.where):
                    table.checkout(version)
                    table.restore()
                    table.checkout_latest()

    def _keep_to(self, versions: Mapping[str, int]) -> None:
        """Forget tables without a version; `InputError` for a version without a table."""
        if lost := [name for name in versions if name not in self._open]:
            raise InputError(f"{self.where} has lost its table of {list_few(lost)}; make the index again")
        self._open = {name: table for name, table in self._open.items() if name in versions}

    def create(self, lexical: bool) -> None:
        """The empty documents table, with full-text columns if `lexical`; nothing if it is there."""
        if DOCUMENTS not in self._open:
            fields = FIELDS + [pa.field(name, pa.string()) for name in (COLUMNS if lexical else ())]
            with translate_errors("write", self.where):
                self._open[DOCUMENTS] = self._database.create_table(DOCUMENTS, schema=pa.schema(fields))

    @property
    def documents(self) -> Any:
        """The documents, as LanceDB's table."""
        if DOCUMENTS not in self._open:
            raise InputError(f"{self.where} has lost its table of documents; make the index again")
        return self._open[DOCUMENTS]

    def table_of(self, column: str) -> Any:
        """LanceDB's table that has the vector column of that name."""
        return self._open[CORRECTED] if column.startswith("c_") else self.documents

    def __len__(self) -> int:
        return int(self.documents.count_rows())

    # Writing

    def add_columns(self, fields: Sequence[pa.Field]) -> None:
        """Empty columns of the documents, unless they are there."""
        if new := [field for field in fields if field.name not in self.documents.schema.names]:
            with translate_errors("write", self.where):
                self.documents.add_columns(new)

    def add_media(self, items: Iterable[Item]) -> None:
        """Columns for the media that the items bring, unless they are there."""
        held = {name for item in items for name, value in item.contents.items() if value is not None}
        self.add_columns([field for name in MEDIA if name in held for field in make_media_fields(name)])

    def read_states(self, spaces: Sequence[Space]) -> StoredStates:
        """Which items are stored with all the vectors that they can have in `spaces`."""
        return StoredStates(self.scan({"id": "id", "hash": "hash", "missing": _find_missing(spaces)}))

    def find_same_content(self, items: Iterable[Item], spaces: Sequence[Space]) -> set[str]:
        """The ids of items stored with the same content and language, and all vectors of `spaces`.

        What else there is of them is metadata, which no encoder reads; but the whole of a passage's document may count.
        """
        held = {item.id: item for item in items}
        columns = {name: name for name in ("id", "lang", "meta", "hash")} | {"missing": _find_missing(spaces)}
        return {
            row["id"]
            for batch in self.scan_ids(self.documents, columns, list(held))
            for row in batch.to_pylist()
            if not row["missing"] and row["lang"] == held[row["id"]].lang
            if hash_stored(held[row["id"]], row["lang"], row["meta"]) == row["hash"]
            if find_whole(json.loads(row["meta"])) == find_whole(held[row["id"]].meta)
        }

    def write(self, rows: pa.Table, new: bool, compacting: bool = True) -> None:
        """Commit a window of rows: appended if all are `new`, else replacing those of the same ids."""
        with translate_errors("write", self.where):
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
        with translate_errors("write", self.where):
            for part in windows(ids, LOOKUP):
                self.documents.delete(f"id IN ({quote_all(part)})")

    def compact(self) -> None:
        """Join small fragments, and remove what killed writers and versions before those `kept` have left behind."""
        with translate_errors("write", self.where), warnings.catch_warnings():
            # The lock makes this process the only writer, and what is read elsewhere is kept.
            warnings.simplefilter("ignore", UserWarning)
            for name, table in self._open.items():
                if any(name in each for each in self.kept):
                    # Joining comes before, so that the age is still right when it is asked for.
                    table.optimize(cleanup_older_than=FOREVER)
                table.optimize(cleanup_older_than=self._measure_age(name), delete_unverified=True)
            if not is_remote(self.where):
                # Lance writes a file under such a name first, and leaves it there when it is killed.
                for partial in Path(self.where).glob("*.lance/**/.tmp*"):
                    partial.unlink(missing_ok=True)

    def _measure_age(self, name: str) -> timedelta:
        """The age from which versions of a table may go, which is all that Lance can be given."""
        kept = {each[name] for each in self.kept if name in each} - {self._open[name].version}  # which stays anyhow
        if not kept or self.where.startswith(DATABASE):  # which clears up by itself
            return timedelta(0)
        made = [each["timestamp"] for each in self._open[name].list_versions() if each["version"] in kept]
        return datetime.now() - min(made) + SLACK if made else timedelta(0)

    def drop_unused(self) -> None:
        """Drop the table of corrected vectors if neither what is read here nor what is kept has it."""
        if CORRECTED not in self._open and not any(CORRECTED in each for each in self.kept):
            with translate_errors("write", self.where):
                if CORRECTED in self._database.list_tables().tables:
                    self._database.drop_table(CORRECTED)

    def settle(self) -> None:
        """Wait until all indexes are built: a served database does it when it likes."""
        if self.where.startswith(DATABASE):
            with translate_errors("write", self.where):
                for table in self._open.values():
                    if names := [index.name for index in table.list_indices()]:
                        table.wait_for_index(names, timeout=PATIENCE)

    def index_filters(self) -> None:
        """Scalar indexes on what `where` and `get` look up."""
        import lancedb.index

        for table in self._open.values():
            if table.count_rows() >= INDEX_FILTERS_FROM:
                with translate_errors("write", self.where):
                    for name, kind in FILTERS.items():
                        table.create_index(name, config=getattr(lancedb.index, kind)())

    def index_text(self, analysis: int) -> list[str]:
        """Full-text indexes, in place of earlier ones; returns the groups of languages that have text."""
        with translate_errors("write", self.where):
            return index_text(self.documents, analysis)

    def index_vectors(self, column: str, config: Any) -> None:
        """An approximate index of a vector column, in place of one that is there."""
        with translate_errors("write", self.where):
            self.table_of(column).create_index(column, config=config, replace=True)
        self.settle()

    def drop_indexes(self) -> None:
        """Remove all indexes of the tables, read or not: what they are made of is in the tables."""
        with translate_errors("write", self.where):
            for table in self._open.values():
                for each in table.list_indices():
                    table.drop_index(each.name)

    def drop_vector_indexes(self, columns: Sequence[str]) -> None:
        """Remove the approximate indexes of the vector columns, where there are some."""
        with translate_errors("write", self.where):
            for table in self._open.values():
                for each in table.list_indices():
                    if set(columns) & set(each.columns):
                        table.drop_index(each.name)

    def replace_corrected(
        self,
        spaces: Sequence[Space],
        correct: Callable[[Space, np.ndarray, list[Any], list[str], np.ndarray | None], np.ndarray],
    ) -> None:
        """Write the table of corrected vectors again, a block at a time; without spaces there is none.

        `correct` gets a space, vectors float32 [n, dim], the language and modality that was read of each, and the
        vectors of whole documents where the table has some.
        """
        if not spaces:
            self._open.pop(CORRECTED, None)  # it is dropped when nothing that is kept has it
            return
        fields = [field for field in FIELDS if field.name in FILTERS]
        fields += [pa.field(space.corrected, pa.list_(pa.float16(), space.spec.dim)) for space in spaces]
        schema = pa.schema(fields)

        def make_blocks() -> Iterator[pa.RecordBatch]:
            columns = [name for space in spaces for name in self._list_columns(space)]
            for batch in self.scan([*FILTERS, *columns]):
                arrays = [batch.column(name) for name in FILTERS]
                langs = np.array(list(map(find_language, batch.column("lang").to_pylist())), object)
                modalities = batch.column("modality").to_pylist()
                for space in spaces:
                    vectors, held = read_halves(batch.column(space.column))
                    wholes = _read_wholes(batch, space)
                    read = np.array(space.read_all(modalities), object)
                    about = langs[held].tolist(), read[held].tolist(), None if wholes is None else wholes[held]
                    vectors[held] = correct(space, vectors[held], *about)
                    arrays.append(make_halves(vectors, held))
                yield pa.record_batch(arrays, schema=schema)

        with translate_errors("write", self.where):
            mode = "overwrite" if CORRECTED in self._database.list_tables().tables else "create"
            reader = pa.RecordBatchReader.from_batches(schema, make_blocks())
            self._open[CORRECTED] = self._database.create_table(
                CORRECTED, reader, schema=schema, mode=mode, on_bad_vectors="null"
            )

    # Reading

    def scan(
        self, columns: Any, where: str | None = None, rows: int = READ, table: Any = None
    ) -> Iterator[pa.RecordBatch]:
        """Columns of the documents (or of another table), at most `rows` at a time, in the order of the table."""
        with translate_errors("read", self.where):
            query = (self.documents if table is None else table).search().select(columns).limit(None)
            for batch in (query.where(where) if where else query).to_batches(batch_size=rows):
                batch.validate(full=True)  # a damaged file may give what is no text, or lists that end elsewhere
                yield batch

    def blocks(self, space: Space, corrected: bool, where: str | None = None) -> Iterator[Block]:
        """Ids, languages, modalities (as the space's encoder read them), and vectors float32 [n, dim].

        In the order of the rows, which is the same corrected or not; documents without a vector are left out.
        """
        name = space.corrected if corrected else space.column
        for batch, langs, read in self._scan_vectors(space, [name], where):
            yield batch.column("id").to_pylist(), langs, read, read_halves(batch.column(name))[0]

    def stored_blocks(self, space: Space) -> Iterator[StoredBlock]:
        """Of `blocks` as encoded what `Moments` measures, with whole documents' vectors if the table has some."""
        for batch, langs, read in self._scan_vectors(space, self._list_columns(space), None):
            yield read_halves(batch.column(space.column))[0], langs, read, _read_wholes(batch, space)

    def _scan_vectors(
        self, space: Space, names: Sequence[str], where: str | None
    ) -> Iterator[tuple[pa.RecordBatch, list[str | None], list[str]]]:
        """`blocks` as they are read: with the columns `names`, of which the first is not null."""
        condition = f"{names[0]} IS NOT NULL" + (f" AND ({where})" if where else "")
        for batch in self.scan(["id", "lang", "modality", *names], condition, table=self.table_of(names[0])):
            codes = list(map(find_language, batch.column("lang").to_pylist()))
            yield batch, codes, space.read_all(batch.column("modality").to_pylist())

    def _list_columns(self, space: Space) -> list[str]:
        """The columns of a space's vectors as encoded."""
        return [name for name in (space.column, space.whole) if name in self.documents.schema.names]

    def count_read(self, space: Space) -> dict[str, int]:
        """How many documents have vectors of a space, by what its encoder read of them."""
        counts: Counter[str] = Counter()
        for batch in self.scan(["modality"], f"{space.column} IS NOT NULL"):
            counts.update(space.read_all(batch.column("modality").to_pylist()))
        return dict(counts)

    def find_changed(self) -> Iterator[str]:
        """Read every column of every table; the ids of texts that are not those which the hashes beside them are of."""
        for table in self._open.values():
            for batch in self.scan(table.schema.names, table=table):
                if table is self.documents:
                    texts = batch.filter(pc.equal(batch.column("modality"), "text"))
                    stored = (texts.column(name).to_pylist() for name in ("lang", "meta", "hash"))
                    for item, lang, meta, hash in zip(read_items(texts), *stored, strict=True):
                        if hash_stored(item, lang, meta) != hash:
                            yield item.id

    def list_ids(self, where: str) -> list[str]:
        """The ids of the documents that a filter keeps."""
        return [each for batch in self.scan(["id"], where) for each in batch.column("id").to_pylist()]

    def search_text(
        self, queries: Sequence[Sequence[Words]], held: FullText, k: int, where: str | None, own_language: bool = False
    ) -> list[tuple[Hit, ...]]:
        """The k best documents for the words of each query, by `fulltext.search_text`."""
        search = partial(search_text, k=k, where=where, own_language=own_language)
        with translate_errors("read", self.where), ThreadPoolExecutor(THREADS) as threads:
            return list(threads.map(lambda query: search(self.documents, query, held), queries))

    def find_names(
        self, queries: Sequence[Sequence[Words]], held: FullText, where: str | None
    ) -> list[list[tuple[Hit, ...]]]:
        """The documents in other languages that hold the names of each query, by `fulltext.find_names`."""
        with translate_errors("read", self.where), ThreadPoolExecutor(THREADS) as threads:
            return list(threads.map(lambda query: find_names(self.documents, query, held, where), queries))

    def read_vectors(self, name: str, ids: Sequence[str], dim: int) -> np.ndarray:
        """A column of dense vectors at `ids`, float32 [n, dim]; nan where there is none."""
        rows = {each: row for row, each in enumerate(ids)}
        found = np.full((len(ids), dim), np.nan, np.float32)
        for batch in self.scan_ids(self.table_of(name), ["id", name], ids):
            vectors, held = read_halves(batch.column(name))
            places = np.array([rows[each] for each in batch.column("id").to_pylist()], dtype=np.int64)
            found[places[held]] = vectors[held]
        return found

    def read_columns(self, names: Sequence[str], ids: Sequence[str]) -> dict[str, pa.ChunkedArray]:
        """Columns as they are stored of `ids`, each of which is stored, in that order."""
        found = pa.Table.from_batches(list(self.scan_ids(self.documents, ["id", *names], ids)))
        rows = pc.index_in(pa.array(ids), found.column("id").combine_chunks())
        return {name: found.column(name).take(rows) for name in names}

    def read_column(self, name: str, ids: Sequence[str]) -> list[Any]:
        """The value of a column (`lang`, `modality`) for each document of `ids`."""
        found = self.find_values(name, ids)
        return [found[each] for each in ids]

    def find_values(self, name: str, ids: Sequence[str]) -> dict[str, Any]:
        """The value of a column for those of `ids` that are stored."""
        found: dict[str, Any] = {}
        for batch in self.scan_ids(self.documents, ["id", name], ids):
            found.update(zip(*(column.to_pylist() for column in batch.columns), strict=True))
        return found

    def get_items(self, ids: Sequence[str]) -> list[Item]:
        """The stored items of `ids`, in that order; `InputError` naming unknown ids."""
        found = self.find_items(ids)
        self.require(ids, found)
        return [found[each] for each in ids]

    def find_items(self, ids: Sequence[str]) -> dict[str, Item]:
        """The stored items of those of `ids` that are stored; `InputError` for a medium that is not registered."""
        batches = self.scan_ids(self.documents, self._list_item_columns(), list(dict.fromkeys(ids)))
        return {item.id: item for batch in batches for item in read_items(batch)}

    def scan_items(self) -> Iterator[Item]:
        """All stored items, in the order of the table; `InputError` as `find_items`."""
        for batch in self.scan(self._list_item_columns(), rows=ITEMS):
            yield from read_items(batch)

    def _list_item_columns(self) -> list[str]:
        media = list_media(self.documents.schema.names)
        for name in media:
            check_known(name, MEDIA, f"modality, which {self.where} holds,")
        return ["id", "text", "lang", "meta", *(field.name for name in media for field in make_media_fields(name))]

    def require(self, ids: Iterable[str], found: Container[str]) -> None:
        """`InputError` naming the `ids` that are not `found`."""
        if unknown := [each for each in dict.fromkeys(ids) if each not in found]:
            raise InputError(f"no documents with the ids {list_few(unknown)} in {self.where}")

    def scan_ids(self, table: Any, columns: Any, ids: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Columns of those of `ids` that a table has, in no order."""
        for part in windows(ids, LOOKUP):
            yield from self.scan(columns, f"id IN ({quote_all(part)})", table=table)


def _read_wholes(batch: pa.RecordBatch, space: Space) -> np.ndarray | None:
    """The vectors of whole documents, float32 [n, dim], nan where a passage is all of one; None without the column."""
    return read_halves(batch.column(space.whole))[0] if space.whole in batch.schema.names else None


def _find_missing(spaces: Sequence[Space]) -> str:
    """What is true of documents that lack vectors which they can have in `spaces`, as SQL."""
    missing = []
    for space in spaces:
        if readable := [each for each in list_modalities() if space.reads(each)]:
            missing.append(f"({space.column} IS NULL AND modality IN ({quote_all(readable)}))")
    return " OR ".join(missing) or "false"
