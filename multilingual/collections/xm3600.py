"""Crossmodal-3600 (Thapliyal et al., EMNLP 2022): 3,600 pictures with captions in 36 languages."""

from __future__ import annotations

from collections.abc import Iterator

from ...errors import InputError, check_known
from ..languages import parse_language
from .captions import Caption, CaptionedPictures, Direction
from .published import Reading
from .records import FileRow, read_json_lines


class Crossmodal3600(CaptionedPictures):
    """`xm3600:DIR[?lang=zh,de][&direction=image-to-text]`: captions.jsonl and the pictures KEY.jpg, or images/KEY.jpg.

    A line is a picture: `image/key`, `image/locale`, and for each language a `caption` list. A caption's id is
    LANG-KEY-NUMBER. Without `lang` all 36 languages are taken.
    """

    usage = "write xm3600:DIR?lang=zh, where DIR holds captions.jsonl and images"
    not_on_hub = "Crossmodal-3600 is no data set of the hub"
    folders = ("images", "")
    suffix = ".jpg"

    def __init__(
        self, where: str, *, reading: Reading, lang: str | None = None, direction: Direction = "text-to-image"
    ) -> None:
        super().__init__(where, reading)
        self.direction = direction
        self._file = self.files.get_one("captions.jsonl")
        self.root = self._file.parent.resolve()
        first = next(read_json_lines(self._file), None)
        if first is None:
            raise InputError(f"{self._file} is empty")
        self._keys = {
            parse_language(key): key
            for key, value in FileRow.parse(first[1]).items()
            if isinstance(value, dict) and "caption" in value
        }
        wanted = frozenset(map(parse_language, lang.split(","))) if lang else frozenset()
        for code in sorted(wanted):
            check_known(code, self._keys, f"language of {self._file}")
        self.langs = wanted or frozenset(self._keys)
        self.name = "-".join((f"xm3600-{direction}", *sorted(wanted)))
        if direction == "text-to-image":
            self.published = {"": 3600}

    def read_pictures(self) -> Iterator[tuple[str, str, list[Caption]]]:
        for place, line in read_json_lines(self._file):
            try:
                record = FileRow.parse(line)
                picture = record.read_id("image/key")
                yield place, picture, list(self._read_captions(picture, record))
            except InputError as error:
                raise InputError(f"{place}: {error}") from None

    def _read_captions(self, picture: str, record: FileRow) -> Iterator[Caption]:
        for lang in sorted(self.langs):
            held = record.get(self._keys[lang])
            texts = held.get("caption") if isinstance(held, dict) else None
            for number, text in enumerate(texts or []):
                if not isinstance(text, str):
                    raise InputError(f"a caption must be text, not {type(text).__name__}")
                if text.strip():
                    yield Caption(f"{lang}-{picture}-{number}", picture, text, lang)
