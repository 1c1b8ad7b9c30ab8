"""All that is stored of one index, and the right to change it."""

from __future__ import annotations

import os
import re
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from copy import deepcopy
from pathlib import Path
from typing import Self

from ...errors import InputError, SpecMismatch
from ...files import check_file, parse_json, write_json
from ...items import hash_text
from .analysis import ANALYSIS
from .card import FIRST, FORMAT, Card
from .checksums import check_files, list_checksums
from .filters import read_key
from .fulltext import FullText
from .place import FilePlace, FolderPlace, find_place
from .tables import DOCUMENTS, Tables

FILE = "crosslens.json"
TRIES = 5  # times that card and tables are read before it is said that they change too fast
MARK = ".e"  # in the names of derived files, before the number of the edition that they were made for
DERIVED = re.compile(r"(moments_|postings_|faiss-)|.*\.e\d+(\.|$)")  # those without a number are of earlier crosslens


class Storage:
    """The card of an index, its tables, and the place of its small files (None in memory).

    What is opened is the last complete edition, which stays as it is while others write; before there is one, what is
    stored so far. One process writes, which holds `lock`: it opens the storage again, with `open_to_write`.
    """

    def __init__(self, path: str | Path, card: Card, place: FilePlace | None = None, pinned: bool = True) -> None:
        self.path = str(path)
        self.card = card
        self.place = place or find_place(path)
        pinned = pinned and card.complete and self.place is not None
        self.tables = Tables(path, card.versions if pinned else None)
        if card.complete and self.place is not None and not card.versions:  # a card of earlier crosslens
            card.versions = self.tables.versions
            card.files = {name: name for name in self.place.list_names() if DERIVED.match(name)}
            if pinned:
                self.tables.pin(card.versions)
        self.seen: object = None  # of the card's file, when it was read
        self.is_changing = False  # whether this is the edition before one that is under way
        self.finished = False

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """What is stored at `path`; `InputError` if there is no index, one of a newer format, or a damaged one.

        A card and tables that do not belong together, as a writer has come in between, are read again; `InputError` if
        that happens each time.
        """
        place = find_place(path)
        for _ in range(TRIES):
            seen = place.look(FILE) if place else None
            card = read_card(path, place)
            storage = failed = None
            try:
                storage = cls(path, deepcopy(_check_files(card.readable, place)), place)
            except InputError as error:
                failed = error
            if place is None or card == read_card(path, place):
                if storage is None:
                    assert failed is not None
                    raise failed
                storage.seen, storage.is_changing = seen, not card.complete
                return storage
        raise InputError(f"{path} changes faster than it can be read: wait until what writes to it is done")

    @classmethod
    def create(cls, path: str | Path, wanted: Card) -> Self:
        """What the card `wanted` describes, in a new or empty directory; one that is there already is opened.

        `InputError` if the one there is of another kind or has other settings, or if the directory holds other files.
        """
        place = find_place(path)
        if place is None:
            storage = cls(path, wanted)
        elif place.has(FILE):
            _check_settings(path, read_card(path, place), wanted)
            storage = cls.open(path)
        else:
            place.begin()
            storage = cls(path, wanted, place)
            storage.save()
        storage.tables.create(storage.card.lexical)
        return storage

    @staticmethod
    def check(path: str | Path, wanted: Card) -> Card:
        """The card of what is at `path`, `wanted` if nothing is; `InputError` where `create` would fail.

        Nothing is written, so that of a database it shows only then whether that can be done.
        """
        place = find_place(path)
        if place is not None and place.has(FILE):
            card = read_card(path, place)
            _check_settings(path, card, wanted)
        else:
            card = wanted
        if isinstance(place, FolderPlace):
            place.check(begun=card is not wanted)
        return card

    def open_to_write(self) -> Self:
        """The same as it is now, in the edition that is under way if there is one; the lock must be held.

        What a killed writer has changed of a complete edition is undone.
        """
        place = self.place
        if place is None:
            return self
        found = type(self)(self.path, read_card(self.path, place), place, pinned=False)
        found.look()
        if found.card.complete:
            found.tables.restore(found.card.versions)
        found.tables.kept = found.list_kept()
        return found

    @property
    def full_text(self) -> FullText:
        """The full text of its tables."""
        return FullText(self.card.groups, self.card.analysis, self.card.langs)

    @property
    def is_outdated(self) -> bool:
        """Whether the card was written by someone else since it was read."""
        return self.place is not None and self.place.look(FILE) != self.seen

    @property
    def is_changed(self) -> bool:
        """Whether tables or search structures are others than those of the last complete edition."""
        card, last = self.card, self.card.last
        if last is None or self.tables.versions != last.versions:
            return True
        return (card.spaces, card.files) != (last.spaces, last.files)

    def look(self) -> None:
        """Take the card's file as it is for the one that was read."""
        self.seen = self.place and self.place.look(FILE)

    @property
    def folder(self) -> Path | None:
        """A directory for files of any size; None where there is none."""
        return self.place.folder if self.place else None

    def find_file(self, name: str) -> str:
        """The name under which a derived file lies."""
        return Path(self.card.files.get(name, name)).name  # a card may not lead out of the directory

    def name_file(self, name: str) -> str:
        """The name under which a derived file of the edition under way is to be written, which is that of no other."""
        stem, dot, ending = name.partition(".")
        self.card.files[name] = f"{stem}{MARK}{self.card.edition}{dot}{ending}"
        return self.card.files[name]

    def lock(self) -> AbstractContextManager[None]:
        """The right to write, for this process alone; `InputError` if another one has it."""
        return self.place.lock() if self.place else nullcontext()

    def save(self) -> None:
        """Write the card, that of a finished index with the checksums of all files.

        `InputError` if it cannot be written, a full disk included.
        """
        if self.folder is not None and self.card.complete:
            card, derived = self.card, [self.find_file(name) for name in self.card.files]
            card.checksums = list_checksums(self.folder, card.versions, derived, card.checksums)
        if self.place is not None:
            with self.place.write(FILE) as path:
                write_json(path, self.card.to_json())
            self.look()

    def set_grace(self, seconds: float) -> None:
        """Keep earlier editions for so long from now on."""
        if self.card.grace != seconds:
            with self.lock():
                found = self.open_to_write()
                for card in filter(None, (found.card, found.card.last, self.card)):
                    card.grace = seconds
                found.save()
                self.look()

    def begin_change(self) -> None:
        """Note on the card that the index is unfinished."""
        if self.card.complete:
            self.card.begin()
            self.save()

    def finish(self) -> None:
        """Say on the card that the edition is complete, and let go of earlier ones whose time is over."""
        card = self.card
        card.sign()
        if self.place is None:
            card.complete = True
            return
        versions = self.tables.versions
        card.finish(versions)
        self.save()
        self.finished = True
        self._sweep()
        self.tables.pin(versions)

    def _sweep(self) -> None:
        """Remove what only editions had that nobody need read any more, and what killed writers have left."""
        before, self.tables.kept = self.tables.kept, self.list_kept()
        if len(self.tables.kept) < len(before) + 1:
            self.tables.compact()
        self.tables.drop_unused()
        assert self.place is not None
        named = {name for each in self.card.list_kept(time.time()) for name in each.files} | set(
            self.card.files.values()
        )
        for name in self.place.list_names():
            if DERIVED.match(name) and name not in named:
                self.place.remove(name)

    def list_kept(self) -> list[Mapping[str, int]]:
        """The versions of the tables that may be read elsewhere."""
        card = self.card.readable
        return [card.versions, *(each.versions for each in self.card.list_kept(time.time()))]

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


