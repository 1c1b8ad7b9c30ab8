"""Folders of pictures, text, Markdown, HTML and PDF files, mixed, with all folders in them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property, partial
from pathlib import Path
from typing import NoReturn

from ....errors import InputError
from ....items import Item
from ..base import CollectionCounts, DocumentsAlone, check_collection
from ..passed import PassedOver
from ..records import Rows
from .listing import (
    WRITTEN,
    FoundFile,
    find_file,
    find_suffix,
    list_document_endings,
    list_files,
    list_media_endings,
    show_name,
)  # fmt: skip
from .pdf import PdfPages, draw_page, open_pdf
from .texts import read_written_text

CAPTION = ".txt"


class Folder(DocumentsAlone):
    """`folder:WHERE[?pages=true]`, or just WHERE: a folder of files, each a document, and PDF files page by page.

    Taken are pictures (and files of other registered modalities), text, Markdown, HTML and PDF; WHERE may also be one
    such file. An id is the path below WHERE (`listing.write_id`), with `#3` the third page; the metadata have `name`,
    `folder`, `modified`, and `title` where there is one. NAME.txt beside a picture NAME.jpg is its caption. With
    `pages` a page is its picture, too. Hidden files, files of other types, empty ones and links out of WHERE are
    counted in `passed`.
    """

    usage = "write folder:WHERE, where WHERE is a folder of pictures, text, HTML or PDF files"
    taken = "a folder of pictures, text (.txt .md .html) and .pdf files, or one such file"

    def __init__(self, where: str | Path, *, pages: bool = False, skip_bad: bool = False) -> None:
        super().__init__(skip_bad=skip_bad)
        place = Path(where).resolve()
        if not place.exists():
            raise InputError(f"the folder {where} does not exist: {self.usage}")
        if not self.recognises(place):
            raise InputError(f"{where} is neither a folder nor a picture, text, HTML or PDF file: {self.usage}")
        self._where = place
        self.shown = f"the folder {place}"
        self._alone = not place.is_dir()
        self.root = place.parent if self._alone else place
        self.name = place.name
        self.pages = pages

    @staticmethod
    def recognises(path: Path) -> bool:
        return path.is_dir() or find_suffix(path.name) in list_document_endings()

    @cached_property
    def langs(self) -> frozenset[str]:
        """The languages that HTML files declare; reads all files once."""
        return frozenset(item.lang for item in self.docs() if item.lang)

    def document_rows(self) -> Rows:
        """What reads each document, with its place."""
        self.passed = PassedOver()
        found: Iterator[list[FoundFile | InputError]]
        found = (
            iter([[find_file(self._where)]])
            if self._alone
            else list_files(self.root, list_document_endings(), self.passed)
        )
        for files in found:
            yield from self._read_folder(files)

    def read_document(self, row: Callable[[], Item | None]) -> Item | None:
        return row()

    def check(self) -> CollectionCounts:
        """Read everything once and count it; `InputError` where there is nothing to read, which says what there is."""
        try:
            return check_collection(self, str(self._where))
        except InputError as error:
            if self.skipped or str(error) != f"{self._where} has no documents":
                raise
            seen = f"only {', '.join(self.passed.notes)}" if self.passed.notes else "nothing at all"
            raise InputError(
                f"nothing to read in {self._where}: {seen}; taken are pictures ({' '.join(list_media_endings())}), "
                f"text ({' '.join(WRITTEN)}) and .pdf, or a directory with docs.jsonl"
            ) from None

    def _read_folder(self, files: list[FoundFile | InputError]) -> Rows:
        media = list_media_endings()
        stems = {_stem(each.name) for each in files if isinstance(each, FoundFile) and each.suffix in media}
        captions = {
            _stem(each.name): each
            for each in files
            if isinstance(each, FoundFile) and each.name.endswith(CAPTION) and _stem(each.name) in stems
        }
        for file in files:
            if isinstance(file, InputError):
                yield str(self.root), partial(_refuse, file)
            elif file.suffix == ".pdf":
                yield from self._read_pages(file)
            elif file.suffix in media:
                yield str(file.path), partial(_read_medium, file, media[file.suffix], captions.get(_stem(file.name)))
            elif captions.get(_stem(file.name)) is not file:
                yield str(file.path), partial(self._read_written, file)

    def _read_written(self, file: FoundFile) -> Item | None:
        written = read_written_text(file)
        if not written.text or written.text.isspace():
            self.passed.empty += 1
            return None
        meta = file.describe() | ({"title": written.title} if written.title else {})
        return Item(file.id, written.text, None, written.lang, meta)

    def _read_pages(self, file: FoundFile) -> Rows:
        try:
            with open_pdf(file.path) as pages:
                for number in range(pages.count):
                    yield f"{file.path}: page {number + 1}", partial(self._read_page, file, pages, number)
        except InputError as error:
            yield str(file.path), partial(_refuse, error)

    def _read_page(self, file: FoundFile, pages: PdfPages, number: int) -> Item | None:
        text = pages.read_text(number)
        if not text and not self.pages:
            self.passed.pictured += 1
            return None
        key = f"{show_name(str(file.path))}|{file.size}|{file.modified}"
        image = draw_page(file.path, number, key) if self.pages else None
        meta = file.describe() | {"page": number + 1, "pages": pages.count}
        if pages.title:
            meta["title"] = pages.title
        return Item(f"{file.id}#{number + 1}", text or None, image, None, meta)


def _read_medium(file: FoundFile, medium: str, caption: FoundFile | None) -> Item:
    if show_name(str(file.path)) != str(file.path):  # the index, which keeps the path, has UTF-8 alone
        raise InputError("its name or that of a folder is not UTF-8: rename it")
    text = None
    if caption is not None:
        try:
            text = read_written_text(caption).text or None
        except InputError as error:
            raise InputError(f"its caption {caption.path}: {error}") from None
    held = {medium: file.path}
    return Item(file.id, text, held.pop("image", None), None, file.describe(), held)


def _stem(name: str) -> str:
    return name.rpartition(".")[0]


def _refuse(error: InputError) -> NoReturn:
    raise error
