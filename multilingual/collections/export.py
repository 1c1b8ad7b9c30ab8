"""Writes any collection as a directory of files: the directory format, or BEIR's."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from ...errors import InputError, check_known
from ...files import name_partial
from ...items import Item
from ...media.modalities import to_file
from ...pipeline import advance
from ...rows.fields import FileRow
from ...runs import Qrels
from .base import Collection, MediaCounts, MissingPart
from .records import to_json_line
from .topics import Source

ExportFormat = Literal["directory", "beir"]
PER_FOLDER = 1000  # pictures a folder


@dataclass(frozen=True)
class ExportCounts(MediaCounts):
    """What was written, `media` by their modalities; `queries` and `judged` are 0 where the collection has none."""

    documents: int
    media: Mapping[str, int]
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
) -> ExportCounts:
    """Write a collection into a new directory, streaming; it appears under its name only when it is complete.

    `directory`: docs.jsonl, topics.jsonl (flat, in the wording that `fields`, `lang` and `source` choose) and
    qrels.txt, with the documents' languages in column 2 where they are known. `beir`: corpus.jsonl, queries.jsonl
    and qrels/SPLIT.tsv; language and media go to `metadata`. Pictures are copied into images/, other media alike, with
    ids kept. A title that the text does not begin with is left out, as readers would put it there. `InputError` on a
    directory that is not empty, and on a document whose metadata is not JSON. `pipeline.advance` counts the documents.
    """
    check_known(format, get_args(ExportFormat), "export format")
    beir = format == "beir"
    with _new_directory(Path(directory)) as root:
        judged: Qrels = {}
        with suppress(MissingPart):
            judged = collection.qrels()
        wanted = {doc for grades in judged.values() for doc in grades}
        langs: dict[str, str] = {}
        writer = ItemWriter(root, beir)

        def watched() -> Iterator[Item]:
            for item in collection.docs():
                if item.lang and item.id in wanted:
                    langs[item.id] = item.lang
                yield item
                advance()

        documents = writer.write("corpus.jsonl" if beir else "docs.jsonl", watched(), "document")
        if not documents:
            raise InputError(f"{collection.name} has no documents to export")
        queries: list[Item] = []
        with suppress(MissingPart):
            queries = list(collection.queries(fields=fields, lang=lang, source=source))
        if queries:
            writer.write("queries.jsonl" if beir else "topics.jsonl", queries, "query")
        # Judgements of topics that were not chosen would be judgements of nothing.
        kept = [(query.id, *pair) for query in queries for pair in judged.get(query.id, {}).items()]
        if kept:
            path = root / (f"qrels/{split}.tsv" if beir else "qrels.txt")
            path.parent.mkdir(exist_ok=True)
            if beir:
                rows = ["\t".join(map(str, row)) + "\n" for row in (("query-id", "corpus-id", "score"), *kept)]
            else:
                rows = [f"{query} {langs.get(doc, '0')} {doc} {grade}\n" for query, doc, grade in kept]
            path.write_text("".join(rows), "utf-8", newline="\n")
        return ExportCounts(documents, dict(writer.media), len(queries), len(kept))


class ItemWriter:
    """Writes items as lines of JSON, and copies media into numbered files: an id could hold anything, also `../`."""

    def __init__(self, root: Path, beir: bool) -> None:
        self.root, self.beir = root, beir
        self.media: Counter[str] = Counter()

    def write(self, name: str, items: Iterable[Item], what: str) -> int:
        """How many items were written."""
        with (self.root / name).open("w", encoding="utf-8", newline="\n") as out:
            return sum(1 for item in items if out.write(self.make_line(item, what)))

    def make_line(self, item: Item, what: str) -> str:
        """The line of an item, its media copied; `what` it is stands in the error for what cannot be written."""
        media = {
            name: self._copy(name, value, f"{what} {item.id!r}")
            for name, value in item.contents.items()
            if value is not None
        }
        return to_json_line(item.id, _make_record(item, media, self.beir, what))

    def _copy(self, name: str, value: object, label: str) -> str:
        """The path of the copy, relative to the directory."""
        content, suffix = to_file(name, value, label)
        number = self.media[name]
        path = f"{name}s/{number // PER_FOLDER:03d}/{number:06d}{suffix}"
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path).write_bytes(content)
        self.media[name] += 1
        return path


def _make_record(item: Item, media: Mapping[str, str], beir: bool, what: str) -> dict[str, Any]:
    meta = FileRow(item.meta).read_meta()
    title, text = meta.pop("title", None), item.text
    if what == "query":  # whose title is a wording of its own, which no reader joins with the text
        meta |= {} if title is None else {"title": title}
        title = None
    elif isinstance(title, str) and title.strip() and text and f"{text}\n".startswith(f"{title}\n"):
        text = text[len(title) + 1 :]
    else:
        title = None
    others = {**media, **({"lang": item.lang} if item.lang else {}), **meta}
    if beir:
        return {"_id": item.id, "title": title or "", "text": text or "", "metadata": others}
    texts = {key: value for key, value in (("title", title), ("text", text)) if value}
    return {"id": item.id, **texts, **others}


@contextmanager
def _new_directory(directory: Path) -> Iterator[Path]:
    """A directory that takes its name when it is complete, and leaves nothing behind when it is not."""
    target = Path(os.path.realpath(directory))
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise InputError(f"{directory} is there already and not an empty directory: name a new one")
    if not directory.parent.is_dir():
        raise InputError(f"there is no directory {directory.parent} to make {directory.name} in")
    partial = name_partial(target)
    try:
        partial.mkdir()
        try:
            yield partial
            os.replace(partial, target)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    except OSError as error:
        raise InputError(f"cannot write {directory}: {error.strerror or error}") from None