def read_card(path: str | Path, place: FilePlace | None = None) -> Card:
    """The card of the index at `path`; `InputError` if it is missing, damaged or of a newer format."""
    file = f"{path}/{FILE}"
    try:
        if (place := place or find_place(path)) is None:
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
        gone = place is not None and place.folder is not None and not os.path.lexists(place.folder)
        lacks = "nothing is there" if gone else f"it has no {FILE}"
        raise InputError(f"{path} is not an index ({lacks}); make one with `crosslens index`") from None
    except OSError as error:
        raise InputError(f"cannot read {file}: {error.strerror}") from None
    except SpecMismatch:
        raise
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{file} is damaged ({error}); make the index again") from None


def list_encoders_of(path: str | Path) -> list[str]:
    """The SPECs of the encoders of the index at `path`; none where no index is. `InputError` as `read_card` has it."""
    place = find_place(path)
    return [space.spec.name for space in read_card(path, place).spaces] if place and place.has(FILE) else []


def _check_files(card: Card, place: FilePlace | None) -> Card:
    """The card, if the index's files are those that it names; else `InputError`."""
    if isinstance(place, FolderPlace):
        check_files(place.folder, card.checksums)
    return card


def _check_settings(path: str | Path, card: Card, wanted: Card) -> Card:
    for setting in ("kind", "name", "lexical"):
        here, asked = getattr(card, setting), getattr(wanted, setting)
        if here != asked and (setting != "name" or asked):
            what = "of the collection " if setting == "name" else f"with {setting}="
            raise InputError(
                f"{path} is an index {what}{here!r}, not {asked!r}; give another directory or the same settings"
            )
    here, asked = (str(each.passages.windows) if each.passages else "whole documents" for each in (card, wanted))
    if here != asked:
        raise InputError(f"{path} is an index of {here}, not of {asked}; give another directory or the same settings")
    return card
