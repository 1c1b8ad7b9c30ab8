"""All that is stored of one index, and the right to change it."""

from __future__ import annotations

import os
from collections import Counter
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Self

from ...errors import InputError, SpecMismatch
from ...files import check_file, parse_json, write_json
from ...items import hash_text
from .analysis import ANALYSIS
from .card import FIRST, FORMAT, Card
from .checksums import check_files, list_checksums
from .filters import read_key
from .place import FolderPlace, find_place
from .tables import DOCUMENTS, Tables

FILE = "crosslens.json"


class Storage:
    """The card of an index, its tables, and the place of its small files (None in memory).

    One process writes, which holds `lock`; readers open the index again after a change.
    """

    def __init__(self, path: str | Path, card: Card) -> None:
        self.path = str(path)
        self.card = card
        self.place = find_place(path)
        self.tables = Tables(path)

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """What is stored at `path`; `InputError` if there is no index, one of a newer format, or a damaged one."""
        return cls(path, _check_files(path, read_card(path)))

    @classmethod
    def create(cls, path: str | Path, wanted: Card) -> Self:
        """What the card `wanted` describes, in a new or empty directory; one that is there already is opened.

        `InputError` if the one there is of another kind or has other settings, or if the directory holds other files.
        """
        place = find_place(path)
        if place is None:
            storage = cls(path, wanted)
        elif place.has(FILE):
            storage = cls(path, _check_files(path, _check_settings(path, read_card(path), wanted)))
        else:
            place.begin()
            storage = cls(path, wanted)
            storage.save()
        storage.tables.create(storage.card.lexical)
        return storage

    @property
    def folder(self) -> Path | None:
        """A directory for files of any size; None where there is none."""
        return self.place.folder if self.place else None

    def lock(self) -> AbstractContextManager[None]:
        """The right to write, for this process alone; `InputError` if another one has it."""
        return self.place.lock() if self.place else nullcontext()

    def save(self) -> None:
        """Write the card, that of a finished index with the checksums of all files.

        `InputError` if it cannot be written, a full disk included.
        """
        if self.folder is not None and self.card.complete:
            self.card.checksums = list_checksums(self.folder, self.tables.versions, self.card.checksums)
        if self.place is not None:
            with self.place.write(FILE) as path:
                write_json(path, self.card.to_json())

    def begin_change(self) -> None:
        """Note on the card that the index is unfinished."""
        if self.card.complete:
            self.card.complete = False
            self.save()

    def summarise(self) -> None:
        """Put on the card what the rows hold: documents, languages, fields of metadata, and a hash of all of it."""
        card = self.card
        content = count = documents = 0
        keys: set[str] = set()
        langs: Counter[str] = Counter()
        for batch in self.tables.scan(["id", "lang", "facets", "hash"]):
            for id, lang, facets, hash in zip(*(each.to_pylist() for each in batch.columns), strict=True):
                count += 1
                content = (content + hash_text(f"{id}\0{hash}")) % 2**64  # a sum, so that order does not matter
                keys.update(map(read_key, facets))
                if card.passages is None or id.endswith(FIRST):
                    documents += 1
                    if lang is not None:
                        langs[lang] += 1
        card.documents = documents
        if card.passages is not None:
            card.passages.count = count
        card.langs = dict(sorted(langs.items(), key=lambda pair: (-pair[1], pair[0])))
        card.keys = sorted(keys)
        card.content = f"{content:016x}"


def read_card(path: str | Path) -> Card:
    """The card of the index at `path`; `InputError` if it is missing, damaged or of a newer format."""
    file = f"{path}/{FILE}"
    try:
        if (place := find_place(path)) is None:
            raise FileNotFoundError
        with place.read(FILE) as found:
            if os.path.lexists(found):
                check_file(found)
            data = parse_json(found.read_bytes())
        if (format := data["format"]) != FORMAT:
            raise SpecMismatch(
                f"{path} is an index of format {format}, and this crosslens reads format {FORMAT}; "
                "update crosslens or make the index again"
            )
        card = Card.from_json(data)
        if card.analysis > ANALYSIS:
            raise SpecMismatch(
                f"{path} holds full text of analysis {card.analysis}, and this crosslens knows {ANALYSIS}; update "
                "crosslens or make the index again"
            )
        return card
    except FileNotFoundError:
        if place is not None and place.folder is not None and (place.folder / f"{DOCUMENTS}.lance").exists():
            raise InputError(f"{file} is gone, without which nothing can be read; make the index again") from None
        raise InputError(f"{path} is not an index (it has no {FILE}); make one with `crosslens index`") from None
    except OSError as error:
        raise InputError(f"cannot read {file}: {error.strerror}") from None
    except SpecMismatch:
        raise
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{file} is damaged ({error}); make the index again") from None


def _check_files(path: str | Path, card: Card) -> Card:
    """The card, if the index's files are those that it names; else `InputError`."""
    if isinstance(place := find_place(path), FolderPlace):
        check_files(place.folder, card.checksums, card.complete)
    return card


def _check_settings(path: str | Path, card: Card, wanted: Card) -> Card:
    for setting in ("kind", "name", "lexical"):
        here, asked = getattr(card, setting), getattr(wanted, setting)
        if here != asked and (setting != "name" or asked):
            raise InputError(
                f"{path} is an index with {setting}={here!r}, not {asked!r}; give another directory or the same "
                "settings"
            )
    here, asked = (str(each.passages.windows) if each.passages else "whole documents" for each in (card, wanted))
    if here != asked:
        raise InputError(f"{path} is an index of {here}, not of {asked}; give another directory or the same settings")
    return card
