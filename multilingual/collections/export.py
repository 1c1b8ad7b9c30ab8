"""Writes any collection as a directory of files: the directory format, or BEIR's."""

from __future__ import annotations

import io
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from ...errors import InputError, check_known
from ...items import Item
from .base import Collection, MissingPart
from .topics import Source

ExportFormat = Literal["directory", "beir"]
PER_FOLDER = 1000  # pictures a folder


@dataclass(frozen=True)
class ExportCounts:
    """What was written; `queries` and `judged` are 0 where the collection has none."""

    documents: int
    images: int
    queries: int
    judged: int


def export_collection(
    collection: Collection,
    directory: str | Path,
    format: ExportFormat = "directory",
    *,
    fields: str | None = None,
    lang: str | None = None,
    source: Source | None = None,
    split: str = "test",
    progress: Callable[[int], None] | None = None,
) -> ExportCounts:
    """Write a collection into a new directory, streaming; it appears under its name only when it is complete.

    `directory`: docs.jsonl, topics.jsonl (flat, in the wording that `fields`, `lang` and `source` choose) and
    qrels.txt, with the documents' languages in column 2 where they are known. `beir`: corpus.jsonl, queries.jsonl
    and qrels/SPLIT.tsv; language and picture go to `metadata`. Pictures are copied into images/, with ids kept. A
    title that the text does not begin with is left out, as readers would put it there. `InputError` on a directory
    that is not empty, and on a document whose metadata is not JSON.
    """
    check_known(format, get_args(ExportFormat), "export format")
    beir = format == "beir"
    record = _beir if beir else _flat
    with _appearing(Path(directory)) as root:
        pictures = _Pictures(root)
        langs: dict[str, str] = {}
        judged = _or_none(collection.qrels) or {}
        wanted = {doc for grades in judged.values() for doc in grades}
        documents = 0
        with (root / ("corpus.jsonl" if beir else "docs.jsonl")).open(
            "w", encoding="utf-8", newline="\n"
        ) as out:
            for item in collection.docs():
                if item.lang and item.id in wanted:
                    langs[item.id] = item.lang
                out.write(_line(record(item, pictures.copied(item, "document"))))
                documents += 1
                if progress is not None and documents % 100 == 0:
                    progress(documents)
        if not documents:
            raise InputError(f"{collection.name} has no documents to export")
        queries = list(_or_none(lambda: collection.queries(fields=fields, lang=lang, source=source)) or [])
        if queries:
            name = "queries.jsonl" if beir else "topics.jsonl"
            with (root / name).open("w", encoding="utf-8", newline="\n") as out:
                for query in queries:
                    out.write(_line(record(query, pictures.copied(query, "query"))))
        # Judgements of topics that were not chosen would be judgements of nothing.
        kept = {query.id: judged[query.id] for query in queries if query.id in judged}
        if kept:
            (_write_tsv(root, kept, split) if beir else _write_qrels(root, kept, langs))
        return ExportCounts(documents, pictures.count, len(queries), sum(map(len, kept.values())))


class _Pictures:
    """Copies pictures into numbered files: an id could hold anything, also `../`."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.count = 0

    def copied(self, item: Item, what: str) -> str | None:
        """The picture's path relative to the directory; None if the item has none."""
        if item.image is None:
            return None
        from ...media.images import image_bytes

        content = image_bytes(item.image, name=f"{what} {item.id!r}")
        path = f"images/{self.count // PER_FOLDER:03d}/{self.count:06d}{_suffix(content, what, item.id)}"
        (self._root / path).parent.mkdir(parents=True, exist_ok=True)
        (self._root / path).write_bytes(content)
        self.count += 1
        return path


def _suffix(content: bytes, what: str, id: str) -> str:
    from PIL import Image, UnidentifiedImageError

    from ...media.images import FORMATS

    try:
        # Reads the header only; what is no picture of a known format is not worth carrying along.
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            kind = (image.format or "").lower()
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        raise InputError(f"{what} {id!r}: not a picture in a known format") from None
    return {"jpeg": ".jpg", "mpo": ".jpg", "tiff": ".tif"}.get(kind, f".{kind}")


def _split_title(item: Item) -> tuple[str | None, str | None, dict[str, object]]:
    """Title, the rest of the text, the other metadata."""
    meta = {key: value for key, value in item.meta.items() if key not in ("id", "text", "image", "lang")}
    title = meta.pop("title", None)
    if isinstance(title, str) and title.strip() and item.text is not None:
        if item.text == title:
            return title, None, meta
        if item.text.startswith(f"{title}\n"):
            return title, item.text[len(title) + 1 :], meta
    return None, item.text, meta


def _flat(item: Item, image: str | None) -> dict[str, Any]:
    title, text, meta = _split_title(item)
    held = {"id": item.id, "title": title, "text": text, "image": image, "lang": item.lang, **meta}
    return {key: value for key, value in held.items() if value is not None}


def _beir(item: Item, image: str | None) -> dict[str, Any]:
    title, text, meta = _split_title(item)
    metadata = {"lang": item.lang, "image": image, **meta}
    return {
        "_id": item.id,
        "title": title or "",
        "text": text or "",
        "metadata": {key: value for key, value in metadata.items() if value is not None},
    }


def _line(record: Mapping[str, Any]) -> str:
    try:
        line = json.dumps(record, ensure_ascii=False, allow_nan=False)
        line.encode("utf-8")
    except (TypeError, ValueError) as error:
        id = record.get("id", record.get("_id"))
        raise InputError(f"{id!r} cannot be written as JSON: {error}") from None
    return line + "\n"


def _write_qrels(root: Path, judged: Mapping[str, Mapping[str, int]], langs: Mapping[str, str]) -> None:
    with (root / "qrels.txt").open("w", encoding="utf-8", newline="\n") as out:
        for topic, grades in judged.items():
            for doc, grade in grades.items():
                out.write(f"{topic} {langs.get(doc, '0')} {doc} {grade}\n")


def _write_tsv(root: Path, judged: Mapping[str, Mapping[str, int]], split: str) -> None:
    (root / "qrels").mkdir()
    with (root / "qrels" / f"{split}.tsv").open("w", encoding="utf-8", newline="\n") as out:
        out.write("query-id\tcorpus-id\tscore\n")
        for topic, grades in judged.items():
            for doc, grade in grades.items():
                out.write(f"{topic}\t{doc}\t{grade}\n")


def _or_none(ask: Callable[[], Any]) -> Any:
    try:
        return ask()
    except MissingPart:
        return None


@contextmanager
def _appearing(directory: Path) -> Iterator[Path]:
    """A directory that takes its name when it is complete, and leaves nothing behind when it is not."""
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise InputError(f"{directory} is there already and not an empty directory: name a new one")
    if not directory.parent.is_dir():
        raise InputError(f"there is no directory {directory.parent} to make {directory.name} in")
    partial = directory.with_name(f".{directory.name}.{os.getpid()}.partial")
    try:
        partial.mkdir()
        yield partial
        os.replace(partial, directory)
    except OSError as error:
        raise InputError(f"cannot write {directory}: {error.strerror or error}") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
