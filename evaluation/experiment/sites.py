"""A collection at work: its counts, its topics, and its indexes, each made once and kept."""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from ...errors import InputError, first_line, list_few
from ...files import make_directory, parse_json, read_text, write_json
from ...items import Item, open_seal, seal, windows
from ...multilingual.collections.base import Collection, CollectionCounts, MissingPart, fetch_documents
from ...multilingual.collections.digest import digest_files
from ...multilingual.collections.registry import load_collection
from ...multilingual.fairness import read_langs
from ...multilingual.languages import fill_languages
from ...pipeline import Progress, Watcher
from ...runs import Qrels
from ...systems.indexing import index_collection
from ...systems.search import choose_encoders
from ...systems.stages import IndexPlan
from ...systems.system import System
from .plan import Plan
from .results import watch_memory

if TYPE_CHECKING:
    from ...indexes.base import Index, Where


log = logging.getLogger("crosslens")

LOOKUP = 10_000  # documents fetched at a time
T = TypeVar("T")


@dataclass(frozen=True)
class Content:
    """What reading a collection once gives: its counts, a digest of its documents, and one of their ids."""

    counts: CollectionCounts
    content: str
    ids: str


@dataclass(eq=False)
class ExperimentSite:
    """One collection of an experiment, its files below `out` (`systems.stages.Site`).

    `systems` are searched on it; `options` (device, trust) open their encoders. `notes` describe the indexes in use.
    """

    name: str
    plan: Plan
    systems: Mapping[str, System]
    out: Path
    progress: Progress
    options: Mapping[str, Any]
    where: Where | None = field(default=None, init=False)
    exact: bool = field(default=True, init=False)
    journal: Path | None = field(default=None, init=False)  # results are kept stage by stage

    def __post_init__(self) -> None:
        self.slug = make_slug(self.name)
        self.collection: Collection = load_collection(self.name)
        self.unseen = self.plan.unseen
        self.exclude = self.plan.exclude
        self.notes: dict[IndexPlan, Mapping[str, Any]] = {}
        self.made: list[Mapping[str, Any]] = []  # the notes of indexes that this run has made
        self._open: dict[IndexPlan, Index] = {}
        self._versions: dict[str, tuple[Collection, Content]] = {}

    @cached_property
    def content(self) -> Content:
        """What is in it; read again only where a file of it has changed. `InputError` as `Collection.check`."""
        return self._read(self.collection, self.name)

    @cached_property
    def queries(self) -> tuple[Item, ...]:
        """The topics in the wording that the plan asks for, each with its language."""
        plan = self.plan
        found = self.collection.queries(fields=plan.fields, lang=plan.query_lang, source=plan.source)
        return tuple(fill_languages(found))

    @cached_property
    def qrels(self) -> Qrels:
        """The judgements; `InputError` where there are none, or none of a topic in this wording."""
        try:
            qrels = self.collection.qrels()
        except MissingPart as error:
            raise InputError(f"an experiment needs judgements: {error}") from None
        if not qrels.keys() & {query.id for query in self.queries}:
            raise InputError(f"no topic of {self.name} in this wording is judged")
        return qrels

    def complete(self, plan: IndexPlan) -> IndexPlan:
        """The index as it will be made: default encoders named, and full text taken from one that is there anyway."""
        if plan.encoders == ():
            every = (each for system in self.systems.values() for each in system.plans if each.encoders != ())
            plan = next((each for each in every if replace(each, encoders=()) == plan), plan)
        if plan.encoders is None:
            pictures = self.content.counts.images + sum("image" in query.modalities for query in self.queries)
            plan = replace(plan, encoders=tuple(choose_encoders(pictures)))
        return plan

    def folder(self, plan: IndexPlan) -> Path:
        """Where an index lies: named after all that decides what is in it, so that equal collections share it."""
        whole = self.complete(plan)
        _, content = self.find_version(whole.documents)
        described = json.dumps([content.content, asdict(whole)], sort_keys=True)
        return self.out / "indexes" / hashlib.sha256(described.encode()).hexdigest()[:12]

    def index(self, plan: IndexPlan) -> Index:
        """The finished index; made, or continued, where it is not there yet."""
        whole = self.complete(plan)
        if whole not in self._open:
            self._open[whole], self.notes[whole] = self._make(whole)
        return self._open[whole]

    def count_languages(self) -> Mapping[str, int]:
        """How many documents of the collection are in each language, as far as it says."""
        return self.content.counts.langs

    def fetch(self, ids: Sequence[str]) -> list[Item]:
        """The documents of `ids`, in that order, from an open index of them, else from the collection."""
        return (self._find_open() or fetch_documents(self.collection, ids)).get(ids)

    def _find_open(self) -> Index | None:
        return next((index for plan, index in self._open.items() if not plan.documents), None)

    def languages(self, ids: Iterable[str]) -> dict[str, str]:
        """The languages of documents, given or identified, from an open index of them, else from the collection."""
        asked = sorted(set(ids))
        opened = self._find_open()
        if opened is None:
            return read_langs(self.name, asked)
        found: dict[str, str] = {}
        for part in windows(asked, LOOKUP):
            found |= {item.id: item.lang for item in opened.get(part) if item.lang}
        return found

    def close(self) -> None:
        """Let go of the indexes, and so of the encoders."""
        self._open.clear()

    def _make(self, plan: IndexPlan) -> tuple[Index, Mapping[str, Any]]:
        from ...indexes.registry import open_index

        folder = self.folder(plan)
        note = folder.with_name(folder.name + ".json")
        if (noted := read_memo(note, dict)) is not None:
            return open_index(folder, **self.options), noted
        collection, content = self.find_version(plan.documents)
        resumed = folder.exists()
        make_directory(folder.parent)
        with watch_memory() as highest:
            made = index_collection(
                collection,
                folder,
                plan.encoders or (),
                documents=content.counts.documents,
                media=bool(content.counts.media),
                kind=plan.kind,
                windows=plan.windows,
                ann="none",
                progress=self.progress,
                **self.options,
            )
        about = {
            **made.to_json(),
            "index": str(folder.relative_to(self.out)),
            "version": plan.documents,
            "seconds": made.seconds,
            "loading_seconds": made.loading_seconds,
            "resumed": resumed,
            "bytes": sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()),
            "peak_bytes": highest(),
        }
        write_json(note, seal(about))
        self.made.append(about)
        return made.index, about

    def find_version(self, documents: str) -> tuple[Collection, Content]:
        """The collection, or another version of its documents; `InputError` unless that has the same ids."""
        if not documents:
            return self.collection, self.content
        if documents not in self._versions:
            other = load_collection(documents)
            content = self._read(other, documents)
            if content.ids != self.content.ids:
                own, theirs = ({item.id for item in each.docs()} for each in (self.collection, other))
                raise InputError(
                    f"{documents} is no version of {self.name}: {len(theirs - own)} of its {len(theirs)} documents are "
                    f"unknown there ({list_few(sorted(theirs - own))}), and {len(own - theirs)} of {len(own)} are "
                    f"lacking ({list_few(sorted(own - theirs))})"
                )
            self._versions[documents] = other, content
        return self._versions[documents]

    def _read(self, collection: Collection, name: str) -> Content:
        memo = self.out / "collections" / f"{make_slug(name)}.json"
        files = digest_files(collection, name, [self.out])
        found = read_memo(memo, Memory.from_json)
        if files is None or found is None or found.files != files:
            counts = collection.check()
            with self.progress(f"reading {make_slug(name)}", counts.documents) as watcher:
                content, ids = _digest_documents(collection, watcher)
            make_directory(memo.parent)
            write_json(memo, seal({"files": files, "counts": counts.to_json(), "content": content, "ids": ids}))
            return Content(counts, content, ids)
        return found.content


