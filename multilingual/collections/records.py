"""Records of documents and topics: lines of JSON, fields that are checked, and media below a collection's directory."""

from __future__ import annotations

import json
import os
from collections.abc import Container, Iterator, Mapping
from pathlib import Path
from typing import Any

from ...errors import InputError
from ...files import find_fault, parse_json, read_raw_lines
from ...items import Item, is_word
from ...media.modalities import MEDIA
from ..languages import parse_language

Rows = Iterator[tuple[str, Any]]  # each row with its place, `FILE:LINE`, as error messages name it


class FileRow(dict[str, Any]):
    """The fields of one row, checked when they are read: `InputError` says what is wrong with a field."""

    @classmethod
    def parse(cls, line: bytes) -> FileRow:
        """A line of JSON; `InputError` on anything else."""
        fields = parse_json(line)
        if not isinstance(fields, dict):
            raise InputError(f"not a JSON object but {type(fields).__name__}")
        return cls(fields)

    def read_id(self, key: str = "id") -> str:
        """An id: text without white space, or a whole number."""
        id = self.get(key)
        if isinstance(id, int) and not isinstance(id, bool):
            id = str(id)
        if id is None or id == "":
            raise InputError(f"no {key}")
        if not isinstance(id, str):
            raise InputError(f"{key} must be text, not {type(id).__name__}")
        if not is_word(id):
            raise InputError(f"the {key} {id!r} has white space or control characters, which no TREC file could hold")
        return id

    def read_text(self, key: str) -> str | None:
        """A field of text, None where there is none."""
        value = self.get(key)
        if value is not None and not isinstance(value, str):
            raise InputError(f"{key} must be text, not {type(value).__name__}")
        return value

    def read_texts(self, *keys: str) -> dict[str, str]:
        """Fields of text by their keys, those that are there and not empty."""
        return {key: value for key in keys if (value := self.read_text(key))}

    def require_text(self, key: str, whose: str, id: str, shown: str = "") -> str:
        """A field of text that is not blank; the error is `WHOSE ID has no SHOWN` (by default the key)."""
        text = self.read_text(key)
        if not text or not text.strip():
            raise InputError(f"{whose} {id!r} has no {shown or key}")
        return text

    def join_texts(self, *keys: str) -> str | None:
        """Fields of text that are not blank, a line each (title, text); None if all are."""
        texts = [text for key in keys if (text := self.read_text(key)) and not text.isspace()]
        return "\n".join(texts) or None

    def read_lang(self, key: str = "lang") -> str | None:
        """A language as ISO 639-3."""
        lang = self.read_text(key)
        return parse_language(lang) if lang else None

    def read_meta(self, known: Container[str] = frozenset(["id", "text", "lang"])) -> dict[str, Any]:
        """The fields that are neither `known` nor media, and not null."""
        return {
            key: value for key, value in self.items() if value is not None and key not in known and key not in MEDIA
        }

    def read_media(self, root: Path) -> dict[str, Any]:
        """What there is under the names of registered modalities: paths, as `read_path` has them."""
        return {name: path for name in MEDIA if name in self and (path := self.read_path(name, root, name))}

    def read_path(self, key: str, root: Path, medium: str) -> Path | None:
        """The file that a field names relative to `root` (resolved), which it may not leave."""
        given = self.read_text(key)
        if not given:
            return None
        # An absolute path or a link could show any file of this machine to whoever sees the results.
        if Path(given).is_absolute() or "\0" in given:
            raise InputError(f"the {medium} {given!r} must be a path relative to the collection's directory")
        path = Path(os.path.realpath(root / given))
        if not path.is_relative_to(root):
            raise InputError(f"the {medium} {given!r} lies outside the collection's directory {root}")
        if fault := find_fault(path):
            why = f"cannot be read ({fault})" if os.path.lexists(path) else f"does not exist in {root}"
            raise InputError(f"the {medium} {given!r} {why}")
        return path


def find_json_lines(root: Path, stem: str) -> Path | None:
    """STEM.jsonl or STEM.jsonl.gz; `InputError` where both are there."""
    return find_packed(root, f"{stem}.jsonl")


def find_packed(root: Path, name: str) -> Path | None:
    """NAME or NAME.gz; `InputError` where both are there."""
    plain, packed = (path if os.path.lexists(path) else None for path in (root / name, root / f"{name}.gz"))
    if plain and packed:
        raise InputError(f"{root} has both {plain.name} and {packed.name}; keep one")
    return plain or packed


def read_json_lines(*paths: Path) -> Iterator[tuple[str, bytes]]:
    """The lines of files that are not blank, not parsed yet, with their places; `InputError` as `read_raw_lines`."""
    for path in paths:
        for number, line in read_raw_lines(path):
            if line.strip():
                yield f"{path}:{number}", line


def to_json_line(id: str, record: Mapping[str, Any]) -> str:
    """A record as a line of JSON; `InputError`, which names its id, on what no such line can hold."""
    try:
        line = json.dumps(record, ensure_ascii=False, allow_nan=False)
        line.encode("utf-8")
    except (TypeError, ValueError) as error:
        raise InputError(f"{id!r} cannot be written as JSON: {error}") from None
    return line + "\n"


def make_item(
    what: str, id: str, text: str | None, media: dict[str, Any], lang: str | None, meta: dict[str, Any]
) -> Item:
    """An item that holds something; `InputError` else, which says `what` it is. The item takes the dicts over."""
    item = Item(id, text, media.pop("image", None), lang, meta, media)
    if (not text or text.isspace()) and not item.modalities:
        raise InputError(f"{what} {id!r} has neither text nor {' nor '.join(MEDIA)}")
    return item
