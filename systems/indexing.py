"""From a collection and SPECs to a finished index, as `crosslens index` and experiments make it."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, nullcontext, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError, UnreadableItem, list_few
from ..items import Item, SeenIds
from ..media.modalities import find_media_fault
from ..multilingual.languages import fill_languages
from ..pipeline import Progress, Watcher, show_nothing, watch_encoded

if TYPE_CHECKING:
    from ..encoders.base import Encoder
    from ..indexes.base import Index
    from ..indexes.distributed import Cluster
    from ..indexes.storage.card import Recall, Windows
    from ..multilingual.collections.base import Collection
    from ..multilingual.collections.expansions import Expansions


@dataclass(frozen=True)
class Indexing:
    """A finished index, and what making it took: `added` documents were new or changed; seconds of wall time."""

    index: Index
    added: int
    recall: Recall
    loading_seconds: float
    seconds: float
    cached: int = 0  # vectors that were not encoded, since the cache had them
    lacking: int = 0  # documents of the index that the collection lacks
    removed: int = 0  # of them, which are no longer in the index
    expanded: int | None = None  # documents that full text has more of than their text; None where that was not asked
    unused: int = 0  # expansions of documents that the collection lacks
    problems: tuple[str, ...] = ()  # of documents that were left out, since what they hold cannot be opened

    def to_json(self) -> dict[str, object]:
        card, recall = self.index.card, self.recall
        return {
            "index": self.index.path,
            "kind": card.kind,
            "documents": len(self.index),
            "passages": card.passages and {"count": card.passages.count, **vars(card.passages.windows)},
            "added": self.added,
            "cached": self.cached,
            "lacking": self.lacking,
            "removed": self.removed,
            **({} if self.expanded is None else {"expanded": self.expanded, "unused_expansions": self.unused}),
            "languages": dict(self.index.langs),
            "encoders": [spec.name for spec in self.index.specs],
            "ann": {
                "kind": recall.kind,
                "recall": {str(k): value for k, value in recall.at.items()},
                "queries": recall.queries,
            },
        }

    @property
    def notes(self) -> list[str]:
        """What the user should know of documents that the collection lacks."""
        notes = []
        if self.removed:
            notes.append(f"{self.removed} documents that the collection lacks were removed")
        elif self.lacking:
            notes.append(f"{self.lacking} documents of the index are not in the collection: --sync removes them")
        if self.unused:
            notes.append(f"{self.unused} documents that have expansions are not in the collection")
        return notes

    def __str__(self) -> str:
        passages = self.index.card.passages
        parts = f" in {passages.count} passages" if passages else ""
        lines = [
            f"{self.index.path}: {len(self.index)} documents{parts} ({self.added} new or changed), "
            + (", ".join(spec.name for spec in self.index.specs) or "full text")
            + (f", {self.cached} vectors from the cache" if self.cached else "")
            + (f", {self.expanded} documents expanded" if self.expanded is not None else "")
        ]
        if langs := self.index.langs:  # pictures alone have none
            lines.append("languages: " + ", ".join(f"{lang or '?'} {n}" for lang, n in langs.items()))
        if self.recall.at:
            found = ", ".join(f"recall@{k} {value:.3f}" for k, value in self.recall.at.items())
            lines.append("exact search" if self.recall.kind == "flat" else f"{self.recall.kind}: {found}")
        return "\n".join(lines)


def index_collection(
    collection: Collection,
    directory: str | Path,
    specs: Sequence[str],
    *,
    documents: int,
    media: bool = True,
    kind: str = "lance",
    lexical: bool = True,
    windows: Windows | None = None,
    expansions: str | Path | None = None,
    ann: str = "auto",
    device: str = "auto",
    trust_remote_code: bool = False,
    ray: str | None = None,
    cache: bool = True,
    sync: bool = False,
    grace: float | None = None,
    progress: Progress = show_nothing,
) -> Indexing:
    """Encode a collection's `documents` documents into an index, or go on with one that is begun.

    `media` says whether any of them may hold other than text; of texts alone none is looked at before the work.
    With `sync` the index becomes the collection: what it lacks is removed, if the collection was read as a whole.
    `grace` is that of `create_index`. Full text has more of documents than their text, where the file or collection
    `expansions` has some (`multilingual.collections.expansions`).

    Where `device` means several, they encode together until all is encoded; the index goes on with the first.
    Documents whose pictures cannot be opened are an `UnreadableItem`; of a collection that skips what is bad
    (`skip_bad`) they are left out, and what was wrong with each is said. With `ray`, the address of a Ray cluster, its
    workers encode and write (`indexes.distributed`). What is wrong with kind, SPECs or windows is an `InputError`
    before anything is written.
    """
    from ..checkpoints.devices import resolve_devices
    from ..encoders.cache.encoder import CachedEncoder, close_caches
    from ..encoders.workers import open_encoders
    from ..indexes.passages import choose_tokenizer
    from ..indexes.registry import create_index, open_index
    from ..multilingual.collections.expansions import Expansions
    from .checks import check_indexing

    started = time.perf_counter()
    if expansions is not None and not lexical:
        raise InputError("expansions are for full text, and --no-lexical leaves it out: give one of the two")
    more = Expansions.read(expansions) if expansions is not None else Expansions({})
    if expansions is not None:
        more.check(collection.docs(), collection.name)
    options: dict[str, Any] = {"device": device, "trust_remote_code": trust_remote_code}
    devices = [device] if ray else resolve_devices(device)  # a cluster has devices of its own
    settings: dict[str, Any] = {"name": collection.name, "lexical": lexical, "passages": windows, "grace": grace}
    check_indexing(collection.docs(), directory, specs, media=media, kind=kind, ann=ann, **settings)
    own: dict[str, Any] = {"device": devices[0], "trust_remote_code": trust_remote_code}
    cluster: Cluster | None = None
    encoders: Sequence[Encoder]
    with ExitStack() as stack:
        if ray:
            from ..indexes.distributed import Cluster

            stack.enter_context(redirect_stdout(sys.stderr))  # Ray writes about workers that die to stdout
            cluster = stack.enter_context(Cluster(ray, specs, documents=documents, **options))
            encoders = cluster.encoders
        else:
            opened = stack.enter_context(open_encoders(specs, **options))
            encoders = [CachedEncoder(each) for each in opened] if cache else opened
        if windows is not None:
            choose_tokenizer(windows, encoders)
        loaded = time.perf_counter()
        made = create_index(directory, kind=kind, **settings, **own)
        seen = SeenIds()
        with progress("encoding", documents) as bar:
            added, problems = _add_readable(
                made, collection, more, encoders, cluster, seen, lambda done: bar(min(done, documents))
            )
        lacking = [id for id in made.ids() if id not in seen]
        if sync and len(seen) != documents:
            raise InputError(
                f"{collection.name} had {documents} documents when it was checked, and {len(seen)} when they were "
                "indexed: nothing was removed; rerun when it does not change"
            )
        removed = len(made.remove(lacking)) if sync else 0
    found = close_caches(encoders)
    if ray or len(devices) > 1:  # what has encoded is gone: searches load an encoder of their own
        made = open_index(directory, **own)
    recall = made.build(ann)
    ended = time.perf_counter()
    seconds = round(loaded - started, 1), round(ended - loaded, 1)
    expanded = None if expansions is None else len(more.used)
    unused = len(more.texts) - len(more.used)
    return Indexing(made, added, recall, *seconds, found, len(lacking), removed, expanded, unused, problems)


@dataclass(frozen=True)
class Removal:
    """What was taken out of an index, and which of the ids it did not hold."""

    index: Index
    removed: Sequence[str]
    unknown: Sequence[str]

    def to_json(self) -> dict[str, object]:
        return {
            "index": self.index.path,
            "removed": len(self.removed),
            "unknown": list(self.unknown),
            "documents": len(self.index),
        }

    def __str__(self) -> str:
        documents = "document" if len(self.removed) == 1 else "documents"
        return f"{self.index.path}: {len(self.removed)} {documents} removed, {len(self.index)} left"

    @property
    def notes(self) -> list[str]:
        return [f"not in the index, and passed over: {list_few(self.unknown)}"] if self.unknown else []


def remove_documents(
    directory: str | Path, ids: Iterable[str], *, device: str = "auto", trust_remote_code: bool = False
) -> Removal:
    """Take documents out of an index, and build its approximate index again if it had one."""
    from ..indexes.registry import open_index

    index = open_index(directory, device=device, trust_remote_code=trust_remote_code)
    wanted = list(dict.fromkeys(ids))
    built = next((space.ann.kind for space in index.card.spaces if space.ann), None)
    removed = index.remove(wanted)
    if removed and built is not None:
        try:
            index.build(built)
        except InputError:  # too few documents are left for it
            index.build("none")
    known = set(removed)
    return Removal(index, removed, [id for id in wanted if id not in known])


def _note_ids(items: Iterable[Item], seen: SeenIds) -> Iterator[Item]:
    for item in items:
        seen.add(item.id)
        yield item


def _add_readable(
    index: Index,
    collection: Collection,
    expansions: Expansions,
    encoders: Sequence[Encoder],
    cluster: Cluster | None,
    seen: SeenIds,
    progress: Watcher,
) -> tuple[int, tuple[str, ...]]:
    """Add a collection's documents; how many were new or changed, and what was wrong with those that were left out.

    `seen` gets the ids of all. Where one is met that cannot be opened, it and all after it are opened once before they
    are added, which takes time.
    """
    from ..indexes.base import WINDOW

    changed = done = 0

    def store(items: Iterable[Item]) -> None:
        nonlocal changed, done
        done = 0
        filled = expansions.expand(fill_languages(items))
        encoded = 0

        def show(number: int) -> None:  # of a portion, before it is stored as a whole
            nonlocal encoded
            encoded += number
            progress(done + min(encoded // max(1, len(encoders)), WINDOW))

        shown = watch_encoded(show) if index.card.passages is None else nullcontext()
        with closing(index.store(filled, encoders, cluster, WINDOW)) as portions, shown:
            for new, passed in portions:
                changed += new
                if passed:
                    done, encoded = done + passed, 0
                progress(done + encoded // max(1, len(encoders)))

    try:
        store(_note_ids(collection.docs(), seen))
        return changed, ()
    except UnreadableItem:
        if not getattr(collection, "skip_bad", False):
            raise
    known, problems = done, []

    def select_readable() -> Iterator[Item]:
        for number, item in enumerate(_note_ids(collection.docs(), seen)):
            if number >= known and (fault := find_media_fault(item.contents)):
                problems.append(f"item {item.id!r}: {fault}")
            else:
                yield item

    store(select_readable())
    return changed, tuple(problems)
