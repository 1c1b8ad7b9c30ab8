"""The built-in collection `demo`: texts in 14 languages, photos from installed wheels, graded judgements.

Grades: 3 answers the query exactly or shows what it asks for; 1 is about, or shows, the same thing; else 0.
A query's own photo is never judged, as the asker already holds it: `Item.meta["photo"]` names it, so runs can
leave it out. The texts were written for this collection; licences of the photos are in `photos.toml`.
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from ..checkpoints.offline.packages import SourceFile
from ..errors import InputError
from ..items import Item
from ..multilingual.collections.base import CollectionCounts, check_collection
from ..multilingual.collections.topics import Source, select_language
from ..runs import read_qrels

HERE = Path(__file__).parent
REMEDY = "pip install 'crosslens[offline]' installs what is needed"
LANGS = frozenset(("ara", "deu", "eng", "fas", "fra", "hin", "jpn", "kor", "rus", "spa", "swa", "tha", "tur", "zho"))
COUNTS = {"texts": 117, "photos": 23, "queries": 76, "judgements": 410}


@dataclass(frozen=True, slots=True)
class Photo:
    """One picture by reference: `file` below the folder of the import package `package`, with its licence."""

    id: str
    package: str
    file: str
    sha256: str
    shows: str
    licence: str
    source: str
    stated_in: str

    def path(self) -> Path:
        """Where the picture lies on this machine; `InputError` if it is not there."""
        path = SourceFile(self.package, self.file, self.sha256).locate()
        if path is None:
            raise InputError(f"demo photo {self.id}: no file {self.file} of a package {self.package}; {REMEDY}")
        return path

    def check(self) -> None:
        """`InputError` unless the file is there and has the sha256 that the judgements were made on."""
        found = hashlib.sha256((path := self.path()).read_bytes()).hexdigest()
        if found != self.sha256:
            raise InputError(
                f"demo photo {self.id}: {path} is another picture "
                f"(sha256 {found[:12]}..., expected {self.sha256[:12]}...); {REMEDY}"
            )


@cache
def list_photos() -> tuple[Photo, ...]:
    """The photos of `photos.toml` with what each shows, its licence and source; reads no picture."""
    table = tomllib.loads((HERE / "photos.toml").read_text(encoding="utf-8"))
    return tuple(Photo(**row) for row in table["photo"])


class Demo:
    """The collection `demo`: a mixed pool of texts and photos; a query's `meta["kind"]` is one of four."""

    name = "demo"
    langs = LANGS

    def __init__(self, where: str = "") -> None:
        if where:
            raise InputError(f"the collection demo is built in: write demo, not demo:{where}")

    def docs(self) -> Iterator[Item]:
        """All texts (title, newline, text), then all photos (a path, no text and no language)."""
        for row in _read_rows("docs.jsonl"):
            text = f"{row['title']}\n{row['text']}"
            yield Item(row["id"], text=text, lang=row["lang"], meta={"title": row["title"]})
        for photo in list_photos():
            meta = {"shows": photo.shows, "licence": photo.licence, "source": photo.source}
            yield Item(photo.id, image=photo.path(), meta=meta)

    def queries(
        self, *, fields: str | None = None, lang: str | None = None, source: Source | None = None
    ) -> list[Item]:
        """The topics; `meta` holds `kind` and, where the query has a photo, its id as `photo`.

        `lang` keeps the queries in that language; the topics are flat, so `InputError` for `fields` or `source`.
        """
        if fields or source:
            raise InputError("the demo's topics are flat: they have no fields and one source")
        photos = {photo.id: photo for photo in list_photos()}
        found = []
        for row in _read_rows("topics.jsonl"):
            photo = photos[row["image"]] if row["image"] else None
            meta = {"kind": row["kind"]} | ({"photo": photo.id} if photo else {})
            image = photo.path() if photo else None
            found.append(Item(row["id"], text=row["text"], image=image, lang=row["lang"], meta=meta))
        return select_language(lang, found, "the demo has no queries")

    def qrels(self) -> dict[str, dict[str, int]]:
        """Query id -> document id -> grade 3 or 1."""
        return read_qrels(HERE / "qrels.txt")[0]

    def check(self) -> CollectionCounts:
        """The counts; `InputError` unless every count and every photo is as published."""
        counts = check_collection(self, "the collection demo")
        found = (counts.documents - counts.images, counts.images, counts.queries, counts.judged)
        for (what, expected), number in zip(COUNTS.items(), found, strict=True):
            if number != expected:
                raise InputError(f"demo collection: {number} {what} in {HERE}, expected {expected}; {REMEDY}")
        for photo in list_photos():
            photo.check()
        return replace(counts, langs={lang: number for lang, number in counts.langs.items() if lang})


def _read_rows(file: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (HERE / file).read_text(encoding="utf-8").splitlines()]
