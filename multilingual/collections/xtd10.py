"""XTD10 (Aggarwal and Kale, 2020): 1,000 pictures of COCO, captioned in 11 languages."""

from __future__ import annotations

from collections.abc import Iterator

from ...errors import InputError, check_known
from ...files import read_lines
from ..languages import parse_language
from .captions import Caption, CaptionedPictures, Direction
from .published import Reading


class XTD10(CaptionedPictures):
    """`xtd10:DIR?lang=it[&direction=image-to-text]`: the captions of adobe-research's repository, pictures of COCO.

    test_image_names.txt has one COCO file name a line, test_1kcaptions_LANG.txt (in XTD10, MIC or STAIR) the caption
    of the same line. The pictures lie in val2014, train2014 or images below DIR, as COCO gives them out.
    """

    usage = "write xtd10:DIR?lang=it, where DIR holds XTD10, MIC, STAIR and COCO's val2014"
    not_on_hub = "XTD10 is no data set of the hub"
    folders = ("val2014", "train2014", "images", "")

    def __init__(self, where: str, *, reading: Reading, lang: str, direction: Direction = "text-to-image") -> None:
        super().__init__(where, reading)
        self.direction = direction
        self.root = self.files.directory
        known = {
            _parse_code(path.stem.rpartition("_")[2]): path
            for path in self.files.find("*/test_1kcaptions_*.txt", "test_1kcaptions_*.txt")
        }
        self._code = _parse_code(lang)
        check_known(self._code, known, f"language of XTD10 in {where}")
        self._lines = known[self._code]
        self._names = self.files.get_one("test_image_names.txt")
        self.name = f"xtd10-{self._code}-{direction}"
        self.langs = frozenset([self._code])
        self.published = {"" if direction == "text-to-image" else self._code: 1000}

    def read_pictures(self) -> Iterator[tuple[str, str, list[Caption]]]:
        pictures, texts = ([line.strip() for line in read_lines(path)] for path in (self._names, self._lines))
        if len(texts) != len(pictures):
            raise InputError(
                f"{self._lines} has {len(texts)} lines, but {self._names} has {len(pictures)}: they belong together"
            )
        for number, (picture, text) in enumerate(zip(pictures, texts, strict=True), 1):
            caption = Caption(f"{self._code}-{number}", picture, text, self._code)
            yield f"{self._lines}:{number}", picture, [caption]


def _parse_code(lang: str) -> str:
    return "jpn" if lang == "jp" else parse_language(lang)  # the publisher writes jp for Japanese
