"""What there is to know of an index: what it holds and was made by, its state, and the room that it takes."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..files import write_size
from ..media.language_codes import find_language
from .storage.card import FIRST, FORMAT, Space
from .storage.checksums import CORRECTED
from .storage.filters import list_modalities
from .storage.storage import FILE, Storage
from .storage.tables import DOCUMENTS

# The room of an index by what lies there: the beginning of a file's path within it, and what that is. The first that
# fits counts.
PARTS = {
    f"{DOCUMENTS}.lance/_indices/": "full text, filters and approximate indexes",
    f"{DOCUMENTS}.lance/": "documents and their vectors",
    CORRECTED: "corrected vectors",
    "postings_": "postings",
    "faiss-": "faiss",
    "": "card and moments",
}
EARLIER = "earlier editions"  # and what killed writers have left
HINTS = ("latest_version_hint.json",)  # of Lance's, which follow from the rest


@dataclass(frozen=True)
class SpaceInfo:
    """The vectors of one encoder: how many documents (or passages) have some, by what it read of them.

    `ann` is the approximate index, empty for exact search, and `recall` what it was measured to find, by cutoff.
    """

    encoder: str
    revision: str
    fingerprint: str
    vectors: str
    dim: int
    precision: str
    read: Mapping[str, int]
    multilingual: bool
    ann: str
    recall: Mapping[int, float]

    @classmethod
    def of(cls, space: Space, read: Mapping[str, int]) -> SpaceInfo:
        spec, ann = space.spec, space.ann
        return cls(
            spec.name, spec.revision, space.fingerprint, spec.kind, spec.dim, spec.dtype, read, space.multilingual,
            ann.kind if ann else "", ann.recall if ann else {},
        )  # fmt: skip

    def __str__(self) -> str:
        held = ", ".join(f"{count:,} {read}" for read, count in self.read.items()) or "none yet"
        revision = f", revision {self.revision}" if self.revision else ""
        return (
            f"{self.encoder} ({self.fingerprint}{revision}): {self.vectors} vectors of {self.dim} dimensions, {held}; "
            f"{self.search}"
        )

    @property
    def search(self) -> str:
        """How its vectors are searched."""
        found = ", ".join(f"recall@{k} {value:.3f}" for k, value in self.recall.items())
        return (self.ann or "exact") + (f" ({found})" if found else "")


@dataclass(frozen=True)
class IndexInfo:
    """An index in its last complete edition or, before there is one, as far as it is stored.

    `change` says whether a change of it is `under way` in some process, or was `interrupted`; empty where there is
    none. `changed` is when the edition was complete, in seconds after the epoch; None where the card does not say.
    `sizes` are bytes on disk by what they are for, None where there is no directory. `fields` are the keys of
    metadata that `where` takes. With `passages` the counts of `spaces` are of these.
    """

    path: str
    kind: str
    name: str
    documents: int
    languages: Mapping[str, int]
    modalities: Mapping[str, int]
    passages: Mapping[str, object] | None
    spaces: tuple[SpaceInfo, ...]
    lexical: bool
    fields: tuple[str, ...]
    complete: bool
    change: str
    fingerprint: str | None
    changed: float | None
    grace: float
    sizes: Mapping[str, int] | None
    format: int
    made_by: Mapping[str, str]

    def to_json(self) -> dict[str, Any]:
        spaces = [asdict(each) | {"recall": {str(k): v for k, v in each.recall.items()}} for each in self.spaces]
        return asdict(self) | {
            "spaces": spaces,
            "fields": list(self.fields),
            "changed": self.changed and _write_time(self.changed),
            "bytes": None if self.sizes is None else sum(self.sizes.values()),
        }

    def __str__(self) -> str:
        return "\n".join(f"{name:<13} {value}" for name, value in self._list_rows())

    def _list_rows(self) -> list[tuple[str, str]]:
        rows = [("index", self.path + (f" (collection {self.name})" if self.name else ""))]
        rows.append(("state", self._describe_state()))
        if self.changed:
            rows.append(("changed", _write_time(self.changed)))
        rows.append(("documents", f"{self.documents:,}"))
        if self.passages:
            each = dict(self.passages)
            split = f"{each['count']:,}, of {each['window']} tokens each, a new one every {each['stride']}"
            split += f", for {each['share']:g} of the score, beside whole documents" if "share" in each else ""
            rows.append(("passages", split))
        rows.append(("languages", _write_counts(self.languages, self.documents, "without one")))
        rows.append(("modalities", _write_counts(self.modalities)))
        rows.append(("kind", self.kind))
        rows += [("encoder", str(each)) for each in self.spaces] or [
            ("encoder", "none: it is searched by mode lexical")
        ]
        rows.append(("full text", "yes" if self.lexical else "no: it is searched by mode dense"))
        if self.fields:
            rows.append(("fields", ", ".join(self.fields)))
        if self.sizes is not None:
            rows.append(("size", write_size(sum(self.sizes.values()))))
            rows += [("", f"{write_size(size)} {what}") for what, size in self.sizes.items()]
        versions = "".join(f", {name} {version}" for name, version in self.made_by.items())
        rows.append(("versions", f"format {self.format}{versions}"))
        return rows

    def _describe_state(self) -> str:
        rerun = "`crosslens index` with the same collection goes on with it"
        if not self.complete:
            return "being made now" if self.change == "under way" else f"unfinished: {rerun}"
        if self.change == "under way":
            return "complete; it is being changed now, and searched as it was before"
        if self.change:
            return f"complete; a change of it was interrupted, and it is searched as it was before: {rerun}"
        return f"complete, fingerprint {self.fingerprint}"


def read_info(path: str | Path) -> IndexInfo:
    """What there is to know of the index at `path`, without its models; `InputError` as `Storage.open`."""
    return describe_storage(Storage.open(path))


def describe_storage(storage: Storage) -> IndexInfo:
    """What there is to know of an index whose storage is open."""
    card, tables = storage.card, storage.tables
    langs: Counter[str | None] = Counter()
    modalities: Counter[str] = Counter()
    documents = 0
    for batch in tables.scan(["lang", "modality"], f"id LIKE '%{FIRST}'" if card.passages else None):
        documents += len(batch)
        langs.update(batch.column("lang").to_pylist())
        modalities.update(batch.column("modality").to_pylist())
    coded: Counter[str] = Counter()
    for lang, number in langs.items():
        if lang is not None:
            coded[find_language(lang) or lang] += number  # earlier versions stored what they were given
    known = list_modalities()
    passages: dict[str, object] | None = None
    if card.passages is not None:
        passages = {"count": card.passages.count if card.complete else len(tables), **asdict(card.passages.windows)}
    read = [space.counts if card.complete else tables.count_read(space) for space in card.spaces]
    return IndexInfo(
        storage.path, card.kind, card.name, documents, _sort(coded),
        {name: modalities[name] for name in sorted(modalities, key=lambda name: (name not in known, name))},
        passages, tuple(map(SpaceInfo.of, card.spaces, read)), card.lexical, tuple(card.keys), card.complete,
        _find_change(storage), card.fingerprint if card.complete else None, _find_time(storage), card.grace,
        _measure(storage), FORMAT, dict(card.made_by),
    )  # fmt: skip


def _find_change(storage: Storage) -> str:
    place = storage.place
    if place is None:
        return ""
    if place.is_locked:
        return "under way"
    return "interrupted" if storage.is_changing and storage.card.complete else ""


def _find_time(storage: Storage) -> float | None:
    """When the edition was complete; of an index of earlier crosslens, when its card was written."""
    if storage.card.changed or storage.folder is None or not storage.card.complete:
        return storage.card.changed or None
    with suppress(OSError):
        return (storage.folder / FILE).stat().st_mtime
    return None


def _measure(storage: Storage) -> dict[str, int] | None:
    """The bytes of an index's files by what they are for."""
    if storage.folder is None:
        return None
    current = {**storage.card.checksums, FILE: (0, "")}
    sizes: Counter[str] = Counter()
    for folder, _, names in os.walk(storage.folder):
        for name in names:
            path = Path(folder, name)
            within = path.relative_to(storage.folder).as_posix()
            with suppress(OSError):  # a writer has just removed it
                part = next(what for start, what in PARTS.items() if within.startswith(start))
                # faiss files have checksums of their own.
                kept = within in current or part == PARTS["faiss-"] or not storage.card.checksums or name in HINTS
                sizes[part if kept else EARLIER] += path.stat().st_size
    return {part: sizes[part] for part in [*PARTS.values(), EARLIER] if sizes[part]}


def _sort(counts: Mapping[str, int]) -> dict[str, int]:
    """Most first."""
    return dict(sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])))


def _write_counts(counts: Mapping[str, int], total: int = 0, others: str = "") -> str:
    parts = [f"{name} {count:,}" for name, count in counts.items()]
    if others and (rest := total - sum(counts.values())) > 0:
        parts.append(f"{others} {rest:,}")
    return ", ".join(parts) or "none"


def _write_time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
