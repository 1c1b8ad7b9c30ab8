"""Captioned pictures: Crossmodal-3600 (Thapliyal et al., EMNLP 2022) and XTD10 (Aggarwal and Kale, 2020)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

from ...errors import InputError, check_known, unknown_name
from ...files import read_lines
from ...items import Item
from ..languages import parse_language
from .files import DatasetFiles
from .published import PublishedCollection
from .records import parse_record, read_id, read_json_lines
from .topics import select_language

Direction = Literal["text-to-image", "image-to-text"]


class Caption(NamedTuple):
    """One caption of a picture."""

    id: str
    picture: str
    text: str
    lang: str


class _Captioned(PublishedCollection):
    """Pictures and their captions; either side is searched with the other, and every own caption is relevant."""

    _direction: Direction

    def _captions(self, langs: frozenset[str]) -> Iterator[tuple[str, Caption]]:
        raise NotImplementedError

    def _pictures(self) -> Iterator[tuple[str, str]]:
        raise NotImplementedError

    def _path(self, picture: str) -> Path:
        raise NotImplementedError

    def _doc_rows(self) -> Iterator[tuple[str, Any]]:
        return self._pictures() if self._direction == "text-to-image" else self._captions(self.langs)

    def _query_rows(self) -> Iterator[tuple[str, Any]]:
        return self._captions(self.langs) if self._direction == "text-to-image" else self._pictures()

    def _document(self, row: Any) -> Item:
        if isinstance(row, Caption):
            return Item(row.id, row.text, None, row.lang, {"picture": row.picture})
        return Item(row, None, self._path(row))

    _query = _document

    def _judged(self) -> dict[str, dict[str, int]]:
        judged: dict[str, dict[str, int]] = {}
        for _, caption in self._captions(self.langs):
            pair = (caption.id, caption.picture)
            query, doc = pair if self._direction == "text-to-image" else pair[::-1]
            judged.setdefault(query, {})[doc] = 1
        return judged

    def queries(self, **options: Any) -> list[Item]:
        """The captions, or the pictures, which have no language: `lang` then is an error that says so."""
        if self._direction == "image-to-text" and options.get("lang"):
            return select_language(options["lang"], [], f"the queries of {self.name} are pictures: none is")
        return super().queries(**options)


class Crossmodal3600(_Captioned):
    """`xm3600:DIR[?lang=zh,de][&direction=image-to-text]`: captions.jsonl and the pictures KEY.jpg, or images/KEY.jpg.

    A line is a picture: `image/key`, `image/locale`, and for each language a `caption` list. A caption's id is
    LANG-KEY-NUMBER. Without `lang` all 36 languages are taken.
    """

    usage = "write xm3600:DIR?lang=zh, where DIR holds captions.jsonl and images"

    def __init__(
        self, where: str, *, lang: str | None = None, direction: Direction = "text-to-image",
        sample: bool = False, skip_bad: bool = False,
    ) -> None:  # fmt: skip
        files = DatasetFiles(where, usage=self.usage)
        if files.root is None:
            raise InputError(f"Crossmodal-3600 is no data set of the hub: {self.usage}")
        self._file = files.one("captions.jsonl")
        wanted = frozenset(map(parse_language, lang.split(","))) if lang else None
        first = next(self._records(), None)
        if first is None:
            raise InputError(f"{self._file} is empty")
        self._keys = {
            parse_language(key): key
            for key, value in first[1].items()
            if isinstance(value, dict) and "caption" in value
        }
        if wanted is not None and (unknown := sorted(wanted - self._keys.keys())):
            raise unknown_name(unknown[0], tuple(self._keys), f"language of {self._file}")
        self._direction = direction
        name = f"xm3600-{direction}" + (f"-{'-'.join(sorted(wanted))}" if wanted else "")
        super().__init__(name, files, wanted or frozenset(self._keys), sample=sample, skip_bad=skip_bad)
        if direction == "text-to-image":
            self.published = {"": 3600}

    def _records(self) -> Iterator[tuple[str, dict[str, Any]]]:
        for place, line in read_json_lines(self._file):
            try:
                yield place, parse_record(line)
            except InputError as error:
                raise InputError(f"{place}: {error}") from None

    def _captions(self, langs: frozenset[str]) -> Iterator[tuple[str, Caption]]:
        for place, record in self._records():
            picture = _key(record, place)
            for lang in sorted(langs):
                held = record.get(self._keys[lang])
                texts = held.get("caption") if isinstance(held, dict) else None
                for number, text in enumerate(texts or []):
                    if not isinstance(text, str):
                        raise InputError(f"{place}: a caption must be text, not {type(text).__name__}")
                    if text.strip():
                        yield place, Caption(f"{lang}-{picture}-{number}", picture, text, lang)

    def _pictures(self) -> Iterator[tuple[str, str]]:
        return ((place, _key(record, place)) for place, record in self._records())

    def _path(self, picture: str) -> Path:
        for folder in (self._file.parent / "images", self._file.parent):
            path = (folder / f"{picture}.jpg").resolve()
            # A key is a name in the publisher's file: it may not lead out of the directory.
            if path.is_relative_to(self._file.parent.resolve()) and path.is_file():
                return path
        raise InputError(f"the picture {picture}.jpg is not in {self._file.parent / 'images'}")


class XTD10(_Captioned):
    """`xtd10:DIR?lang=it[&direction=image-to-text]`: the captions of adobe-research's repository, pictures of COCO.

    test_image_names.txt has one COCO file name a line, test_1kcaptions_LANG.txt (in XTD10, MIC or STAIR) the caption
    of the same line. The pictures lie in val2014, train2014 or images below DIR, as COCO gives them out.
    """

    usage = "write xtd10:DIR?lang=it, where DIR holds XTD10, MIC, STAIR and COCO's val2014"

    def __init__(
        self, where: str, *, lang: str, direction: Direction = "text-to-image", sample: bool = False,
        skip_bad: bool = False,
    ) -> None:  # fmt: skip
        files = DatasetFiles(where, usage=self.usage)
        if files.root is None:
            raise InputError(f"XTD10 is no data set of the hub: {self.usage}")
        code = "jpn" if lang == "jp" else parse_language(lang)
        # The publisher writes jp for Japanese.
        known = {
            "jpn" if short == "jp" else parse_language(short): path
            for path in files.any("*/test_1kcaptions_*.txt", "test_1kcaptions_*.txt")
            if (short := path.stem.rpartition("_")[2])
        }
        check_known(code, known, f"language of XTD10 in {where}")
        self._lines = known[code]
        self._names = files.one("test_image_names.txt")
        self._direction = direction
        super().__init__(
            f"xtd10-{code}-{direction}", files, frozenset([code]), sample=sample, skip_bad=skip_bad
        )
        self.published = {"" if direction == "text-to-image" else code: 1000}

    def _pictures(self) -> Iterator[tuple[str, str]]:
        for number, line in enumerate(read_lines(self._names), 1):
            yield f"{self._names}:{number}", line.strip()

    def _captions(self, langs: frozenset[str]) -> Iterator[tuple[str, Caption]]:
        (code,) = langs
        pictures = [picture for _, picture in self._pictures()]
        texts = [line.strip() for line in read_lines(self._lines)]
        if len(texts) != len(pictures):
            raise InputError(
                f"{self._lines} has {len(texts)} lines, but {self._names} has {len(pictures)}: they belong together"
            )
        for number, (picture, text) in enumerate(zip(pictures, texts, strict=True), 1):
            yield f"{self._lines}:{number}", Caption(f"{code}-{number}", picture, text, code)

    def _path(self, picture: str) -> Path:
        root = self.files.root
        assert root is not None
        for folder in ("val2014", "train2014", "images", "."):
            path = (root / folder / picture).resolve()
            if path.is_relative_to(root) and path.is_file():
                return path
        raise InputError(f"the picture {picture} is not in val2014, train2014 or images of {root}")


def _key(record: dict[str, Any], place: str) -> str:
    try:
        return read_id(record, "image/key")
    except InputError as error:
        raise InputError(f"{place}: {error}") from None