class Memory(NamedTuple):
    """What is remembered of a collection: a digest of its files, and what reading them gave."""

    files: str | None
    content: Content

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Memory:
        counts = CollectionCounts.from_json(stored["counts"])
        return cls(stored["files"], Content(counts, stored["content"], stored["ids"]))


def read_memo(path: Path, read: Callable[[dict[str, Any]], T]) -> T | None:
    """What an earlier run noted; None where there is nothing, and, with a warning, where that is damaged."""
    if not path.exists():
        return None
    try:
        return read(open_seal(parse_json(read_text(path))))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        log.warning("%s is damaged (%s): it is made again", path, first_line(error))
        return None


def make_slug(name: str) -> str:
    """A name as that of a folder; six hex digits stand for what had to be changed in it."""
    path = Path(name)
    short = "-".join(path.parts[-2:]) if path.is_dir() else name
    plain = re.sub(r"[^\w.+-]+", "-", short).strip("-.")[:80] or "-"
    return plain if plain == name else f"{plain}-{hashlib.sha256(name.encode()).hexdigest()[:6]}"


def _digest_documents(collection: Collection, watcher: Watcher) -> tuple[str, str]:
    """Digests of the documents, and of their ids: sums, so that order does not matter."""
    content = ids = 0
    for number, item in enumerate(collection.docs(), 1):
        meta = json.dumps(dict(item.meta), sort_keys=True, ensure_ascii=False, default=str)
        content += _digest(f"{item.id}\0{item.content_hash()}\0{meta}")
        ids += _digest(item.id)
        if number % 1000 == 0:
            watcher(number)
    return f"{content % 2**128:032x}", f"{ids % 2**128:032x}"


def _digest(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest(), "little")
