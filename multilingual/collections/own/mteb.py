"""Retrieval data sets as MTEB keeps them: folders of Parquet or JSON lines for documents, queries and judgements."""

from __future__ import annotations

import re
from collections.abc import Container
from dataclasses import replace
from pathlib import Path
from typing import Any

from ....errors import InputError, check_known
from ....items import Item
from ....media.modalities import MEDIA
from ....rows.columns import Columns
from ....rows.fields import FileRow
from ....runs import read_qrels
from ...languages import parse_language
from ..published import PublishedCollection, Reading, read_judgements, read_rows
from ..records import Rows

FORMS = ("parquet", "jsonl", "jsonl.gz")
IDS = ("_id", "id", "corpus-id", "query-id")


class Mteb(PublishedCollection):
    """`mteb:WHERE[?subset=en][&split=test]`, or just a directory: a retrieval data set in MTEB's form.

    WHERE is a directory, or a data set on the hub (`mteb/scifact`). Documents `{"_id" or "id", "title", "text",
    "image"}` are in corpus/, queries alike in queries/, judgements `{"query-id", "corpus-id", "score"}` in qrels/ (or
    default/, or data/), as SPLIT-*.parquet, SPLIT.jsonl or the one file there is; or in files corpus.jsonl and
    queries.jsonl. Data sets in several languages have subsets: en-corpus/, en-queries/ and en-qrels/. Of queries the
    judged ones are taken; other columns are metadata.
    """

    usage = "write mteb:OWNER/NAME or mteb:DIR, where DIR holds corpus, queries and qrels"
    taken = "a directory with MTEB's corpus, queries and qrels"

    def __init__(self, where: str, *, reading: Reading, subset: str | None = None, split: str = "test") -> None:
        super().__init__(where, reading)
        if self.files.root is not None:
            subset = _choose_subset(self.files.root, subset)
        self._before = f"{subset}-" if subset else ""
        self.split = split
        self._judged: Container[str] = ()
        name = self.files.root.name if self.files.root else where.rpartition("/")[2]
        self.name = "-".join(part for part in (name, subset, split) if part)
        # A subset may also be a pair of languages, or none.
        lang = re.fullmatch(r"([a-z]{2,3})([-_][A-Z][a-z]{3})?", subset or "")
        self._lang = parse_language(lang[1]) if lang else None
        self.langs = frozenset([self._lang] if self._lang else [])

    @staticmethod
    def recognises(path: Path) -> bool:
        return path.is_dir() and (bool(_list_subsets(path)) or any(path.glob("qrels/*.jsonl*")))

    def document_rows(self) -> Rows:
        return read_rows(self.files.get_all(*self._list_patterns("corpus")))

    def read_document(self, row: FileRow) -> Item:
        return self._read(row, "document")

    def query_rows(self) -> Rows:
        return read_rows(self.files.get_all(*self._list_patterns("queries")))

    def read_query(self, row: FileRow) -> Item | None:
        return self._read(row, "query") if row.read_id(_find_id(row)) in self._judged else None

    def queries(self, **options: Any) -> list[Item]:
        """The queries that the split judges."""
        self._judged = self.published_qrels().keys()
        return super().queries(**options)

    def published_qrels(self) -> dict[str, dict[str, int]]:
        folders = [f"{self._before}qrels", *(() if self._before else ("default", "data"))]
        forms = ("-*.parquet", ".parquet", ".jsonl", ".jsonl.gz", ".tsv")
        splits = [f"{folder}/{self.split}{form}" for form in forms for folder in folders]
        found = self.files.get_all(*splits)
        if found[0].suffix == ".tsv":
            return read_qrels(self.files.get_one(*splits))[0]
        return read_judgements(read_rows(found), "query-id", "corpus-id", "score")

    def _list_patterns(self, part: str) -> list[str]:
        folder = f"{self._before}{part}"
        own = [f"{folder}/{self.split}{dash}*.{form}" for form in FORMS for dash in ("-", "")]
        return [*own, *(f"{folder}/*.{form}" for form in FORMS), *(f"{folder}.{form}" for form in FORMS)]

    def _read(self, row: FileRow, what: str) -> Item:
        text = ("title", "text") if what == "document" else ("text" if "text" in row else "query",)
        media = {name: name for name in MEDIA if name in row}
        lang = next((name for name in ("lang", "language") if name in row), None)
        root = self.files.root or Path("/dev/null")  # no row of the hub may name a file of this machine
        item = Columns(_find_id(row), text, media, lang).read(row, 0, root)
        return item if item.lang else replace(item, lang=self._lang)


def _find_id(row: FileRow) -> str:
    return next((key for key in IDS if key in row), IDS[0])


def _list_subsets(root: Path) -> list[str]:
    """The subsets by what their folders are called; the data set that has none is the empty one."""
    return sorted(
        path.name.removesuffix("corpus").removesuffix("-")
        for path in (*root.glob("corpus"), *root.glob("*-corpus"))
        if path.is_dir() and any(any(path.glob(f"*.{form}")) for form in FORMS)
    )


def _choose_subset(root: Path, given: str | None) -> str | None:
    there = _list_subsets(root)
    if given is not None:
        check_known(given, there, f"subset of {root}")
        return given
    if len(there) > 1 and "" not in there:
        raise InputError(f"{root} has the subsets {', '.join(there)}: say which, mteb:{root}?subset={there[0]}")
    return None if not there or "" in there else there[0]
