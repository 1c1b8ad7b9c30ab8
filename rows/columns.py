"""Which columns of rows are the id, the text, the media and the language of items; the others are their metadata."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import InputError, check_known, list_few, unknown_name
from ..items import Item
from ..media.modalities import MEDIA
from .fields import FileRow, check_column_names, make_item
from .values import to_json_value

NUMBER = "#"  # in place of a column of ids: the number of the row, from 1
# The usual names, the first that is there is taken; in any case (`Title`).
IDS = ("id", "_id", "docid", "doc_id", "docno", "url")
BODIES = ("text", "body", "contents", "content", "passage", "abstract", "caption")  # below a title
TITLE = "title"
LANGS = ("lang", "language")
OBJECTS = ("meta", "metadata")  # objects whose fields are metadata themselves


@dataclass(frozen=True)
class Columns:
    """What each column of some rows stands for.

    `text` columns are joined, a line each. `media` has a column for each modality. `meta` columns are kept as metadata;
    `others` are known and left out.
    """

    id: str
    text: tuple[str, ...] = ()
    media: Mapping[str, str] = field(default_factory=dict)
    lang: str | None = None
    meta: tuple[str, ...] | None = None  # None: all others

    @classmethod
    def choose(cls, names: Iterable[str], given: str | None = None, *, more: bool = False) -> Columns:
        """What the columns `names` are: as `given`, and for the rest by their usual names.

        `given` is written as `id=docno,text=title+body`. It may set `id` (a column, or `#` for the number of the row),
        `text` (several columns with `+` between), `lang`, media by their names, and `meta` (by default all other
        columns); `lang=` is none. With `more` rows may have columns that are not among `names`, and our own names are
        known all the same. `InputError` for columns that are not there, and where no ids, or neither text nor media
        are found; it lists the columns and says what to write.
        """
        names = list(names)
        check_column_names(names)
        chosen = {role: _split(role, value, names) for role, value in _parse(given).items()}
        taken = {column for columns in chosen.values() for column in columns}
        usual = _UsualNames(name for name in names if name not in taken)

        def find(role: str, *known: str) -> tuple[str, ...]:
            return chosen[role] if role in chosen else usual.find(*known)

        media = {each: column[0] for each in MEDIA if (column := find(each, each, f"{each}_path"))}
        ids = find("id", *IDS)
        text = chosen["text"] if "text" in chosen else _list_texts(usual)
        if not ids:
            raise InputError(
                f"no column of ids ({', '.join(IDS)}) among {list_columns(names)}; {_suggest(names, True)}"
            )
        if not text and not media:
            raise InputError(
                f"no column of text ({', '.join(BODIES)}, {TITLE}) or {' or '.join(MEDIA)} among "
                f"{list_columns(names)}; {_suggest(names, False)}"
            )
        lang = find("lang", *LANGS)
        if more:
            text = (TITLE, *text) if text == ("text",) and "text" not in chosen else text
            media = {each: each for each in MEDIA if each not in chosen} | media
            lang = lang or (() if "lang" in chosen else ("lang",))
        return cls(ids[0], text, media, lang[0] if lang else None, chosen.get("meta"))

    def list_meta(self, names: Iterable[str]) -> list[str]:
        """Which of the columns `names` become metadata: a title beside the text does, too."""
        if self.meta is not None:
            return [name for name in names if name in self.meta]
        used = {self.id, self.lang, *self.media.values(), *self.text}
        title = self.text[0] if len(self.text) > 1 and self.text[0].strip().casefold() == TITLE else None
        return [name for name in names if name == title or (name and name not in used)]

    def list_wanted(self, names: Iterable[str]) -> list[str]:
        """Which of the columns `names` are read at all."""
        names = list(names)
        wanted = {self.id, self.lang, *self.media.values(), *self.text, *self.list_meta(names)}
        return [name for name in names if name in wanted]

    def describe(self, names: Iterable[str]) -> str:
        """One line for people: `columns: id=docno, text=title+body, meta: author, year`."""
        names = list(names)
        roles = {"id": [self.id], "text": self.text, **{name: [each] for name, each in self.media.items()}}
        roles["lang"] = [self.lang] if self.lang else []
        there = {role: [each for each in columns if each in (*names, NUMBER)] for role, columns in roles.items()}
        parts = [f"{role}={'+'.join(columns)}" for role, columns in there.items() if columns]
        if meta := self.list_meta(names):
            parts.append(f"meta: {list_columns(meta)}")
        return f"columns: {', '.join(parts)}"

    def read(self, row: Mapping[str, Any], number: int, root: Path | None = None) -> Item:
        """The item of a row, the `number`th; `InputError` says what is wrong with it.

        A medium is bytes, an object in memory, or a path: relative to `root`, which it may not leave, or as it stands
        where there is no root. The objects of `datasets`, `{"bytes": ..., "path": ...}`, are either.
        """
        media = {name: _read_medium(row.get(column), name, root) for name, column in self.media.items()}
        own = set(self.media.values())
        kept = FileRow({name: to_json_value(value) for name, value in row.items() if name not in own})
        meta: dict[str, Any] = {}
        for name in self.list_meta(kept):
            value = kept[name]
            if name in OBJECTS and isinstance(value, dict):
                meta = {**value, **meta}
            elif value is not None:
                meta[name] = value
        id = str(number) if self.id == NUMBER else self._read_id(kept)
        text = "\n".join(text for name in self.text if (text := _read_words(kept, name)) and not text.isspace())
        held = {name: value for name, value in media.items() if value is not None}
        return make_item("document", id, text or None, held, self._read_lang(kept), meta)

    def _read_id(self, row: FileRow) -> str:
        value = row.get(self.id)
        if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
            row = FileRow({self.id: int(value)})  # whole numbers beside gaps become such in data frames
        return row.read_id(self.id)

    def _read_lang(self, row: FileRow) -> str | None:
        if self.lang is None:
            return None
        try:
            return row.read_lang(self.lang)
        except InputError as error:
            raise InputError(f"{error}; where {self.lang} is no language of documents: --columns lang=") from None


def list_columns(names: Sequence[str]) -> str:
    """Names of columns for people, at most 20."""
    return list_few([repr(name) if re.search(r"[\s,]", name) else name for name in names], 20)


class _UsualNames:
    """Columns by the names that people usually give them."""

    def __init__(self, names: Iterable[str]) -> None:
        self._names: dict[str, str] = {}
        for name in names:
            self._names.setdefault(name.strip().casefold(), name)
            self._names[name] = name  # an exact name before others

    def find(self, *known: str) -> tuple[str, ...]:
        return next(((self._names[each],) for each in known if each in self._names), ())


def _list_texts(usual: _UsualNames) -> tuple[str, ...]:
    return usual.find(TITLE) + usual.find(*BODIES)


def _parse(given: str | None) -> dict[str, str]:
    """What was given by its roles; `InputError` for another role, and one given twice."""
    if given is None:
        return {}
    roles = ("id", "text", "lang", "meta", *MEDIA)
    pairs = [part.partition("=") for part in re.split(r",\s*(?=\w+=)", given.strip())]  # names may have commas in them
    if not all(equals for _, equals, _ in pairs):
        raise InputError(f"the columns {given!r} are not written as id=docno,text=title+body")
    for role, _, _ in pairs:
        check_known(role, roles, "part of a document in the columns")
    if len({role for role, _, _ in pairs}) < len(pairs):
        raise InputError(f"the columns {given!r} give a part twice: join columns of text as text=title+body")
    return {role: value for role, _, value in pairs}


def _split(role: str, value: str, names: Collection[str]) -> tuple[str, ...]:
    """The columns that are given for a role."""
    if not value:
        if role == "id":
            raise InputError(f"the columns name none for the id; {_suggest(names, True)}")
        return ()
    # A name may have a plus in it; between the options of a SPEC a plus is read as a space.
    columns = (
        (value,) if value in names else tuple(each.strip() for each in re.split(r"\+" if "+" in value else " ", value))
    )
    if role not in ("text", "meta") and len(columns) > 1:
        raise InputError(f"the columns give several for {role}, which takes one: {', '.join(columns)}")
    for column in columns:
        if column not in names and (role, column) != ("id", NUMBER):
            raise unknown_name(column, names, "column")
    return columns


def _suggest(names: Collection[str], ids: bool) -> str:
    """What to write where `ids`, or text, were not found."""
    if ids:
        likely = next((name for name in names if re.search(r"(id|no|key|nr|number)$", name, re.IGNORECASE)), "COLUMN")
        way, others = f"id={likely}", f", or id={NUMBER} to number the rows"
    else:
        way, others = "text=COLUMN", ", or text=COLUMN+COLUMN, or image=COLUMN"
    return f'say which: --columns {way} (in Python columns="{way}"){others}'


def _read_words(row: FileRow, name: str) -> str | None:
    """A column of text; several texts (captions of a picture) are joined, a line each."""
    value = row.get(name)
    if isinstance(value, list) and value and all(isinstance(each, str) for each in value):
        return "\n".join(value)
    return row.read_text(name)


def _read_medium(value: Any, name: str, root: Path | None) -> Any:
    if isinstance(value, Mapping):
        if (held := value.get("bytes")) is not None:
            return held
        value = value.get("path")
    if value is None or value == "" or (isinstance(value, float) and value != value):
        return None
    if isinstance(value, str):
        if re.match(r"\w+://", value):
            raise InputError(f"the {name} {value!r} is an address, and nothing is fetched: give a file or its bytes")
        return FileRow({name: value}).read_path(name, root, name) if root is not None else Path(value)
    if root is None or isinstance(value, bytes):
        return value
    raise InputError(f"the {name} must be a path or bytes, not {type(value).__name__}")
