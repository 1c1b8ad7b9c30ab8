"""A collection at work: its counts, its topics, and its indexes, each made once and kept."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...commands.console import progress
from ...errors import InputError, list_few
from ...files import write_atomically
from ...items import Item, windows
from ...multilingual.collections import base as collections
from ...multilingual.collections.base import Collection, Counts
from ...multilingual.fairness import read_langs
from ...multilingual.languages import with_languages
from ...systems.indexing import indexed
from ...systems.search import default_encoders
from ...systems.stages import Wanted
from .memory import peak
from .plan import Plan

if TYPE_CHECKING:
    from ...indexes.base import Index


LOOKUP = 10_000  # documents fetched at a time


@dataclass(frozen=True)
class Known:
    """What reading a collection once told: its counts, a digest of its documents, and one of their ids."""

    counts: Counts
    content: str
    ids: str


class Place:
    """One collection of an experiment, its files below `out`; see `leaves.Site`.

    `wanted` are the indexes that its systems search.
    """

    def __init__(
        self,
        name: str,
        plan: Plan,
        out: Path,
        wanted: Sequence[Wanted],
        *,
        device: str = "auto",
        trust_remote_code: bool = False,
    ) -> None:
        self.name = name
        self.plan = plan
        self.out = out
        self.slug = slug(name)
        self.collection = collections.load(name)
        self.device = device
        self.trust_remote_code = trust_remote_code
        self.bar: Callable[[int], None] | None = None
        self._wanted = wanted
        self._open: dict[Wanted, Index] = {}
        self.notes: dict[Wanted, Mapping[str, Any]] = {}

    @cached_property
    def known(self) -> Known:
        """Its counts; read anew only where a file of it has changed. `InputError` as `Collection.check`."""
        return _known(self.collection, self.name, self.out)

    @property
    def content(self) -> str:
        return self.known.content

    @cached_property
    def queries(self) -> tuple[Item, ...]:
        """The topics in the wording that the plan asks for, each with its language."""
        plan = self.plan
        found = self.collection.queries(fields=plan.fields, lang=plan.query_lang, source=plan.source)
        return tuple(with_languages(found))

    def settled(self, wanted: Wanted) -> Wanted:
        """The index as it will be made: default encoders named, and full text taken from one that is there anyway."""
        if wanted.encoders == ():
            like = (
                each for each in self._wanted if replace(each, encoders=()) == wanted and each.encoders != ()
            )
            wanted = next(like, wanted)
        if wanted.encoders is None:
            pictures = self.known.counts.images + sum(query.image is not None for query in self.queries)
            wanted = replace(wanted, encoders=tuple(default_encoders(pictures)))
        return wanted

    def folder(self, wanted: Wanted) -> Path:
        """Where an index lies: named after all that decides what is in it, so that equal collections share it."""
        settled = self.settled(wanted)
        content = self._version(settled.documents)[1].content if settled.documents else self.content
        told = json.dumps([content, asdict(settled)], sort_keys=True)
        return self.out / "indexes" / hashlib.sha256(told.encode()).hexdigest()[:12]

    def index(self, wanted: Wanted) -> Index:
        """The finished index; made, or gone on with, where it is not there yet."""
        settled = self.settled(wanted)
        if settled not in self._open:
            self._open[settled], self.notes[settled] = self._made(settled)
        return self._open[settled]

    def languages(self, ids: Iterable[str]) -> dict[str, str]:
        """The languages of documents, given or identified, as an open index of them tells, else as the collection."""
        asked = sorted(set(ids))
        opened = next((index for wanted, index in self._open.items() if not wanted.documents), None)
        if opened is None:
            return read_langs(self.name, asked)
        found: dict[str, str] = {}
        for part in windows(asked, LOOKUP):
            found |= {item.id: item.lang for item in opened.get(part) if item.lang}
        return found

    def close(self) -> None:
        """Let go of the indexes, and so of the encoders."""
        self._open.clear()

    def _made(self, wanted: Wanted) -> tuple[Index, Mapping[str, Any]]:
        from ...indexes.registry import open_index

        folder = self.folder(wanted)
        note = folder.with_name(folder.name + ".json")
        if note.exists():
            index = open_index(folder, device=self.device, trust_remote_code=self.trust_remote_code)
            return index, json.loads(note.read_text("utf-8"))
        collection, known = self._version(wanted.documents)
        resumed = folder.exists()
        folder.parent.mkdir(parents=True, exist_ok=True)
        with peak() as highest:
            made = indexed(
                collection,
                folder,
                wanted.encoders or (),
                documents=known.counts.documents,
                kind=wanted.kind,
                windows=wanted.windows,
                ann="none",
                device=self.device,
                trust_remote_code=self.trust_remote_code,
            )
        told = {
            **made.to_json(),
            "index": str(folder.relative_to(self.out)),
            "version": wanted.documents,
            "seconds": made.seconds,
            "loading_seconds": made.loading_seconds,
            "resumed": resumed,
            "bytes": sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()),
            "peak_bytes": highest(),
        }
        with write_atomically(note) as file:
            json.dump(told, file, indent=2, ensure_ascii=False)
        return made.index, told

    def _version(self, documents: str) -> tuple[Collection, Known]:
        """The collection, or another version of its documents, which must have the same ids."""
        if not documents:
            return self.collection, self.known
        other = collections.load(documents)
        known = _known(other, documents, self.out)
        if known.ids != self.known.ids:
            own, theirs = ({item.id for item in each.docs()} for each in (self.collection, other))
            raise InputError(
                f"{documents} is no version of {self.name}: {len(theirs - own)} of its {len(theirs)} documents are "
                f"unknown there ({list_few(sorted(theirs - own))}), and {len(own - theirs)} of {len(own)} are lacking "
                f"({list_few(sorted(own - theirs))})"
            )
        return other, known


def slug(name: str) -> str:
    """A name as that of a folder; what had to be changed in it is told by six hex digits."""
    path = Path(name)
    short = "-".join(path.parts[-2:]) if path.is_dir() else name
    plain = re.sub(r"[^\w.+-]+", "-", short).strip("-.")[:80] or "-"
    return plain if plain == name else f"{plain}-{hashlib.sha256(name.encode()).hexdigest()[:6]}"


def _known(collection: Collection, name: str, out: Path) -> Known:
    memo = out / "collections" / f"{slug(name)}.json"
    files = _files(collection, out)
    if files is not None and memo.exists():
        told = json.loads(memo.read_text("utf-8"))
        if told.get("files") == files:
            return Known(Counts(**told["counts"]), told["content"], told["ids"])
    counts = collection.check()
    with progress(f"reading {slug(name)}", counts.documents) as bar:
        content, ids = _digests(collection, bar)
    memo.parent.mkdir(parents=True, exist_ok=True)
    with write_atomically(memo) as file:
        json.dump(
            {
                "files": files,
                "counts": asdict(counts) | {"langs": dict(counts.langs)},
                "content": content,
                "ids": ids,
            },
            file,
            indent=2,
            ensure_ascii=False,
        )
    return Known(counts, content, ids)


def _files(collection: Collection, out: Path) -> str | None:
    """A digest of the names, sizes and times of a collection's files; None where it does not lie in a directory."""
    root = getattr(collection, "root", None) or getattr(getattr(collection, "files", None), "root", None)
    if root is None:
        return None
    digest = hashlib.sha256()
    for path in _below(Path(root), out.resolve()):
        stat = path.stat()
        digest.update(f"{path}|{stat.st_size}|{stat.st_mtime_ns}\n".encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def _below(root: Path, without: Path) -> Iterator[Path]:
    for folder, folders, names in os.walk(root):
        here = Path(folder)
        folders[:] = sorted(each for each in folders if (here / each).resolve() != without)
        yield from (here / name for name in sorted(names))


def _digests(collection: Collection, bar: Any) -> tuple[str, str]:
    """Digests of the documents, and of their ids: sums, so that order does not matter."""
    content = ids = 0
    for number, item in enumerate(collection.docs(), 1):
        meta = json.dumps(dict(item.meta), sort_keys=True, ensure_ascii=False, default=str)
        content += _digest(f"{item.id}\0{item.content_hash()}\0{meta}")
        ids += _digest(item.id)
        if number % 1000 == 0:
            bar(number)
    return tuple(f"{total % 2**128:032x}" for total in (content, ids))  # type: ignore[return-value]


def _digest(text: str) -> int:
    return int.from_bytes(
        hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest(), "little"
    )
