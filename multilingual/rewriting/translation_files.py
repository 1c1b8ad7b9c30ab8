"""A collection's documents or topics translated into a file of the collection's own form; killed, it goes on."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from ...errors import InputError, check_known
from ...files import write_atomically
from ...items import Item, SeenIds
from ..collections.base import Collection
from ..collections.records import FileRow, read_json_lines
from ..collections.topics import FIELDS
from .translation import Translate, Translation, translations

What = Literal["documents", "queries"]

WINDOW = 256  # items translated at once, where they are short
_FAULTS = {
    "untranslated": "stay as they are: the translator had no words for them",
    "untranslated_parts": "parts (a title, a text) stay as they are",
    "untranslated_pieces": "sentences inside of texts stay as they are",
    "unknown_language": "pieces are in no language that could be told",
    "cut_answers": "translations found no end and were cut",
    "split_sentences": "sentences were too long for the translator and cut in the middle",
    "empty": "answers were empty",
    "unreadable": "answers could not be read",
    "without_picture": "lost their picture, which does not lie beside the file",
    "left_out": "have neither text nor a picture beside the file, and were left out",
    "source_replaced": "had a `source` of their own, which the original language took the place of",
}


@dataclass(frozen=True)
class TranslationReport:
    """What was written: `lines` in all, `resumed` of them by earlier sessions; `counts` over all sessions."""

    output: Path
    what: What
    stage: Translate
    lines: int
    resumed: int
    counts: Mapping[str, int]
    seconds: float

    def to_json(self) -> dict[str, Any]:
        return {
            "output": str(self.output), "what": self.what, "to": self.stage.to, "models": dict(self.stage.models),
            "lines": self.lines, "resumed": self.resumed, "counts": dict(self.counts), "seconds": self.seconds,
        }  # fmt: skip

    def __str__(self) -> str:
        return (
            f"{self.output}: {self.lines} {self.what} ({self.lines - self.resumed} new, "
            f"{self.counts.get('translated', 0)} translated into {self.stage.to}) in {self.seconds:.1f} s"
        )

    @property
    def notes(self) -> list[str]:
        """What people should know of how it went, a line each."""
        return [f"{self.counts[kind]} {told}" for kind, told in _FAULTS.items() if self.counts.get(kind)]


def translate_collection(
    collection: Collection,
    output: str | Path,
    stage: Translate,
    *,
    what: What = "documents",
    fields: str | None = None,
    progress: Callable[[int], None] | None = None,
) -> TranslationReport:
    """Write a collection's documents or topics in the language of `stage` as JSON lines.

    Documents are `id, title, text, image, lang, source` and what else they had, as a directory collection reads them;
    topics are flat (`fields` as `Collection.queries` has them). `lang` is the language of the line's text, `source`
    that of the original. What is in the language already, or finds no words, is written as it is.

    Lines gather in a hidden file beside the output, which takes its name at the end; until then the same call goes
    on where it was killed. `OUTPUT.manifest.json` says what made it; with that beside it, a finished output is gone
    on with too, if the collection has more by then. `InputError` where what is there was made otherwise. (What was
    counted in the window that a kill fell upon may be missing from the counts.)
    """
    check_known(what, get_args(What), "kind of texts")
    if fields and what == "documents":
        raise InputError("documents have no fields to choose from: leave fields out, or translate queries")
    output = Path(output)
    items = collection.docs() if what == "documents" else collection.queries(fields=fields)
    about = {
        "collection": collection.name,
        "what": what,
        "fields": fields,
        "to": stage.to,
        "models": dict(stage.models),
        "fingerprint": stage.fingerprint,
    }
    started = time.perf_counter()
    with _Growing(output, about) as file:
        for window in batch_items(items, file.seen, stage.translator.appetite):
            count: Counter[str] = Counter()
            split = _split if what == "documents" else _whole
            answers = translations(window, stage.translator, stage.to, count, split)
            records = [
                _record(item, answer, stage.to, what, output.parent, count)
                for item, answer in zip(window, answers, strict=True)
            ]
            file.append([record for record in records if record is not None], count)
            if progress is not None:
                progress(file.lines)
        seconds = round(time.perf_counter() - started, 1)
        file.finish(seconds)
    return TranslationReport(output, what, stage, file.lines, file.resumed, dict(file.counts), seconds)


class _Growing:
    """A file of whole lines that grows beside its final name, and beside it what it is made of, and the counts."""

    def __init__(self, output: Path, about: Mapping[str, Any]) -> None:
        if output.suffix == ".gz":
            raise InputError(
                f"{output} grows line by line: name a file without .gz, and compress it when it is done"
            )
        if not output.parent.is_dir():
            raise InputError(f"there is no directory {output.parent} to write {output.name} into")
        self.output = output
        self.about = dict(about)
        self.partial = output.with_name(f".{output.name}.partial")
        self.made_of = output.with_name(f".{output.name}.partial.json")
        self.manifest = output.with_name(f"{output.name}.manifest.json")
        self.seen = SeenIds()
        self.lines = 0
        self.counts: Counter[str] = Counter()

    def __enter__(self) -> _Growing:
        try:
            if self.partial.exists():
                self._belongs(self.made_of, self.partial)
            elif self.output.exists():
                self._belongs(self.manifest, self.output)
                fresh = self.partial.with_name(f"{self.partial.name}.{os.getpid()}")
                shutil.copyfile(self.output, fresh)
                self._tell(self.made_of)
                os.replace(fresh, self.partial)
            else:
                self._tell(self.made_of)
            self.out = self.partial.open("ab")
            self._read()
        except OSError as error:
            raise InputError(f"cannot write {self.output}: {error.strerror}") from None
        self.resumed = self.lines
        return self

    def __exit__(self, *_: object) -> None:
        self.out.close()

    def append(self, records: Iterable[Mapping[str, Any]], count: Counter[str]) -> None:
        """Add lines; they are on the disk when this returns."""
        lines = [_line(record) for record in records]
        try:
            self.out.write("".join(lines).encode())
            self.out.flush()
            os.fsync(self.out.fileno())
        except OSError as error:
            raise InputError(f"cannot write {self.partial}: {error.strerror}") from None
        self.lines += len(lines)
        self.counts += count
        self._tell(self.made_of)

    def finish(self, seconds: float) -> None:
        """Give the file its name."""
        if not self.lines:
            self.partial.unlink()
            self.made_of.unlink()
            raise InputError(f"{self.about['collection']} has no {self.about['what']} to translate")
        self._tell(self.manifest, seconds=seconds, lines=self.lines)
        os.replace(self.partial, self.output)
        self.made_of.unlink(missing_ok=True)

    def _tell(self, path: Path, **more: object) -> None:
        with write_atomically(path) as out:
            json.dump({**self.about, **more, "counts": dict(self.counts)}, out, indent=2, ensure_ascii=False)

    def _belongs(self, told: Path, file: Path) -> None:
        """`InputError` unless the file was made of the same; takes over its counts."""
        try:
            there = json.loads(told.read_text("utf-8")) if told.exists() else {}
            counts = Counter(there.get("counts", {}))
        except (ValueError, AttributeError, TypeError):
            raise InputError(f"{told} cannot be read; remove it and {file} to begin anew") from None
        if not there:
            raise InputError(f"{file} is there already, and nothing says what made it; name another file")
        for key, value in self.about.items():
            if there.get(key) != value:
                raise InputError(
                    f"{file} was made with other {key} ({there.get(key)}, now {value}): go on as it began, name "
                    f"another file, or remove it to begin anew"
                )
        self.counts = counts

    def _read(self) -> None:
        """The ids that are there; a line that a kill cut short is taken off."""
        with self.partial.open("rb+") as file:
            size = file.seek(0, os.SEEK_END)
            whole = _last_line_end(file, size)
            if whole < size:
                file.truncate(whole)
        for place, line in read_json_lines(self.partial):
            try:
                self.seen.add(FileRow.parse(line).read_id())
            except InputError as error:
                raise InputError(f"{place}: {error}; remove the file to begin anew") from None
            self.lines += 1


def _last_line_end(file: Any, size: int) -> int:
    """Where the last whole line of a file ends."""
    at = size
    while at:
        begins = max(at - 65536, 0)
        file.seek(begins)
        found = file.read(at - begins).rfind(b"\n")
        if found >= 0:
            return int(begins + found + 1)
        at = begins
    return 0


def batch_items(items: Iterable[Item], seen: SeenIds, appetite: int) -> Iterator[list[Item]]:
    """Items that were not seen, in lists of about so many characters."""
    window: list[Item] = []
    held = 0
    for item in items:
        if seen.add(item.id):
            continue
        window.append(item)
        held += len(item.text or "")
        if held >= appetite or len(window) == WINDOW:
            yield window
            window, held = [], 0
    if window:
        yield window


def _whole(item: Item) -> tuple[str, ...]:
    return (item.text or "",)


def _split(item: Item) -> tuple[str, ...]:
    """A document's title and the rest, where its text begins with the title; else its text."""
    title, text = item.meta.get("title"), item.text or ""
    if isinstance(title, str) and title.strip() and text.startswith(f"{title}\n"):
        return title, text[len(title) + 1 :]
    return (text,)


