"""Pages of PDF files, by PDFium: their text, and what they look like."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from threading import RLock
from typing import Any

from ....errors import InputError, UnreadableItem, first_line
from ....files import check_file
from ....media.drawing import Drawing
from ....media.images import MAX_PIXELS, encode_png

SHARPEST = 2.0  # pixels to a point (1/72 inch): 144 dpi
_ONE = RLock()  # PDFium may be called by one thread at a time
_BROKEN = re.compile("[\x02\ufffe]\r?\n?")  # as PDFium writes the hyphen of a word that a line end divides


@contextmanager
def open_pdf(path: Path) -> Iterator[PdfPages]:
    """The pages of a PDF file; `InputError` if it is damaged or encrypted."""
    import pypdfium2

    check_file(path)
    with _ONE:
        try:
            document = pypdfium2.PdfDocument(path)
        except pypdfium2.PdfiumError as error:
            if "password" in str(error).lower():
                raise InputError("encrypted: save it without its password first") from None
            raise InputError(f"a damaged PDF file ({first_line(error).rstrip('.')}): replace it") from None
    try:
        yield PdfPages(path, document)
    finally:
        with _ONE:
            document.close()


class PdfPages:
    """The pages of an open PDF file, from 0."""

    def __init__(self, path: Path, document: Any) -> None:
        self.path = path
        self._document = document
        with _ONE:
            self.count = len(document)
            try:
                self.title = " ".join(document.get_metadata_value("Title").split())
            except UnicodeDecodeError:  # it has half of a surrogate pair
                self.title = ""

    def read_text(self, number: int) -> str:
        """The text of a page, empty where it has none; `InputError` on a damaged page."""
        with self._open(number) as page, closing(page.get_textpage()) as text:
            found = _BROKEN.sub("", text.get_text_bounded())
        return "\n".join(line.strip() for line in found.replace("\0", "").splitlines()).strip()

    def draw(self, number: int) -> bytes:
        """A page as PNG of at most `MAX_PIXELS`; `InputError` on a damaged page."""
        with self._open(number) as page:
            width, height = (max(side, 1.0) for side in page.get_size())
            scale = min(SHARPEST, math.sqrt(MAX_PIXELS / (width * height)), MAX_PIXELS / max(width, height))
            with closing(page.render(scale=scale)) as bitmap:
                return encode_png(bitmap.to_pil())

    @contextmanager
    def _open(self, number: int) -> Iterator[Any]:
        import pypdfium2

        with _ONE:
            try:
                with closing(self._document[number]) as page:
                    yield page
            except pypdfium2.PdfiumError as error:
                raise InputError(f"page {number + 1} is damaged ({first_line(error)})") from None


def draw_page(path: Path, number: int, key: str) -> Drawing:
    """A page of a PDF file, from 0, drawn when it is needed; `key` stands for the file as it is."""
    return Drawing(f"{key}#{number}", partial(_draw_page, path, number))


def _draw_page(path: Path, number: int) -> bytes:
    try:
        with open_pdf(path) as pages:
            return pages.draw(number)
    except InputError as error:
        raise UnreadableItem(f"{path}: {error}") from None
