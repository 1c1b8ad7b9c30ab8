"""Captioned pictures: what Crossmodal-3600 and XTD10 share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

from ...errors import InputError
from ...items import Item
from .published import PublishedCollection
from .records import Rows
from .topics import select_language

Direction = Literal["text-to-image", "image-to-text"]


class Caption(NamedTuple):
    """One caption of a picture."""

    id: str
    picture: str
    text: str
    lang: str


class CaptionedPictures(PublishedCollection):
    """Pictures and their captions; either side is searched with the other, and every own caption is relevant.

    A family sets `direction` and `root`, the directory that pictures may not lie outside of.
    """

    folders: ClassVar[tuple[str, ...]]  # where pictures lie below `root`
    suffix: ClassVar[str] = ""  # what their names lack
    direction: Direction
    root: Path

    def read_pictures(self) -> Iterator[tuple[str, str, list[Caption]]]:
        """The place, the name and the captions of every picture."""
        raise NotImplementedError

    def document_rows(self) -> Rows:
        return self._read_rows(self.direction == "image-to-text")

    def query_rows(self) -> Rows:
        return self._read_rows(self.direction == "text-to-image")

    def read_document(self, row: Any) -> Item:
        if isinstance(row, Caption):
            return Item(row.id, row.text, None, row.lang, {"picture": row.picture})
        return Item(row, None, self._find_picture(row))

    read_query = read_document

    def queries(self, **options: Any) -> list[Item]:
        """The captions, or the pictures, which have no language: `lang` then is an error that says so."""
        if self.direction == "image-to-text" and options.get("lang"):
            return select_language(options["lang"], [], f"the queries of {self.name} are pictures: none is")
        return super().queries(**options)

    def published_qrels(self) -> dict[str, dict[str, int]]:
        judged: dict[str, dict[str, int]] = {}
        for _, caption in self._read_rows(captions=True):
            pair = (caption.id, caption.picture)
            query, doc = pair if self.direction == "text-to-image" else pair[::-1]
            judged.setdefault(query, {})[doc] = 1
        return judged

    def _read_rows(self, captions: bool) -> Rows:
        """The names of pictures, or their captions."""
        for place, picture, own in self.read_pictures():
            yield from ((place, each) for each in (own if captions else (picture,)))

    def _find_picture(self, picture: str) -> Path:
        for folder in self.folders:
            path = (self.root / folder / f"{picture}{self.suffix}").resolve()
            # The name comes from the publisher's file: it may not lead out of the directory.
            if path.is_relative_to(self.root) and path.is_file():
                return path
        where = ", ".join(folder for folder in self.folders if folder)
        raise InputError(f"the picture {picture}{self.suffix} is not in {where} of {self.root}")
