"""Collections over publishers' files, in a directory or on the Hugging Face hub: rows, samples, published counts."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar

from ...errors import InputError, first_line
from ...files import check_file, find_fault, read_lines
from ...items import Item, split_fields
from ...rows.fields import FileRow
from ...runs import Qrels, parse_grade, read_qrels
from .base import CollectionCounts, FileCollection, MissingPart, check_collection, check_count
from .records import Rows, read_json_lines
from .topics import Source, select_language


class DatasetFiles:
    """The files of a data set: found below a directory (at most two folders deeper), or fetched from the hub.

    `where` is a directory, or `owner/name` on the hub; empty means `repositories`, the publisher's own there. `root` is
    the directory, None on the hub. Error texts end with `usage`, how to name such a collection; `not_on_hub` says why
    only a directory will do.
    """

    def __init__(self, where: str, repositories: Sequence[str] = (), *, usage: str = "", not_on_hub: str = "") -> None:
        self.root: Path | None = None
        self.repositories = tuple(repositories)
        self.usage = usage
        if where and Path(where).is_dir():
            self.root = Path(where).resolve()
        elif re.fullmatch(r"[\w.-]+/[\w.-]+", where) and not where.startswith((".", "/")):
            self.repositories = (where,)
        elif where:
            what = "is a file" if Path(where).exists() else "does not exist"
            raise InputError(f"the directory {where} {what}: {usage}")
        elif not self.repositories:
            raise InputError(f"the name does not say where the files are: {usage}")
        if not_on_hub and self.root is None:
            raise InputError(f"{not_on_hub}: {usage}")

    def __str__(self) -> str:
        return str(self.root or " and ".join(self.repositories))

    @property
    def directory(self) -> Path:
        """The directory, for who cannot do with the hub."""
        assert self.root is not None
        return self.root

    def find(self, *patterns: str) -> list[Path]:
        """The files of the first pattern that has any, in the order of the numbers in their names; else none."""
        for pattern in patterns:
            for root in [self.root] if self.root else self._fetch(pattern):
                for depth in ("", "*/", "*/*/"):
                    found = [path for path in root.glob(depth + pattern) if not find_fault(path)]
                    if found:
                        return sorted(found, key=_natural)
        return []

    def get_named(self, name: str) -> Path:
        """The file that the user names, relative to the directory or absolute."""
        path = (self.root or Path()) / name
        if not path.is_file():
            raise InputError(f"there is no file {name} in {self}")
        return path

    def get_all(self, *patterns: str) -> list[Path]:
        """As `find`; `MissingPart`, an `InputError`, where there are none."""
        if found := self.find(*patterns):
            return found
        raise MissingPart(f"no file {' or '.join(patterns)} in {self}: {self.usage}")

    def get_one(self, *patterns: str) -> Path:
        """The only file of the first pattern that has any; `MissingPart` on none, `InputError` on several."""
        found = self.get_all(*patterns)
        if len(found) > 1:
            raise InputError(f"{found[0]} and {found[1]} could both be meant: keep one")
        return found[0]

    def _fetch(self, pattern: str) -> list[Path]:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

        roots = []
        for repository in self.repositories:
            try:
                patterns = [pattern, f"*/{pattern}"]
                root = snapshot_download(repository, repo_type="dataset", allow_patterns=patterns)
            except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
                raise InputError(
                    f"cannot fetch the data set {repository} from the hub ({first_line(error)}); "
                    f"where it is on disk: {self.usage}"
                ) from None
            roots.append(Path(root))
        return roots


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How much must be there; options that all families share (`specs.known_options`).

    `sample` takes a part of a collection for what it is: counts are not held against the published ones, and
    judgements of documents that it lacks are left out (as the organisers' filter scripts do). `skip_bad` counts bad
    rows in place of refusing them.
    """

    sample: bool = False
    skip_bad: bool = False


