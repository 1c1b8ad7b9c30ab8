"""A collection's documents or topics translated into a file of the collection's own form; killed, it goes on."""

from __future__ import annotations

import os
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any, Literal, get_args

from ...errors import InputError, check_known, note_kept
from ...files import check_output, find_target, is_stream, open_to_append, place_atomically, read_json, write_json
from ...items import Item, SeenIds, split_by_weight
from ...rows.fields import FileRow
from ..collections.base import Collection
from ..collections.records import to_json_line
from ..collections.topics import FIELDS
from ..judges.journal import Journal
from .translation import Translate, Translation, has_text, take_text, translate_items

What = Literal["documents", "queries"]

WINDOW = 256  # items translated at once, where they are short
_FAULTS = {
    "untranslated": "stay as they are: the translator had no words for them",
    "untranslated_parts": "parts (a title, a text) stay as they are",
    "untranslated_pieces": "sentences inside of texts stay as they are",
    "unknown_language": "pieces are in no language that is known",
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
        return [f"{self.counts[kind]} {what}" for kind, what in _FAULTS.items() if self.counts.get(kind)]


def translate_collection(
    collection: Collection,
    output: str | Path,
    stage: Translate,
    *,
    what: What = "documents",
    fields: str | None = None,
    total: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> TranslationReport:
    """Write a collection's documents or topics in the language of `stage` as JSON lines.

    Documents are `id, title, text, image, lang, source` and what else they had, as a directory collection reads them;
    topics are flat (`fields` as `Collection.queries` has them). `lang` is the language of the line's text, `source`
    that of the original. What is in the language already, or finds no words, is written as it is.

    Lines gather in a hidden file beside the output, which takes its name at the end; until then the same call goes
    on where it was killed, with the answers that a prompted judge has given since the last of them. What ends the work
    has a note of how many lines there are, of `total`. `OUTPUT.manifest.json` says what made it; with that beside it, a
    finished output is gone on with too, if the collection has more by then. `InputError` where what is there was made
    otherwise. A stream (`files.is_stream`) gets all lines at the end, and nothing is kept beside it. (What was counted
    in the window that a kill fell upon may be missing from the counts.)
    """
    output = Path(output)
    check_translation(output, what, fields)
    items = collection.docs() if what == "documents" else collection.queries(fields=fields)
    about = {
        "collection": collection.name,
        "what": what,
        "fields": fields,
        "to": stage.to,
        "models": dict(stage.models),
        "fingerprint": stage.fingerprint,
    }
    split = _take_title_and_text if what == "documents" else take_text
    root = output.parent.resolve()
    started = time.perf_counter()
    growing = _Growing(output, about) if not is_stream(output) else _spool(output, about)
    with growing as file, closing(Journal(file.answers)) as journal:
        keep = getattr(stage.translator, "keep_in", None)
        translator = stage.translator if keep is None else keep(journal)
        try:
            for window in batch_items(items, file.seen, stage.translator.appetite):
                count: Counter[str] = Counter()
                answers = translate_items(window, translator, stage.to, count, split)
                count.update(journal.take_counts())
                pairs = zip(window, answers, strict=True)
                records = [_to_record(*pair, split, stage.to, what, root, count) for pair in pairs]
                file.append(filter(None, records), count)
                journal.clear()
                if progress is not None:
                    progress(file.lines)
        except BaseException as stop:
            if file.lines or journal:
                more = f" ({len(journal)} answers for the next)" if journal else ""
                note_kept(stop, f"{file.lines}{f' of {total}' if total else ''} {what} are translated{more}")
            raise
        seconds = round(time.perf_counter() - started, 1)
        file.finish(seconds)
    return TranslationReport(output, what, stage, file.lines, file.resumed, dict(file.counts), seconds)


def check_translation(output: Path, what: str, fields: str | None) -> None:
    """`InputError` where `translate_collection` could not do this; to be asked before a model is loaded."""
    check_known(what, get_args(What), "kind of texts")
    if fields and what == "documents":
        raise InputError("documents have no fields to choose from: leave fields out, or translate queries")
    if output.suffix == ".gz" and not is_stream(output):
        raise InputError(f"{output} grows line by line: name a file without .gz, and compress it when it is done")
    check_output(output)


class _Growing:
    """A file of whole lines that grows beside its final name, and beside it what it is made of, and the counts."""

    def __init__(self, output: Path, about: Mapping[str, Any]) -> None:
        self.output, self.about = find_target(output), dict(about)
        self.partial = self.output.with_name(f".{self.output.name}.partial")
        self.made_of = self.output.with_name(f".{self.output.name}.partial.json")
        self.answers = self.output.with_name(f".{self.output.name}.partial.journal")
        self.manifest = output.with_name(f"{output.name}.manifest.json")
        self.seen = SeenIds()
        self.lines = 0
        self.counts: Counter[str] = Counter()

    def __enter__(self) -> _Growing:
        try:
            if self.partial.exists():
                self._take_counts(self.made_of, self.partial)
                self._describe(self.made_of)  # which removes what a kill left of it
            elif self.output.exists():
                self._take_counts(self.manifest, self.output)
                with place_atomically(self.partial) as copy:
                    shutil.copyfile(self.output, copy)
                    self._describe(self.made_of)
            else:
                self._describe(self.made_of)
            self.out = open_to_append(self.partial)
            self._take_lines()
        except OSError as error:
            raise InputError(f"cannot write {self.output}: {error.strerror}") from None
        self.resumed = self.lines
        return self

    def __exit__(self, failed: object, *_: object) -> None:
        try:
            self.out.close()
        except OSError:  # a full disk, which a write has met before: what it could not take is made again
            if failed is None:
                raise

    def append(self, records: Iterable[Mapping[str, Any]], count: Counter[str]) -> None:
        """Add lines; they are on the disk when this returns."""
        lines = [to_json_line(record["id"], record) for record in records]
        try:
            self.out.write("".join(lines).encode())
            self.out.flush()
            os.fsync(self.out.fileno())
        except OSError as error:
            raise InputError(f"cannot write {self.partial}: {error.strerror}") from None
        self.lines += len(lines)
        self.counts += count
        self._describe(self.made_of)

    def finish(self, seconds: float) -> None:
        """Give the file its name."""
        if not self.lines:
            self.partial.unlink()
            self.made_of.unlink()
            self.answers.unlink(missing_ok=True)
            raise InputError(f"{self.about['collection']} has no {self.about['what']} to translate")
        self._describe(self.manifest, seconds=seconds, lines=self.lines)
        os.replace(self.partial, self.output)
        self.made_of.unlink(missing_ok=True)
        self.answers.unlink(missing_ok=True)

    def _describe(self, path: Path, **more: object) -> None:
        write_json(path, {**self.about, **more, "counts": dict(self.counts)})

    def _take_counts(self, description: Path, file: Path) -> None:
        """`InputError` unless the file was made of the same."""
        try:
            there = read_json(description) if os.path.lexists(description) else {}
            self.counts = Counter(there.get("counts", {}))
        except (ValueError, AttributeError, TypeError):
            raise InputError(f"{description} cannot be read; remove it and {file} to begin again") from None
        if not there:
            raise InputError(f"{file} is there already, and nothing says what made it; name another file")
        for key, value in self.about.items():
            if there.get(key) != value:
                raise InputError(
                    f"{file} was made with other {key} ({there.get(key)}, now {value}): go on as it began, name "
                    f"another file, or remove it to begin again"
                )

    def _take_lines(self) -> None:
        """The ids that are there; a line that a kill cut short is taken off."""
        size = 0
        with self.partial.open("rb") as file:
            for number, line in enumerate(takewhile(lambda line: line.endswith(b"\n"), file), 1):
                size += len(line)
                try:
                    self.seen.add(FileRow.parse(line).read_id())
                except InputError as error:
                    place = f"{self.partial}:{number}"
                    raise InputError(f"{place}: {error}; remove the file to begin again") from None
                self.lines += 1
        os.truncate(self.partial, size)


@contextmanager
def _spool(stream: Path, about: Mapping[str, Any]) -> Iterator[_Growing]:
    """A growing file elsewhere, which goes into a stream when the block ends."""
    with place_atomically(stream) as partial:
        partial.unlink()
        with _Growing(partial, about) as file:
            yield file


def batch_items(items: Iterable[Item], seen: SeenIds, appetite: float) -> Iterator[list[Item]]:
    """Items that were not seen, in lists of about so many characters, and at most 256."""
    new = (item for item in items if not seen.add(item.id))
    return split_by_weight(new, appetite, lambda item: max(len(item.text or ""), appetite / WINDOW))


def _take_title_and_text(item: Item) -> tuple[str, ...]:
    """A document's title and the rest, where its text begins with the title; else its text."""
    title, text = item.meta.get("title"), item.text or ""
    if isinstance(title, str) and title.strip() and text.startswith(f"{title}\n"):
        return title, text[len(title) + 1 :]
    return take_text(item)


def _to_record(
    item: Item,
    answer: Translation,
    split: Callable[[Item], tuple[str, ...]],
    to: str,
    what: What,
    root: Path,
    count: Counter[str],
) -> dict[str, Any] | None:
    """The line of an item; None for a document of which nothing is left."""
    parts = answer.parts or split(item)
    if what == "documents" and "source" in item.meta and answer.source:
        count["source_replaced"] += 1
    paths = {name: content.resolve() for name, content in item.contents.items() if isinstance(content, Path)}
    media = {name: path.relative_to(root).as_posix() for name, path in paths.items() if path.is_relative_to(root)}
    lost = any(content is not None and name not in media for name, content in item.contents.items())
    if lost and not media and not has_text(item):
        count["left_out"] += 1
        return None
    if lost:
        count["without_picture"] += 1
    own = {
        "id": item.id,
        "title": parts[0] if len(parts) == 2 else None,
        "text": parts[-1] or None,
        **{name: media.get(name) for name in item.contents},
        "lang": to if answer.parts else item.lang,
        "source": answer.source,
    }
    # A title is among the parts. Of topics, wordings in the old language go: the text is all that was translated.
    gone = own.keys() if what == "documents" else {*own, *FIELDS}
    others = {key: value for key, value in item.meta.items() if key not in gone}
    return {key: value for key, value in (own | others).items() if value is not None}
