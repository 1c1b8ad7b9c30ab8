"""The fields of one row, whatever file or table it comes from: checked when they are read, and made an item."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Container, Iterable
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..files import find_fault, parse_json
from ..items import Item, is_word
from ..media.language_codes import parse_language
from ..media.modalities import MEDIA


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


def make_item(
    what: str, id: str, text: str | None, media: dict[str, Any], lang: str | None, meta: dict[str, Any]
) -> Item:
    """An item that holds something; `InputError` else, which says `what` it is. The item takes the dicts over."""
    item = Item(id, text, media.pop("image", None), lang, meta, media)
    if (not text or text.isspace()) and not item.modalities:
        raise InputError(f"{what} {id!r} has neither text nor {' nor '.join(MEDIA)}")
    return item


def check_column_names(names: Iterable[str]) -> None:
    """`InputError` where two columns have one name."""
    name, number = max(Counter(names).items(), key=lambda each: each[1], default=("", 0))
    if number > 1:
        raise InputError(f"the column {name!r} is there twice: rename one")
