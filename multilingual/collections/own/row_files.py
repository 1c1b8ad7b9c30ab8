"""Files of rows, read in pieces: lines of JSON, separated values (CSV, TSV), Parquet and Arrow."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

from ....errors import InputError, first_line
from ....files import check_file, open_file, read_lines
from ....rows.arrow import BATCH, find_labels, read_batch
from ....rows.fields import FileRow
from ..records import Rows, read_json_lines

AHEAD = 1000  # lines of JSON in which columns are looked for
LONGEST_VALUE = 256 << 20  # characters; what is longer is a quote that is not closed
SUFFIXES = (".jsonl", ".csv", ".tsv", ".parquet", ".arrow", ".feather")
PACKED = (".jsonl.gz", ".csv.gz", ".tsv.gz")


class RowSource(Protocol):
    """Rows that can be read again. `names` are those of the columns; with `more` there may be others, too."""

    names: Sequence[str]
    more: bool

    def rows(self, wanted: Sequence[str]) -> Rows:
        """The rows with their places, of which only the columns `wanted` need be there.

        A row is bytes (a line of JSON), a dictionary, or an `InputError`, where it alone cannot be read.
        """
        ...


def is_row_file(path: Path) -> bool:
    """Whether the name of a file is one of those that `open_rows` takes."""
    return path.name.lower().endswith((*SUFFIXES, *PACKED))


def open_rows(path: Path) -> RowSource:
    """The rows of a file, in the form that its ending says; `InputError` if it cannot be read."""
    ending = path.name.lower().removesuffix(".gz").rpartition(".")[2]
    if ending == "jsonl":
        return JsonLines(path)
    if ending in ("csv", "tsv"):
        return SeparatedLines(path, tabs=ending == "tsv")
    return ArrowFiles([path], parquet=ending == "parquet")


class JsonLines:
    """A JSON object a line; the columns are the keys of the first lines, and later lines may have others."""

    more = True

    def __init__(self, path: Path) -> None:
        self._path = path
        names: dict[str, None] = {}
        for _, line in islice(read_json_lines(path), AHEAD):
            try:
                names |= dict.fromkeys(FileRow.parse(line))
            except InputError:  # is named when it is read
                continue
        self.names: Sequence[str] = list(names)

    def rows(self, wanted: Sequence[str]) -> Rows:
        return read_json_lines(self._path)


class SeparatedLines:
    """Values separated by commas (or by semicolons, where the first line has no comma), or by tabs.

    The first line names the columns; one without a name is left out. Values with commas, quotes and line ends stand in
    quotes; between tabs, quotes are characters like others. Empty values are none.
    """

    more = False

    def __init__(self, path: Path, *, tabs: bool) -> None:
        self._path, self._tabs = path, tabs
        csv.field_size_limit(max(csv.field_size_limit(), LONGEST_VALUE))
        self._delimiter = "\t"
        if not tabs:
            line = next(read_lines(path), "")
            self._delimiter = ";" if "," not in line and ";" in line else ","
        header = next((row for _, row in self._read()), [])
        if isinstance(header, InputError):
            raise InputError(f"{path}:1: {header}")
        self._header = [name.strip() for name in header]
        self.names: Sequence[str] = [name for name in self._header if name]

    def rows(self, wanted: Sequence[str]) -> Rows:
        rows = self._read()
        next(rows, None)
        columns = len(self._header)
        for line, row in rows:
            place = f"{self._path}:{line}"
            if isinstance(row, InputError):
                yield place, row
            elif len(row) != columns:
                yield place, InputError(f"{len(row)} values, where the first line names {columns} columns")
            else:
                yield place, {name: value or None for name, value in zip(self._header, row, strict=True) if name}

    def _read(self) -> Iterator[tuple[int, list[str] | InputError]]:
        """The rows that are not empty, with the line that each begins in."""
        quoting: Any = csv.QUOTE_NONE if self._tabs else csv.QUOTE_MINIMAL
        reader = csv.reader(read_lines(self._path), delimiter=self._delimiter, quoting=quoting, strict=True)
        while True:
            line = reader.line_num + 1
            try:
                row = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield line, InputError(_explain(first_line(error)))
                continue
            if row:
                yield line, row


class ArrowFiles:
    """Files of Parquet, or of Arrow (files or streams, as Feather and `datasets` write them), one after the other."""

    more = False

    def __init__(self, paths: Sequence[Path], *, parquet: bool) -> None:
        self._paths = paths
        self._open = _open_parquet if parquet else _open_arrow
        with _name_damage(paths[0]), self._open(paths[0], None) as (schema, _):
            # Without what pandas writes for an index that has no name.
            self.names: Sequence[str] = [name for name in schema.names if not name.startswith("__index_level_")]
            self._labels = find_labels(schema)

    def rows(self, wanted: Sequence[str]) -> Rows:
        for path in self._paths:
            number = 0
            with _name_damage(path, lambda: f" after row {number}"), self._open(path, wanted) as (_, batches):  # noqa: B023
                for batch in batches:
                    for row in read_batch(batch, self._labels):
                        number += 1
                        yield f"{path}: row {number}", row


def _explain(said: str) -> str:
    if "new-line" in said:
        return "a carriage return alone is no line end: save it with the line ends of Unix or Windows"
    return f"no row of separated values, is a quote not closed? ({said})"


@contextmanager
def _open_parquet(path: Path, wanted: Sequence[str] | None) -> Iterator[tuple[Any, Iterator[Any]]]:
    import pyarrow.parquet

    # Without a buffer a column of a whole row group is read at once.
    with pyarrow.parquet.ParquetFile(path, buffer_size=1 << 20) as file:
        yield file.schema_arrow, file.iter_batches(BATCH, columns=wanted)


@contextmanager
def _open_arrow(path: Path, wanted: Sequence[str] | None) -> Iterator[tuple[Any, Iterator[Any]]]:
    import pyarrow as pa

    with open_file(path) as file:
        start = file.read(6)
    if start[:4] == b"FEA1":
        raise InputError("it is in Feather's first version, write it again with pyarrow.feather.write_feather")
    with pa.memory_map(str(path)) as mapped:
        if start == b"ARROW1":
            with pa.ipc.open_file(mapped) as reader:
                whole = (reader.get_batch(number) for number in range(reader.num_record_batches))
                yield reader.schema, (_select(batch, wanted) for batch in whole)
        else:
            with pa.ipc.open_stream(mapped) as reader:
                yield reader.schema, (_select(batch, wanted) for batch in reader)


def _select(batch: Any, wanted: Sequence[str] | None) -> Any:
    chosen = batch if wanted is None else batch.select([name for name in wanted if name in batch.schema.names])
    chosen.validate(full=True)  # a wrong offset would show any memory of this process as text, or end it
    return chosen


@contextmanager
def _name_damage(path: Path, where: Callable[[], str] = str) -> Iterator[None]:
    """What is wrong with a file as an `InputError` that says `where`."""
    import pyarrow as pa

    check_file(path)
    try:
        yield
    except (pa.ArrowException, OSError, InputError) as error:
        raise InputError(f"cannot read {path}{where()}: {first_line(error)}") from None
