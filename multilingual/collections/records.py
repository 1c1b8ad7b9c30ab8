"""Records of documents and topics: lines of JSON, fields that are checked, and media below a collection's directory."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Container, Iterator, Mapping
from pathlib import Path
from typing import Any

from ...errors import InputError
from ...items import Item
from ...media.modalities import MEDIA
from ..languages import parse_language

Record = Mapping[str, Any]
Rows = Iterator[tuple[str, Any]]  # each row with its place, `FILE:LINE`, as error messages name it


def read_json_lines(*paths: Path) -> Iterator[tuple[str, bytes]]:
    """The lines of files that are not blank, not parsed yet; `InputError` on an unreadable file or damaged archive."""
    for path in paths:
        number = 0
        try:
            with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as lines:
                for number, line in enumerate(lines, 1):
                    line = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
                    if line.strip():
                        yield f"{path}:{number}", line
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise InputError(f"{path}: damaged or truncated gzip after line {number} ({error})") from None
        except OSError as error:
            raise InputError(f"cannot read {path}: {error.strerror or error}") from None


def parse_record(line: bytes) -> dict[str, Any]:
    """A line of JSON as a dict; `InputError` on anything else."""
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


def read_id(record: Record, key: str) -> str:
    """An id: text without white space, or a whole number; `InputError` on anything else."""
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


def read_text(record: Record, key: str) -> str | None:
    """A field of text, None where there is none; `InputError` on another type."""
    value = record.get(key)
    if value is not None and not isinstance(value, str):
        raise InputError(f"{key} must be text, not {type(value).__name__}")
    return value


def require_text(record: Record, key: str, whose: str, id: str, shown: str = "") -> str:
    """A field of text that is not blank; `InputError` else: `WHOSE ID has no SHOWN` (by default the key)."""
    text = read_text(record, key)
    if not text or not text.strip():
        raise InputError(f"{whose} {id!r} has no {shown or key}")
    return text


def read_lang(record: Record) -> str | None:
    """The field `lang` as ISO 639-3."""
    lang = read_text(record, "lang")
    return parse_language(lang) if lang else None


def read_meta(record: Record, known: Container[str] = frozenset(["id", "text", "lang"])) -> dict[str, Any]:
    """The fields that are neither `known` nor media, and not null."""
    return {
        key: value
        for key, value in record.items()
        if value is not None and key not in known and key not in MEDIA
    }


def read_media(record: Record, root: Path) -> dict[str, Any]:
    """What a record holds under the names of registered modalities: paths, as `read_path` has them."""
    return {name: path for name in MEDIA if name in record and (path := read_path(record, name, root, name))}


def read_path(record: Record, key: str, root: Path, medium: str) -> Path | None:
    """The file that a record names relative to `root` (resolved), which it may not leave; `InputError` else."""
    given = read_text(record, key)
    if not given:
        return None
    # An absolute path or a link could show any file of this machine to whoever sees the results.
    if Path(given).is_absolute() or "\0" in given:
        raise InputError(f"the {medium} {given!r} must be a path relative to the collection's directory")
    path = (root / given).resolve()
    if not path.is_relative_to(root):
        raise InputError(f"the {medium} {given!r} lies outside the collection's directory {root}")
    if not path.is_file():
        raise InputError(f"the {medium} {given!r} does not exist in {root}")
    return path


def make_item(
    what: str, id: str, text: str | None, media: dict[str, Any], lang: str | None, meta: Record
) -> Item:
    """An item that holds something; `InputError` else, which says `what` it is. The item takes the dicts over."""
    item = Item(id, text, media.pop("image", None), lang, meta, media)
    if not item.modalities:
        raise InputError(f"{what} {id!r} has neither text nor {' nor '.join(MEDIA)}")
    return item


def join_title(title: str | None, text: str | None) -> str | None:
    """Title, newline, text; whichever is not blank, None if both are."""
    return "\n".join(part for part in (title, text) if part and part.strip()) or None
