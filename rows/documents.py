"""Whatever Python programs hold documents in, as items: lists of them, and the tables of other libraries."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, islice
from pathlib import Path
from typing import Any, Protocol

from ..errors import InputError
from ..items import Item, SeenIds, hash_text, is_frame
from .arrow import BATCH, read_batch, read_labels
from .columns import Columns
from .fields import check_column_names

AHEAD = 512  # dictionaries in which columns are looked for
TAKEN = (
    "documents are given as a list (or another iterable) of Items, dictionaries, pairs (id, text) or strings, or as a "
    "table of pandas, polars, pyarrow or datasets"
)


class ArrowTable(Protocol):
    """A table of pandas, polars, pyarrow, or of another library that exports Arrow."""

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object: ...


Documents = Iterable[Item | str | tuple[str, str] | Mapping[str, Any]] | ArrowTable  # a Dataset is one of dictionaries


def read_documents(given: Documents, columns: str | None = None) -> Iterator[Item]:
    """The items of documents as programs have them, streamed; `columns` is for dictionaries and tables (`Columns`).

    A string alone has as its id 16 hex digits of its content: the same string is the same document, and one that occurs
    again is passed over. `InputError` for anything else than what `TAKEN` names, and with the number of a document that
    has something wrong.
    """
    rows = _list_rows(given)
    if rows is not None:
        return _read_each(rows, columns)
    if isinstance(given, Item | Mapping):
        raise InputError(f"one {type(given).__name__} is given in place of several: put it in a list; {TAKEN}")
    if isinstance(given, str | bytes | bytearray | Path) or not isinstance(given, Iterable):
        raise InputError(f"{TAKEN}, not as {type(given).__name__}: {repr(given)[:60]}")
    return _read_each(given, columns)


def _read_each(documents: Iterable[Any], given: str | None) -> Iterator[Item]:
    waiting: Iterator[tuple[int, Any]] = enumerate(documents, 1)
    columns: Columns | None = None
    strings = SeenIds()
    while (numbered := next(waiting, None)) is not None:
        number, each = numbered
        if isinstance(each, Item):
            yield each
            continue
        if isinstance(each, Mapping) and columns is None:
            ahead = [(number, each), *islice(waiting, AHEAD)]
            names = dict.fromkeys(str(name) for _, row in ahead if isinstance(row, Mapping) for name in row)
            columns = Columns.choose(names, given, more=True)
            waiting = chain(ahead, waiting)
            continue
        try:
            item = _read_one(each, number, columns, strings)
        except InputError as error:
            raise InputError(f"document {number}: {error}") from None
        if item is not None:
            yield item


def _read_one(each: object, number: int, columns: Columns | None, strings: SeenIds) -> Item | None:
    if isinstance(each, Mapping):
        assert columns is not None, "chosen from the first dictionary"
        return columns.read({str(name): value for name, value in each.items()}, number)
    if isinstance(each, tuple) and len(each) == 2:
        return Columns("id", ("text",)).read(dict(zip(("id", "text"), each, strict=True)), number)
    if not isinstance(each, str):
        raise InputError(f"{TAKEN}, not as {type(each).__name__}: {repr(each)[:60]}")
    if not each or each.isspace():
        raise InputError("the string is blank")
    id = f"{hash_text(each):016x}"
    return None if strings.add(id) else Item(id, str(each))


def _list_rows(given: Any) -> Iterator[dict[str, Any]] | None:
    """The rows of a table, None where it is none; nothing is a table of a library that was not imported."""
    if is_frame(given):
        return _read_pandas(given)
    if _is_one(given, "polars", "LazyFrame"):
        raise InputError(f"a LazyFrame of polars is no table yet: give frame.collect(); {TAKEN}")
    if _is_one(given, "datasets", "DatasetDict", "IterableDatasetDict"):
        raise InputError(f"data with the splits {', '.join(given)} is given: give one, data[{next(iter(given))!r}]")
    if _is_one(given, "datasets", "Dataset", "IterableDataset"):
        labels = read_labels(given.features.to_dict()) if given.features else {}
        # As Arrow, in which no picture is decoded.
        return (row for part in given.with_format("arrow").iter(batch_size=BATCH) for row in read_batch(part, labels))
    batches = _list_batches(given)
    if batches is None and hasattr(given, "columns"):
        raise InputError(f"{TAKEN}, not as {type(given).__module__}.{type(given).__name__}")
    return None if batches is None else (row for batch in batches for row in read_batch(batch, {}))


def _list_batches(given: Any) -> Iterable[Any] | None:
    """The batches of what pyarrow can read: its own tables, those of polars, and whatever else exports Arrow."""
    if _is_one(given, "pyarrow", "Table", "RecordBatch"):
        return [given]
    if _is_one(given, "pyarrow", "RecordBatchReader"):
        return given
    if _is_one(given, "pyarrow.dataset", "Dataset", "Scanner"):
        return given.to_batches()
    if not hasattr(given, "__arrow_c_stream__"):
        return None
    import pyarrow as pa

    try:
        return pa.RecordBatchReader.from_stream(given)
    except (pa.ArrowException, TypeError, ValueError):  # a series, which is iterated
        return None


def _is_one(value: object, library: str, *names: str) -> bool:
    module = sys.modules.get(library)
    return module is not None and isinstance(value, tuple(getattr(module, name) for name in names))


def _read_pandas(frame: Any) -> Iterator[dict[str, Any]]:
    check_column_names(map(str, frame.columns))
    named = any(name is not None for name in frame.index.names)
    for start in range(0, len(frame), BATCH):
        part = frame.iloc[start : start + BATCH]
        yield from (part.reset_index() if named else part).to_dict("records")
