"""Collections with pictures: captioned ones (Crossmodal-3600, XTD10), pages (ViDoRe), and all kinds mixed (M-BEIR)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

from ...errors import InputError, check_known
from ...files import find_fault, read_lines
from ...items import Item
from ...rows.fields import FileRow, make_item
from ..languages import parse_language
from .published import PublishedCollection, Reading, read_judgements, read_parquet, read_rows, read_table
from .records import Rows, read_json_lines
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
            path = Path(os.path.realpath(self.root / folder / f"{picture}{self.suffix}"))
            # The name comes from the publisher's file: it may not lead out of the directory.
            if path.is_relative_to(self.root) and not find_fault(path):
                return path
        where = ", ".join(folder for folder in self.folders if folder)
        raise InputError(f"the picture {picture}{self.suffix} is not in {where} of {self.root}")


class Crossmodal3600(CaptionedPictures):
    """`xm3600:DIR[?lang=zh,de][&direction=image-to-text]`: captions.jsonl and the pictures KEY.jpg, or images/KEY.jpg.

    Thapliyal et al., EMNLP 2022: 3,600 pictures with captions in 36 languages. A line is a picture: `image/key`,
    `image/locale`, and for each language a `caption` list. A caption's id is LANG-KEY-NUMBER. Without `lang` all 36
    languages are taken.
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


class XTD10(CaptionedPictures):
    """`xtd10:DIR?lang=it[&direction=image-to-text]`: the captions of adobe-research's repository, pictures of COCO.

    Aggarwal and Kale, 2020: 1,000 pictures in 11 languages. test_image_names.txt has one COCO file name a line,
    test_1kcaptions_LANG.txt (in XTD10, MIC or STAIR) the caption of the same line. The pictures lie in val2014,
    train2014 or images below DIR, as COCO gives them out.
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


class ViDoRe(PublishedCollection):
    """`vidore:vidore/esg_reports_v2` or `vidore:DIR[?text=true]`: pages (Faysse et al., ICLR 2025; versions 2 and 3).

    One data set in its BEIR-like Parquet form: folders corpus (`corpus-id, image, doc-id`), queries (`query-id, query,
    language`) and qrels (`query-id, corpus-id, score`), each with SPLIT-*.parquet; version 3 writes the keys with `_`
    and has each page's `markdown` too, which `text` adds to the picture. Pictures are bytes inside the files and
    decoded only when encoded. The question-answering form of version 1 (one table, no folders) is not read: take the
    data sets named `..._beir`.
    """

    usage = "write vidore:OWNER/NAME or vidore:DIR, where DIR holds corpus, queries and qrels"

    def __init__(self, where: str, *, reading: Reading, split: str = "test", text: bool = False) -> None:
        super().__init__(where, reading)
        self.name = self.files.root.name if self.files.root else where.rpartition("/")[2]
        self.langs = frozenset()
        self.split, self._text = split, text

    def document_rows(self) -> Rows:
        return self._read("corpus")

    def read_document(self, row: FileRow) -> Item:
        image = row.get("image")
        picture = image.get("bytes") if isinstance(image, dict) else None
        if not isinstance(picture, bytes):
            raise InputError(f"page {row.get('corpus_id')!r} has no picture")
        text = row.read_text("markdown") if self._text else None
        meta = {key: row[key] for key in ("doc_id", "page_number_in_doc") if row.get(key) is not None}
        return Item(row.read_id("corpus_id"), text or None, picture, None, meta)

    def query_rows(self) -> Rows:
        return self._read("queries")

    def read_query(self, row: FileRow) -> Item:
        id, lang = row.read_id("query_id"), row.read_text("language")
        text = row.require_text("query", "query", id, "text")
        return Item(id, text, None, parse_language(lang) if lang else None)

    def published_qrels(self) -> dict[str, dict[str, int]]:
        return read_judgements(self._read("qrels"), "query_id", "corpus_id", "score")

    def _read(self, folder: str) -> Rows:
        for place, row in read_parquet(self.files.get_all(f"{folder}/{self.split}-*.parquet"), batch=16):
            yield place, FileRow({key.replace("-", "_"): value for key, value in row.items()})


class MBeir(PublishedCollection):
    """`mbeir:DIR?task=mscoco_task0[&split=test][&pool=global]`: texts, pictures and both (Wei et al., ECCV 2024).

    The files of TIGER-Lab/M-BEIR, pictures unpacked: queries `{"qid", "query_txt", "query_img_path", "query_modality",
    ...}` in query/SPLIT/mbeir_TASK_SPLIT.jsonl, candidates `{"did", "txt", "img_path", "modality", ...}` in cand_pool,
    judgements `qid 0 did grade task` in qrels. Paths of pictures are relative to DIR and may not leave it. The
    benchmark's instructions are not put before the queries: an encoder has its own.
    """

    usage = "write mbeir:DIR?task=mscoco_task0, where DIR holds query, cand_pool, qrels and mbeir_images"
    not_on_hub = "M-BEIR's pictures come as one archive of many parts, download it first"

    def __init__(
        self, where: str, *, reading: Reading, task: str, split: Literal["train", "val", "test"] = "test",
        pool: Literal["local", "global"] = "local",
    ) -> None:  # fmt: skip
        super().__init__(where, reading)
        self.name = f"mbeir-{task}-{split}" + ("-global" if pool == "global" else "")
        self.langs = frozenset(["eng"])
        stems = (
            (f"global/mbeir_union_{split}",)
            if pool == "global"
            else (f"local/mbeir_{task}_{split}", f"local/mbeir_{task}")
        )
        self.doc_files = tuple(f"cand_pool/{stem}_cand_pool.jsonl" for stem in stems)
        self.topic_files = (f"query/{split}/mbeir_{task}_{split}.jsonl",)
        self.qrels_files = (f"qrels/{split}/mbeir_{task}_{split}_qrels.txt",)

    def document_rows(self) -> Rows:
        return read_rows([self.files.get_one(*self.doc_files)])

    def read_document(self, record: FileRow) -> Item:
        return self._read_item(record, "did", "txt", "img_path", "candidate")

    def read_query(self, record: FileRow) -> Item:
        return self._read_item(record, "qid", "query_txt", "query_img_path", "query")

    def published_qrels(self) -> dict[str, dict[str, int]]:
        columns = ("qid", "0", "did", "grade", "task")
        rows = read_table(self.files.get_one(*self.qrels_files), columns, tabs=False)
        return read_judgements(rows, "qid", "did", "grade")

    def _read_item(self, record: FileRow, id: str, text: str, image: str, what: str) -> Item:
        words = record.read_text(text) or None
        media = {"image": record.read_path(image, self.files.directory, "image")}
        return make_item(what, record.read_id(id), words, media, "eng" if words else None, {})
