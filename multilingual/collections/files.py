"""Publishers' files: where they are, in a directory or on the Hugging Face hub, and their rows, streamed."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ...errors import InputError
from ...files import read_lines
from .base import MissingPart
from .records import parse_record, read_json_lines

Row = tuple[str, dict[str, Any]]  # where it stands, for complaints; and its fields


class DatasetFiles:
    """The files of a data set: found below a directory (at most two folders deeper), or fetched from the hub.

    `where` is a directory, or `owner/name` on the hub; empty means `repositories`, the publisher's own there.
    """

    def __init__(self, where: str, repositories: Sequence[str] = (), *, usage: str = "") -> None:
        self.root: Path | None = None
        self.repositories = tuple(repositories)
        if where and Path(where).is_dir():
            self.root = Path(where).resolve()
        elif re.fullmatch(r"[\w.-]+/[\w.-]+", where) and not where.startswith((".", "/")):
            self.repositories = (where,)
        elif where:
            what = "is a file" if Path(where).exists() else "does not exist"
            raise InputError(f"the directory {where} {what}: {usage}")
        elif not self.repositories:
            raise InputError(f"it is not said where the files are: {usage}")
        self.usage = usage

    def __str__(self) -> str:
        return str(self.root or " and ".join(self.repositories))

    def any(self, *patterns: str) -> list[Path]:
        """The files of the first pattern that has any, in the order of the numbers in their names; else none."""
        for pattern in patterns:
            roots = [self.root] if self.root else self._fetched(pattern)
            for root in roots:
                for depth in ("", "*/", "*/*/"):
                    found = [path for path in root.glob(depth + pattern) if path.is_file()]
                    if found:
                        return sorted(found, key=_natural)
        return []

    def named(self, name: str) -> Path:
        """The file that the user names, relative to the directory or absolute."""
        path = (self.root or Path()) / name
        if not path.is_file():
            raise InputError(f"there is no file {name} in {self}")
        return path

    def all(self, *patterns: str) -> list[Path]:
        """As `any`; `MissingPart`, an `InputError`, where there are none."""
        if found := self.any(*patterns):
            return found
        raise MissingPart(f"no file {' or '.join(patterns)} in {self}: {self.usage}")

    def one(self, *patterns: str) -> Path:
        """The only file of the first pattern that has any; `MissingPart` on none, `InputError` on several."""
        found = self.all(*patterns)
        if len(found) > 1:
            raise InputError(f"{found[0]} and {found[1]} could both be meant: keep one")
        return found[0]

    def _fetched(self, pattern: str) -> list[Path]:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

        roots = []
        for repository in self.repositories:
            try:
                roots.append(
                    Path(
                        snapshot_download(
                            repository, repo_type="dataset", allow_patterns=[pattern, f"*/{pattern}"]
                        )
                    )
                )
            except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
                reason = str(error).strip().splitlines()
                raise InputError(
                    f"cannot fetch the data set {repository} from the hub "
                    f"({reason[0] if reason else type(error).__name__}); where it is on disk: {self.usage}"
                ) from None
        return roots


def read_all_lines(paths: Iterable[Path]) -> Iterator[tuple[str, bytes]]:
    """The lines of JSON lines files one after the other, with their places; not parsed yet."""
    for path in paths:
        yield from read_json_lines(path)


def parse_row(row: bytes | dict[str, Any]) -> dict[str, Any]:
    """A line of JSON, or a row that has its fields already."""
    return parse_record(row) if isinstance(row, bytes) else row


def read_parquet(paths: Iterable[Path], batch: int = 64) -> Iterator[Row]:
    """The rows of Parquet files; `InputError` on a damaged file."""
    import pyarrow
    import pyarrow.parquet

    for path in paths:
        number = 0
        try:
            with pyarrow.parquet.ParquetFile(path) as file:
                for rows in file.iter_batches(batch_size=batch):
                    for row in rows.to_pylist():
                        number += 1
                        yield f"{path}: row {number}", row
        except (pyarrow.ArrowException, OSError) as error:
            reason = str(error).strip().splitlines()
            raise InputError(
                f"cannot read {path} after row {number}: {reason[0] if reason else error}"
            ) from None


def read_tsv(path: Path, columns: Sequence[str], *, header: bool = False) -> Iterator[Row]:
    """The rows of a tab-separated file without quoting; the last column keeps what tabs it holds."""
    for number, line in enumerate(read_lines(path), 1):
        if not line.strip() or (header and number == 1):
            continue
        fields = line.rstrip("\r\n").split("\t", len(columns) - 1)
        if len(fields) != len(columns):
            raise InputError(
                f"{path}:{number}: not `{' TAB '.join(columns)}` but {len(fields)} columns: {line.strip()[:80]!r}"
            )
        yield f"{path}:{number}", dict(zip(columns, fields, strict=True))


def _natural(path: Path) -> list[tuple[int, str]]:
    # docs-10 after docs-9; digits and words never meet, as they take turns.
    return [(int(part), "") if part.isdigit() else (0, part) for part in re.split(r"(\d+)", str(path))]
