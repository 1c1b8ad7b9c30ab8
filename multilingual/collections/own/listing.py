"""The files below a folder in an order that stays the same, and what of them is passed over, counted."""

from __future__ import annotations

import os
import stat
from collections.abc import Container, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ....errors import InputError
from ....items import is_word
from ....media.modalities import MEDIA
from ..passed import PassedOver

WRITTEN = (".txt", ".text", ".md", ".markdown", ".html", ".htm", ".xhtml")
INDEX = "crosslens.json"  # what `indexes.storage` calls the card of an index, whose import takes its time


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A file: `path` is where it is read, links resolved, and `name` what it is called below the folder, with `/`.

    `suffix` is the ending in small letters, with its dot.
    """

    path: Path
    name: str
    suffix: str
    size: int
    modified: float

    @property
    def id(self) -> str:
        """The name as an id (`write_id`)."""
        return write_id(self.name)

    def describe(self) -> dict[str, Any]:
        """What the metadata of its documents say of it."""
        folder, _, name = show_name(self.name).rpartition("/")
        modified = datetime.fromtimestamp(self.modified, UTC).isoformat(timespec="seconds")
        return {"name": name, "folder": folder or ".", "modified": modified}


def list_media_endings() -> dict[str, str]:
    """The modality of each ending of a file that is not text."""
    return {ending: medium.name for medium in MEDIA.values() for ending in medium.suffixes}


def list_document_endings() -> frozenset[str]:
    """The endings of files that are documents by themselves."""
    return frozenset((*WRITTEN, ".pdf", *list_media_endings()))


def list_files(root: Path, taken: Container[str], passed: PassedOver) -> Iterator[list[FoundFile | InputError]]:
    """The files of each folder below `root` (resolved) that have one of the `taken` endings, sorted by name.

    A folder's own files come before the folders in it. What is not taken is counted in `passed`. An `InputError` stands
    for what cannot be looked at.
    """
    waiting = [("", str(root))]
    while waiting:
        prefix, folder = waiting.pop()
        try:
            with os.scandir(folder) as scan:
                entries = sorted(scan, key=lambda entry: entry.name)
        except OSError as error:
            yield [InputError(f"{show_name(folder)}: the folder cannot be read ({error.strerror})")]
            continue
        if any(entry.name == INDEX for entry in entries):
            passed.indexes += 1  # made of this folder, perhaps, and put into it
            continue
        files: list[FoundFile | InputError] = []
        folders: list[tuple[str, str]] = []
        for entry in entries:
            if entry.name.startswith("."):
                passed.hidden += 1
            elif entry.is_dir(follow_symlinks=False):
                folders.append((f"{prefix}{entry.name}/", entry.path))
            elif entry.is_symlink() and not _leads_to_file_below(entry.path, root):
                passed.links += 1
            elif (suffix := find_suffix(entry.name)) not in taken:
                passed.types[suffix or "no ending"] += 1
            else:
                files += _look_at(entry, f"{prefix}{entry.name}", passed)
        if files:
            yield files
        waiting += reversed(folders)


def find_file(path: Path) -> FoundFile:
    """The one file at `path`; `InputError` if it cannot be looked at."""
    try:
        return _describe_file(str(path), path.name, path.stat())
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None


def find_suffix(name: str) -> str:
    """The ending of a file's name in small letters, with its dot; empty without one."""
    return os.path.splitext(name)[1].lower()


def write_id(name: str) -> str:
    """A name as an id that TREC's files can hold: white space, control characters and `%` are percent-encoded.

    So are bytes that are not UTF-8; other names stay as they are, and no two names have one id.
    """
    if is_word(name) and "%" not in name:
        return name
    return "".join(
        each if each != "%" and is_word(each) else quote(each.encode("utf-8", "surrogateescape"), safe="")
        for each in name
    )


def _look_at(entry: os.DirEntry[str], name: str, passed: PassedOver) -> Iterator[FoundFile | InputError]:
    try:
        found = entry.stat()
    except OSError as error:
        yield InputError(f"{show_name(entry.path)}: cannot be read ({error.strerror})")
        return
    if not stat.S_ISREG(found.st_mode):
        passed.types["no regular file"] += 1
    elif not found.st_size:
        passed.empty += 1
    else:
        yield _describe_file(os.path.realpath(entry.path) if entry.is_symlink() else entry.path, name, found)


def _describe_file(path: str, name: str, found: os.stat_result) -> FoundFile:
    return FoundFile(Path(path), name, find_suffix(name), found.st_size, found.st_mtime)


def _leads_to_file_below(link: str, root: Path) -> bool:
    target = Path(os.path.realpath(link))
    return target.is_relative_to(root) and target.is_file()


def show_name(name: str) -> str:
    """A name for people and metadata: bytes that are not UTF-8 as replacement characters."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