class PublishedCollection(FileCollection):
    """A `Collection` over a publisher's files; a family says how documents, queries and judgements are found there.

    `where` is a directory, a data set on the Hugging Face hub, or empty for the publisher's own `repositories` there.
    A family sets `name` and `langs`. Where it does not say otherwise, documents are rows `docid, title, text, url` of
    `doc_files`, in the only one of the `langs`; queries are rows `id, text` of `topic_files`, in `query_lang`; and
    judgements are a TREC file, `qrels_files`. Each is a tuple of patterns, of which the first wins that finds any. Rows
    are those of `read_rows`.
    """

    usage: ClassVar[str] = ""  # how to name such a collection, for error texts
    repositories: ClassVar[tuple[str, ...]] = ()
    not_on_hub: ClassVar[str] = ""  # why only a directory will do, for error texts
    questions: ClassVar[int] = 0  # in the publisher's file, where that figure is known
    langs: frozenset[str]
    doc_files: tuple[str, ...]
    topic_files: tuple[str, ...]
    qrels_files: tuple[str, ...]
    query_lang: str | None = "eng"
    published: Mapping[str, int]  # documents by language, where the publisher's own figure is known

    def __init__(self, where: str, reading: Reading) -> None:
        super().__init__(skip_bad=reading.skip_bad)
        self.files = DatasetFiles(where, self.repositories, usage=self.usage, not_on_hub=self.not_on_hub)
        self.sample = reading.sample
        self.published = {}
        self._sampled: set[str] | None = None

    def queries(
        self, *, fields: str | None = None, lang: str | None = None, source: Source | None = None
    ) -> list[Item]:
        """The queries; `InputError` for `fields` or `source`, which these queries do not have."""
        if fields or source:
            raise InputError(f"the queries of {self.name} are plain texts: they have no fields and one source")
        found = self.read_items("queries", self.query_rows(), self.read_query)
        return select_language(lang, found, f"{self.name} has no queries")

    def qrels(self) -> Qrels:
        """The judgements; of a sample only those of its documents, which are read through once for it."""
        judged = self.published_qrels()
        if not self.sample:
            return judged
        if self._sampled is None:
            wanted = {doc for grades in judged.values() for doc in grades}
            self._sampled = {item.id for item in self.docs() if item.id in wanted}
        kept = {
            topic: {doc: grade for doc, grade in grades.items() if doc in self._sampled}
            for topic, grades in judged.items()
        }
        return {topic: grades for topic, grades in kept.items() if grades}

    def check(self) -> CollectionCounts:
        """Read everything once and count it.

        `InputError` on other numbers of documents or questions than the published ones (both numbers), and as
        `check_collection`.
        """
        if self.questions and not self.sample:
            check_count(self.name, sum(1 for _ in self.query_rows()), self.questions, "questions")
        return check_collection(self, self.name, {} if self.sample else self.published)

    def document_rows(self) -> Rows:
        return read_rows(self.files.get_all(*self.doc_files))

    def read_document(self, row: Any) -> Item | None:
        text, meta = row.join_texts("title", "text"), row.read_texts("title", "url")
        return Item(row.read_id("docid"), text, None, next(iter(self.langs), None), meta)

    def query_rows(self) -> Rows:
        """The rows of all queries, as `document_rows`."""
        return read_rows([self.files.get_one(*self.topic_files)])

    def read_query(self, row: Any) -> Item | None:
        """The query of a row, as `read_document`."""
        return Item(row.read_id(), row["text"], None, self.query_lang)

    def published_qrels(self) -> dict[str, dict[str, int]]:
        """All judgements; `MissingPart` where there are none."""
        return read_qrels(self.files.get_one(*self.qrels_files))[0]


def read_rows(paths: Sequence[Path]) -> Rows:
    """The rows of files named alike: of Parquet, of lines `id TAB text` (.tsv or .txt), else lines of JSON."""
    name = paths[0].name.removesuffix(".gz")
    if name.endswith(".parquet"):
        return read_parquet(paths)
    if name.endswith((".tsv", ".txt")):
        return chain.from_iterable(read_table(path, ("id", "text")) for path in paths)
    return read_json_lines(*paths)


def read_parquet(paths: Iterable[Path], batch: int = 64) -> Rows:
    """The rows of Parquet files; `InputError` on a damaged file."""
    import pyarrow
    import pyarrow.parquet

    for path in paths:
        number = 0
        check_file(path)
        try:
            with pyarrow.parquet.ParquetFile(path) as file:
                for rows in file.iter_batches(batch_size=batch):
                    for row in rows.to_pylist():
                        number += 1
                        yield f"{path}: row {number}", FileRow(row)
        except (pyarrow.ArrowException, OSError) as error:
            raise InputError(f"cannot read {path} after row {number}: {first_line(error)}") from None


def read_table(path: Path, columns: Sequence[str], *, tabs: bool = True) -> Rows:
    """The rows of a file of columns, separated by tabs without quoting, or by white space.

    The last column keeps what tabs it holds.
    """
    for number, line in enumerate(read_lines(path), 1):
        if not line.strip():
            continue
        try:
            fields = line.rstrip("\r\n").split("\t", len(columns) - 1) if tabs else split_fields(line)
        except ValueError as error:
            raise InputError(f"{path}:{number}: {error}: {line.strip()[:80]!r}") from None
        if len(fields) != len(columns):
            form = (" TAB " if tabs else " ").join(columns)
            raise InputError(f"{path}:{number}: not `{form}` but {len(fields)} columns: {line.strip()[:80]!r}")
        yield f"{path}:{number}", FileRow(zip(columns, fields, strict=True))


def read_judgements(rows: Rows, query: str, doc: str, grade: str) -> dict[str, dict[str, int]]:
    """Query id -> document id -> grade from rows with such columns; `InputError` as `runs.read_qrels`."""
    judged: dict[str, dict[str, int]] = {}
    for place, row in rows:
        try:
            row = FileRow.parse(row) if isinstance(row, bytes) else row
            value = parse_grade(str(row[grade]))
            topic, document = row.read_id(query), row.read_id(doc)
            if judged.setdefault(topic, {}).setdefault(document, value) != value:
                raise InputError(f"document {document!r} has two grades for topic {topic!r}")
        except InputError as error:
            raise InputError(f"{place}: {error}") from None
        except (KeyError, ValueError):
            raise InputError(f"{place}: the {grade} {row.get(grade)!r} is not a whole number") from None
    return judged


def _natural(path: Path) -> list[tuple[int, str]]:
    # docs-10 after docs-9; digits and words never meet, as they take turns.
    return [(int(part), "") if part.isdigit() else (0, part) for part in re.split(r"(\d+)", str(path))]
