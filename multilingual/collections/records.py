"""Files of documents and topics: numbered lines, checked fields, ids seen before, bad lines named or skipped."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from ...errors import InputError
from ...items import Item, SeenIds
from ..languages import parse_language

T = TypeVar("T")


def json_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Numbered lines that are not blank; `InputError` on a file that cannot be read or a damaged archive."""
    number = 0
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                line = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
                if line.strip():
                    yield number, line
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"{path}: damaged or truncated gzip after line {number} ({error})") from None
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from None


def parse_record(line: bytes) -> dict[str, Any]:
    try:
        record = json.loads(line.decode("utf-8"))
        if b"\\u" in line:  # an escaped half of a surrogate pair is no text, and nothing could store it
            json.dumps(record, ensure_ascii=False).encode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"not UTF-8 text ({error.reason} at byte {error.start} of the line)") from None
    except UnicodeEncodeError:
        raise InputError("it holds half of a surrogate pair, which is no text") from None
    except json.JSONDecodeError as error:
        raise InputError(f"malformed JSON ({error.msg} at column {error.colno})") from None
    except (ValueError, RecursionError) as error:  # a number of thousands of digits; thousands of brackets
        raise InputError(f"malformed JSON ({error})") from None
    if not isinstance(record, dict):
        raise InputError(f"not a JSON object but {type(record).__name__}")
    return record


def read_id(record: Mapping[str, Any], key: str) -> str:
    id = record.get(key)
    if isinstance(id, int) and not isinstance(id, bool):
        id = str(id)
    if id is None or id == "":
        raise InputError(f"no {key}")
    if not isinstance(id, str):
        raise InputError(f"{key} must be text, not {type(id).__name__}")
    if len(id.split()) != 1 or id != id.strip():
        raise InputError(f"the {key} {id!r} has white space in it, which no TREC file could hold")
    return id


def read_text(record: Mapping[str, Any], key: str) -> str | None:
    value = record.get(key)
    if value is not None and not isinstance(value, str):
        raise InputError(f"{key} must be text, not {type(value).__name__}")
    return value


def read_lang(record: Mapping[str, Any]) -> str | None:
    lang = read_text(record, "lang")
    return parse_language(lang) if lang else None


def require_text(record: Mapping[str, Any], key: str, shown: str, id: str) -> str:
    text = read_text(record, key)
    if not text or not text.strip():
        raise InputError(f"topic {id!r} has no {shown}")
    return text


def read_image(record: Mapping[str, Any], key: str, root: Path) -> Path | None:
    """The picture that a record names relative to `root` (resolved), which it may not leave."""
    given = read_text(record, key)
    if not given:
        return None
    # An absolute path or a link could show any file of this machine to whoever sees the results.
    if Path(given).is_absolute() or "\0" in given:
        raise InputError(f"the image {given!r} must be a path relative to the collection's directory")
    path = (root / given).resolve()
    if not path.is_relative_to(root):
        raise InputError(f"the image {given!r} lies outside the collection's directory {root}")
    if not path.is_file():
        raise InputError(f"the image {given!r} does not exist in {root}")
    return path


def join_title(title: str | None, text: str | None) -> str | None:
    """Title, newline, text; whichever is not blank, None if both are."""
    return "\n".join(part for part in (title, text) if part and part.strip()) or None


def read_json_lines(path: Path) -> Iterator[tuple[str, bytes]]:
    """The lines of `json_lines`, each with its file and number as an error names them."""
    return ((f"{path}:{number}", line) for number, line in json_lines(path))


class ItemReader:
    """Turns rows into items: every complaint names its place, an id occurs once, and `skip_bad` leaves bad rows out.

    What was wrong is kept by what was read (documents, topics), so a second pass does not count twice.
    """

    def __init__(self, skip_bad: bool = False) -> None:
        self.skip_bad = skip_bad
        self._skipped: dict[str, int] = {}
        self._problems: dict[str, list[str]] = {}

    @property
    def skipped(self) -> int:
        """How many bad rows the latest passes left out."""
        return sum(self._skipped.values())

    @property
    def problems(self) -> list[str]:
        """What was wrong with the first of them, at most ten."""
        return [problem for problems in self._problems.values() for problem in problems][:10]

    def items(
        self, what: str, rows: Iterable[tuple[str, T]], read: Callable[[T], Item | None]
    ) -> Iterator[Item]:
        """The items of `rows`, which come with their places; None from `read` leaves a row out."""
        self._skipped[what], self._problems[what] = 0, []
        seen = SeenIds()
        for place, row in rows:
            try:
                item = read(row)
                if item is not None and seen.add(item.id):
                    raise InputError(f"the id {item.id!r} occurs a second time")
            except InputError as error:
                complaint = f"{place}: {error}"
                if not self.skip_bad:
                    raise InputError(complaint) from None
                self._skipped[what] += 1
                if len(self._problems[what]) < 10:
                    self._problems[what].append(complaint)
                continue
            if item is not None:
                yield item