def _record(
    item: Item, answer: Translation, to: str, what: What, root: Path, count: Counter[str]
) -> dict[str, Any] | None:
    """The line of an item; None for a document of which nothing is left."""
    parts = answer.parts or (_split(item) if what == "documents" else _whole(item))
    meta = dict(item.meta)
    if what == "queries":
        for field in FIELDS:  # wordings in the old language: the text is all that was translated
            meta.pop(field, None)
    else:
        meta.pop("title", None)  # it is among the parts, and readers would put an old one before the text
    title, text = parts if len(parts) == 2 else (None, parts[0])
    if what == "documents" and "source" in meta and answer.source:
        count["source_replaced"] += 1
    image = None
    if item.image is not None:
        path = item.image.resolve() if isinstance(item.image, Path) else None
        if path is not None and path.is_relative_to(root.resolve()):
            image = path.relative_to(root.resolve()).as_posix()
        elif "text" not in item.modalities:
            count["left_out"] += 1
            return None
        else:
            count["without_picture"] += 1
    held = {
        "id": item.id,
        "title": title,
        "text": text or None,
        "image": image,
        "lang": to if answer.parts else item.lang,
        "source": answer.source,
    }
    told = {key: value for key, value in held.items() if value is not None}
    return told | {key: value for key, value in meta.items() if key not in held and value is not None}


def _line(record: Mapping[str, Any]) -> str:
    try:
        line = json.dumps(record, ensure_ascii=False, allow_nan=False)
        line.encode("utf-8")
    except (TypeError, ValueError) as error:
        raise InputError(f"{record['id']!r} cannot be written as JSON: {error}") from None
    return line + "\n"
