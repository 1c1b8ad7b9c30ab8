"""Rows as collections of documents: one file of them."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

from ....errors import InputError
from ....items import Item
from ....rows.columns import Columns
from ....rows.fields import FileRow
from ..base import CollectionCounts, DocumentsAlone, check_collection
from ..records import Rows
from .row_files import PACKED, SUFFIXES, RowSource, is_row_file, open_rows


class RowCollection(DocumentsAlone):
    """A document a row, in columns that are found by their usual names or given (`rows.columns.Columns`).

    `root` is the directory that pictures lie in, and may not leave. `columns` says what was taken for what. There are
    no topics and no judgements.
    """

    def __init__(
        self, name: str, source: RowSource, root: Path, *, where: str, columns: str | None, skip_bad: bool
    ) -> None:
        super().__init__(skip_bad=skip_bad)
        self.name = name
        self.root: Path | None = root
        self._media = root
        self._where, self._source = where, source
        self.shown = f"the collection {where}"
        if not source.names and columns is None:
            self.columns = Columns("id", ("text",))  # of no rows
            return
        try:
            self.columns = Columns.choose(source.names, columns, more=source.more)
        except InputError as error:
            raise InputError(f"{where}: {error}") from None

    @property
    def notes(self) -> list[str]:
        """What was taken for what, for people."""
        return [self.columns.describe(self._source.names)] if self._source.names else []

    @cached_property
    def langs(self) -> frozenset[str]:
        """The languages that documents declare; reads all rows once, if there is a column of them."""
        return frozenset(item.lang for item in self.docs() if item.lang) if self.columns.lang else frozenset()

    def document_rows(self) -> Rows:
        wanted = self.columns.list_wanted(self._source.names)
        for number, (place, row) in enumerate(self._source.rows(wanted), 1):
            yield place, (number, row)

    def read_document(self, row: Any) -> Item:
        number, fields = row
        if isinstance(fields, InputError):
            raise fields
        item = self.columns.read(FileRow.parse(fields) if isinstance(fields, bytes) else fields, number, self._media)
        meta: Any = item.meta
        if "date" in meta and "time" not in meta:
            meta["time"] = meta.pop("date")  # as in all collections
        return item

    def check(self) -> CollectionCounts:
        """Read everything once and count it; `InputError` on no documents."""
        return check_collection(self, self._where)


class TableFile(RowCollection):
    """`table:FILE[?columns=id=docno,text=title+body]`, or just FILE: a document a row of one file.

    The ending says what it is: JSON lines, CSV and TSV (also gzipped), Parquet, Arrow and Feather. All is streamed.
    Pictures lie beside the file, or are bytes in it.
    """

    usage = "write table:FILE, where FILE is .jsonl, .csv, .tsv, .parquet, .arrow or .feather"
    taken = f"a file {', '.join(SUFFIXES)} ({', '.join(PACKED)})"

    def __init__(self, where: str | Path, *, columns: str | None = None, skip_bad: bool = False) -> None:
        path = Path(where).resolve()
        if not is_row_file(path):
            what = "is not one of these" if path.exists() else "does not exist"
            raise InputError(f"the file {where} {what}: {self.usage}")
        super().__init__(path.name, open_rows(path), path.parent, where=str(path), columns=columns, skip_bad=skip_bad)

    @staticmethod
    def recognises(path: Path) -> bool:
        return not path.is_dir() and is_row_file(path)
