"""Collection directories whose topics are split into a dev and a test half, written whole or not at all."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import TextIOWrapper
from pathlib import Path
from typing import Any, NamedTuple

from crosslens.errors import InputError
from crosslens.files import name_partial

HALVES = ("dev", "test")


class Judgement(NamedTuple):
    doc: str
    lang: str
    grade: int


@dataclass(frozen=True)
class Topic:
    """A topic of the flat form, and its judgements; topics of one `split_by` (else: of one id) share a half."""

    record: Mapping[str, Any]
    judgements: Sequence[Judgement]
    split_by: str = ""

    @property
    def id(self) -> str:
        return str(self.record["id"])

    @property
    def half(self) -> str:
        return half_of(self.split_by or self.id)


@contextmanager
def new_directory(path: Path) -> Iterator[Path]:
    """A directory to write into, which gets the name `path` when all is written.

    `InputError` where something is there already: what was measured on a collection may not change under
    its index and runs.
    """
    path = path.absolute()
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise InputError(f"{path} is there already; remove it or name another directory")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = name_partial(path)
        unfinished.mkdir()
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}") from None
    try:
        yield unfinished
        os.replace(unfinished, path)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def write_docs(root: Path, docs: Iterable[Mapping[str, Any]]) -> None:
    """`docs.jsonl.gz`, streamed; the same documents give the same bytes."""
    with (
        (root / "docs.jsonl.gz").open("wb") as file,
        gzip.GzipFile("", "wb", fileobj=file, mtime=0) as packed,
        TextIOWrapper(packed, "utf-8", newline="\n") as out,
    ):
        for doc in docs:
            out.write(json.dumps(doc, ensure_ascii=False) + "\n")


def write_topics(root: Path, topics: Sequence[Topic]) -> None:
    """`topics.jsonl` and `qrels.txt` (column 2: the document's language) of all topics and, below, of each half.

    A half is a collection of its own, with the same documents: a hard link where the file system has them.
    """
    parts = {root: list(topics), **{root / half: [t for t in topics if t.half == half] for half in HALVES}}
    for place, chosen in parts.items():
        place.mkdir(exist_ok=True)
        with (place / "topics.jsonl").open("w", encoding="utf-8", newline="\n") as out:
            for topic in chosen:
                out.write(json.dumps(topic.record, ensure_ascii=False) + "\n")
        with (place / "qrels.txt").open("w", encoding="utf-8", newline="\n") as out:
            for topic in chosen:
                for doc, lang, grade in sorted(topic.judgements):
                    out.write(f"{topic.id} {lang} {doc} {grade}\n")
        if place != root:
            try:
                os.link(root / "docs.jsonl.gz", place / "docs.jsonl.gz")
            except OSError:
                shutil.copyfile(root / "docs.jsonl.gz", place / "docs.jsonl.gz")


def half_of(id: str) -> str:
    """`dev` or `test`, by a hash of the id: the same whatever else is in the collection."""
    return HALVES[place_of(id)[0] % 2]


def sampled(topics: Sequence[Topic], most: int | None) -> list[Topic]:
    """At most `most` topics of each half, in the order of their ids; a smaller sample is part of a larger."""
    ordered = sorted(topics, key=lambda topic: place_of(topic.id))
    halves = [[topic for topic in ordered if topic.half == half][:most] for half in HALVES]
    return sorted((topic for half in halves for topic in half), key=lambda topic: topic.id)


def place_of(id: str) -> bytes:
    return hashlib.sha256(id.encode()).digest()
