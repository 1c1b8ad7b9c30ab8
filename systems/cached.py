"""All that lies in the cache, by what it is, and making it smaller: what nothing installed needs goes first."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from ..checkpoints.offline.packages import MODELS, WEIGHTS, is_installed, locate_cache
from ..checkpoints.uses import remove_unheld
from ..encoders.cache.contents import CacheContents, parse_size, prune_cache, read_contents, shrink_vectors, write_date
from ..encoders.cache.store import count_days, locate_vector_cache
from ..errors import InputError, check_known
from ..files import is_locked, write_size
from ..indexes.storage.storage import FILE
from ..multilingual.rewriting.kept_texts import locate_text_cache

DAY = 86400
KINDS = {
    "vectors": "vectors of documents, by encoder",
    "models": "models converted from packages",
    "int8": "checkpoints in int8",
    "openvino": "checkpoints exported for OpenVINO",
    "classes": "class names of offline:conse",
    "languages": "the language identifier",
    "texts": "what models wrote",
    "pace": "what was measured on this machine",
    "demo": "the index of `serve` without one",
    "leftovers": "left by killed processes",
    "other": "not crosslens's, never removed",
}
MODEL = re.compile(r".+-[0-9a-f]{12}-c\d+")
EXPORT = re.compile(r"(?P<model>.+)-[0-9a-f]{8}-v\d+(\.safetensors)?")
PARTIAL = re.compile(r"\.partial-.*|\..*\.partial")


@dataclass(frozen=True)
class CachedThing:
    """A file or directory of the cache: its `bytes`, and the `day` of the last use (from 1970).

    `unused` says why nothing installed needs it. A process that uses it holds `held`.
    """

    kind: str
    path: Path
    bytes: int
    day: int
    unused: str = ""
    held: Path = field(default_factory=Path)

    def to_json(self) -> dict[str, object]:
        return {
            "path": str(self.path),
            "bytes": self.bytes,
            "last_used": write_date(self.day),
            "unused": self.unused or None,
        }


@dataclass(frozen=True)
class WholeCache:
    """The whole cache; `removed` says what was taken out of it just now, and `kept` what is in use."""

    directory: Path
    vectors: CacheContents
    things: tuple[CachedThing, ...]
    removed: tuple[str, ...] | None = None
    freed: int = 0
    kept: tuple[str, ...] = ()

    @property
    def bytes(self) -> int:
        return sum(each.bytes for each in self.vectors.files) + sum(each.bytes for each in self.things)

    def to_json(self) -> dict[str, object]:
        pruned = {} if self.removed is None else {"removed": list(self.removed), "freed": self.freed}
        kinds = [
            {"kind": kind, "number": number, "bytes": size, "last_used": write_date(day)}
            for kind, number, size, day in self._list_kinds()
        ]
        return {
            "directory": str(self.directory),
            "bytes": self.bytes,
            "kinds": kinds,
            "vectors": self.vectors.to_json(),
            "things": [{"kind": each.kind, **each.to_json()} for each in self.things],
            **pruned,
            "in_use": list(self.kept),
        }

    def __str__(self) -> str:
        lines = []
        if self.removed is not None:
            lines.append(f"{', '.join(self.removed) or 'nothing'} removed, {write_size(self.freed)} freed")
        for kind, number, size, day in self._list_kinds():
            used = f"last used {write_date(day)}" if day is not None else ""
            lines.append(f"{kind:<10} {number:>4}  {write_size(size):>9}  {used:<20}  {KINDS[kind]}".rstrip())
        lines += [f"  {each}" for each in self.vectors.files]
        for each in self.things:
            if each.unused or each.kind == "models":
                lines.append(f"  {each.path.name}: {write_size(each.bytes)}" + (f", {each.unused}" * bool(each.unused)))
        return "\n".join([*lines, f"{self.directory}: {write_size(self.bytes)}"])

    @property
    def notes(self) -> list[str]:
        notes = [f"in use, and kept: {', '.join(self.kept)}"] if self.kept else []
        if self.removed is None and any(each.unused for each in self.things):
            notes.append("--prune --unused removes what nothing installed needs")
        return notes

    def _list_kinds(self) -> Iterator[tuple[str, int, int, int | None]]:
        for kind in KINDS:
            found: Sequence[CachedThing] = [each for each in self.things if each.kind == kind]
            held = [*((each.bytes, each.day) for each in found)]
            if kind == "vectors":
                held = [(each.bytes, each.day or 0) for each in self.vectors.files]
            if held:
                yield kind, len(held), sum(size for size, _ in held), max(day for _, day in held) or None


def read_cache() -> WholeCache:
    """What the cache holds."""
    where = locate_cache()
    return WholeCache(where, read_contents(), tuple(_list_things(where)))


def prune_all(
    *,
    kinds: Sequence[str] = (),
    unused: bool = False,
    older_than: int | None = None,
    encoder: str | None = None,
    to: str | None = None,
) -> WholeCache:
    """Take out of the cache what is not in use, and what is left of it.

    Of all `kinds` (of `KINDS`), or those given: what nothing installed needs (`unused`); what was last used more than
    `older_than` days ago; then, until no more than `to` is left, what nothing needs and what is longest unused. All,
    if none of these is given. `encoder`, a fingerprint or a SPEC, means its vectors alone. `InputError` for what the
    options cannot be.
    """
    for kind in kinds:
        check_known(kind, [each for each in KINDS if each != "other"], "kind")
    if encoder is not None and (unused or set(kinds) - {"vectors"}):
        raise InputError("--encoder means its vectors: leave out --unused and other kinds")
    if older_than is not None and older_than < 0:
        raise InputError(f"--older-than counts days and must be 0 or more, not {older_than}")
    most = None if to is None else parse_size(to)
    before = read_cache()
    removed: list[str] = []
    kept: list[str] = []

    def remove(thing: CachedThing) -> None:
        if _is_busy(thing) or not remove_unheld(thing.path, thing.held):
            kept.append(thing.path.name)
        else:
            removed.append(thing.path.name)

    chosen = [each for each in before.things if each.kind != "other" and (not kinds or each.kind in kinds)]
    vectors = not kinds or "vectors" in kinds
    if encoder is not None:
        chosen = []
    everything = not unused and older_than is None and most is None
    oldest = count_days() - older_than if older_than is not None else 0
    for each in chosen:
        if everything or (unused and each.unused) or each.day < oldest:
            remove(each)
    count = 0
    if vectors and (encoder is not None or everything or older_than is not None):
        found = prune_cache(older_than=older_than, encoder=encoder, to=to if encoder is not None else None)
        count += found.removed or 0
    if most is not None and encoder is None:
        left = [each for each in chosen if each.path.name not in (*removed, *kept)]
        count += _shrink(sorted(left, key=lambda thing: (not thing.unused, thing.day)), vectors, most, remove)
    after = read_cache()
    told = [f"{count:,} vectors"] * bool(count) + removed
    return WholeCache(
        after.directory, after.vectors, after.things, tuple(told), before.bytes - after.bytes, tuple(kept)
    )


def _shrink(things: Sequence[CachedThing], vectors: bool, most: int, remove: Callable[[CachedThing], None]) -> int:
    """Remove things in their order, and vectors before what was used after them, until `most` bytes are left.

    How many vectors were removed.
    """
    count = 0
    left = sum(each.bytes for each in things)
    for each in (*things, None):
        if vectors and (each is None or not each.unused):
            count += shrink_vectors(max(0, most - left), math.inf if each is None else each.day)
        if each is None or left + (sum(file.bytes for file in read_contents().files) if vectors else 0) <= most:
            break
        remove(each)
        left -= 0 if each.path.exists() else each.bytes
    return count


def _list_things(where: Path) -> Iterator[CachedThing]:
    """What there is but vectors; what does not look like crosslens's own is of the kind `other`."""
    yield from (_describe("pace", path) for path in sorted(locate_vector_cache().glob("rates-*.json")))
    directories = {model.directory: name for name, model in MODELS.items()}
    folders = [where, *(where / each for each in ("offline", "int8", "openvino", "served", "pace"))]
    if (texts := locate_text_cache()) not in folders:
        folders.append(texts)
    for folder in folders:
        for path in _list_folder(folder):
            within = folder.name if folder != where else ""
            if PARTIAL.fullmatch(path.name):
                yield _describe("leftovers", path, "left by a killed process")
            elif within == "offline" and MODEL.fullmatch(path.name) and (path / WEIGHTS).exists():
                reason = "" if path in directories else "of no model of this crosslens"
                if path in directories and not is_installed(directories[path]):
                    reason = "its package is gone"
                yield _describe("models", path, reason, path / WEIGHTS)
            elif within in ("int8", "openvino") and (made := EXPORT.fullmatch(path.name)):
                gone = MODEL.fullmatch(made["model"]) and not (where / "offline" / made["model"]).exists()
                held = path / "model.xml" if within == "openvino" else path
                yield _describe(within, path, "its checkpoint is gone" if gone else "", held)
            elif within == "served" and (path / FILE).exists():
                # Not the directory: to look into one counts as its use.
                yield _describe("demo", path, held=path / FILE)
            elif folder == texts and path.suffix == ".journal":
                yield _describe("texts", path)
            elif within == "pace" and path.suffix == ".json":
                yield _describe("pace", path)
            elif folder == where and path.match("conse-*.safetensors"):
                yield _describe("classes", path)
            elif folder == where and path.match("languages-*.safetensors"):
                gone = path.stem != f"languages-{_find_version('py3langid')}"
                yield _describe("languages", path, "of another py3langid" if gone else "")
            elif path not in folders and path != locate_vector_cache() and path.suffix != ".lock":
                yield _describe("other", path)


def _find_version(package: str) -> str:
    with suppress(PackageNotFoundError):
        return version(package)
    return ""


def _is_busy(thing: CachedThing) -> bool:
    """Whether a process is just writing it."""
    if thing.kind == "demo":
        return is_locked(thing.path)
    # Whoever converts a model has the lock of all.
    return thing.kind == "leftovers" and is_locked(locate_cache(), "offline.lock")


def _list_folder(folder: Path) -> list[Path]:
    with suppress(OSError):
        return sorted(folder.iterdir())
    return []


def _describe(kind: str, path: Path, unused: str = "", held: Path | None = None) -> CachedThing:
    held = held or path
    size = used = 0
    with suppress(OSError):
        state = held.lstat()
        used = int(max(state.st_atime, state.st_mtime) // DAY)
    if path.is_dir() and not path.is_symlink():
        for folder, _, names in os.walk(path):
            for name in names:
                with suppress(OSError):
                    size += os.lstat(os.path.join(folder, name)).st_size
    else:
        with suppress(OSError):
            size = path.lstat().st_size
    return CachedThing(kind, path, size, used, unused, held)
