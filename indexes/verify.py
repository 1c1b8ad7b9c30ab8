"""Looking for damage in an index: every file of it is read, and what follows from the documents is made again."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse

from ..encoders.base import Encoder
from ..errors import InputError, list_few
from ..files import hash_file, parse_json, read_text, write_json
from .base import list_encoders
from .encoding import Precomputed, SpaceEncoders
from .passages import PassageIndex
from .registry import open_index
from .storage.card import Card, Space
from .storage.checksums import CORRECTED, find_damage, find_manifest
from .storage.place import FolderPlace, find_place
from .storage.storage import FILE, Storage, read_card
from .storage.tables import DOCUMENTS, Tables

TABLE = f"{DOCUMENTS}.lance"
ORIGINAL = tuple(f"{TABLE}/{part}/" for part in ("data", "_versions", "_deletions"))  # what follows from nothing else
HINT = "_versions/latest_version_hint.json"  # which of Lance's versions is the latest
MOMENTS, FAISS = "moments_", "faiss-"


@dataclass
class Verification:
    """What looking for damage in a directory found, and did.

    `damaged` maps files, relative to `path`, to what is wrong with them; `repaired` lists those that are as they
    should be again, or will be when they are next needed. `notes` say what else there is to know, or to do.
    """

    path: str
    files: int = 0  # that were looked at
    damaged: dict[str, str] = field(default_factory=dict)
    repaired: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def lasting(self) -> list[str]:
        """The damaged files that stay so."""
        return [name for name in self.damaged if name not in set(self.repaired)]

    def include(self, other: Verification, below: str) -> None:
        """Add what was found in a directory `below` this one."""
        self.files += other.files
        self.damaged |= {f"{below}/{name}": what for name, what in other.damaged.items()}
        self.repaired += [f"{below}/{name}" for name in other.repaired]
        self.notes += other.notes

    def to_json(self) -> dict[str, object]:
        return {
            "path": self.path,
            "files": self.files,
            "damaged": self.damaged,
            "repaired": self.repaired,
            "lasting": self.lasting,
            "notes": self.notes,
        }

    def __str__(self) -> str:
        repaired = set(self.repaired)
        lines = [f"{name}: {what}" + "; repaired" * (name in repaired) for name, what in self.damaged.items()]
        what = f"{len(self.damaged)} damaged, {len(self.repaired)} repaired" if self.damaged else "no damage"
        return "\n".join([*lines, f"{self.path}: {self.files} files, {what}"])


def verify_index(
    path: str | Path,
    *,
    encoders: Encoder | Sequence[Encoder] = (),
    device: str = "auto",
    trust_remote_code: bool = False,
) -> Verification:
    """Read every file of an index, and make again what is damaged and follows from its documents.

    Only the means of queries need an encoder: a given one, else that which the index names. What is repaired is as it
    was but for approximate indexes, which are built and measured again. An index without
    checksums, of an earlier version, is given some if its documents can be read and are what was stored. `InputError`
    if there is no index at `path`, or, where something has to be written, if another process writes.
    """
    found = Verification(str(path))
    place = find_place(path)
    try:
        card = read_card(path)
    except InputError as error:
        if not isinstance(place, FolderPlace) or not (place.has(FILE) or place.has(TABLE)):
            raise
        found.files, found.damaged[FILE] = 1, str(error).partition(f"{FILE} ")[2] or str(error)
        found.notes.append(_advise(path, None))
        return found
    held = SpaceEncoders(device, trust_remote_code)
    for encoder in list_encoders(encoders):
        card.space(encoder.spec)
        held.give(encoder)
    if not isinstance(place, FolderPlace):
        _read_rows(found, Tables(path))
        found.notes.append(f"{path} lies in a database or an object store, which keeps its files and checks them")
    elif card.readable.checksums:
        _check_files(found, place.folder, card.readable)
        if found.damaged:
            _repair(found, place, card, held)
        elif not card.complete:
            found.notes.append(f"{path} is unfinished: rerun `crosslens index` to go on")
    elif not card.complete:
        found.notes.append(f"{path} is unfinished, and has no checksums yet: rerun `crosslens index` to go on")
    else:
        _add_checksums(found, path, card)
    return found


def _check_files(found: Verification, folder: Path, card: Card) -> None:
    found.damaged |= find_damage(folder, card.checksums)
    found.files += len(card.checksums) + 1
    for space in card.spaces:
        for logical, sum in (space.ann.files if space.ann else {}).items():
            name = Path(card.files.get(logical, logical)).name
            found.files += 1
            with suppress(InputError):
                if hash_file(folder / name) == sum:
                    continue
            there = (folder / name).exists()
            found.damaged[name] = "is not what was written (its sha256 differs)" if there else "is missing"
    for hint in sorted(folder.glob(f"*.lance/{HINT}")):
        found.files += 1
        if not _is_hint(hint):
            found.damaged[hint.relative_to(folder).as_posix()] = "names no version that there is"


def _is_hint(path: Path) -> bool:
    try:
        version = parse_json(read_text(path))["version"]
        return find_manifest(path.parents[1], int(version)).exists()
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _repair(found: Verification, place: FolderPlace, card: Card, held: SpaceEncoders) -> None:
    """Take away what is damaged and follows from the documents, and finish the index again."""
    folder = place.folder
    if original := [name for name in found.damaged if name.startswith(ORIGINAL) and not name.endswith(HINT)]:
        found.notes.append(f"cannot repair {list_few(original)}, which holds documents. {_advise(folder, card)}")
        return
    if all(name.endswith(HINT) for name in found.damaged):
        for name in found.damaged:  # Lance finds the latest version without it
            (folder / name).unlink(missing_ok=True)
        found.repaired = list(found.damaged)
        return
    try:
        encoders = [_find_encoder(space, found.damaged, held) for space in card.spaces] if card.complete else []
    except InputError as error:
        found.notes.append(
            f"cannot repair {list_few(found.damaged)}, for which queries are encoded: {error}. Verify it where the "
            "encoder can be loaded, or give it, in Python: "
            f"`crosslens.indexes.verify.verify_index({str(folder)!r}, encoders=...)`"
        )
        return
    plans = {space.ann.kind for space in card.spaces if space.ann}
    with place.lock():
        # Unfinished, so that nobody searches it before all is made again; a kill leaves what `crosslens index` resumes.
        begun = replace(card, complete=False, checksums={}, versions={}, edition=card.edition + 1, last=None)
        with place.write(FILE) as file:
            write_json(file, begun.to_json())
        for name in found.damaged:
            if name.startswith(CORRECTED):
                shutil.rmtree(folder / CORRECTED, ignore_errors=True)
            elif not name.startswith(TABLE) or name.endswith(HINT):
                (folder / name).unlink(missing_ok=True)
        tables = Tables(folder)
        tables.restore({name: version for name, version in card.versions.items() if name == DOCUMENTS})
        tables.drop_indexes()
    found.repaired = list(found.damaged)
    if not card.complete:
        found.notes.append(f"{folder} is unfinished: rerun `crosslens index`, which makes again what was damaged")
        return
    index = open_index(folder, device=held.device, trust_remote_code=held.trust_remote_code)
    if isinstance(index, PassageIndex):
        index = index.passages
    index.add([], encoders)
    if plans:
        index.build(plans.pop() if len(plans) == 1 else "auto")


def _find_encoder(space: Space, damaged: Iterable[str], held: SpaceEncoders) -> Encoder:
    """The encoder of a space whose moments have to be measured again, else what stands for one; else `InputError`."""
    if space.multilingual and any(name.startswith(MOMENTS) and space.fingerprint in name for name in damaged):
        return held.get(space)
    shape = (0, space.spec.dim)
    kinds: dict[str, Any] = {"sparse": scipy.sparse.csr_matrix(shape), "dense": np.zeros(shape), "multi": []}
    return Precomputed(space.spec, [], kinds[space.spec.kind])


def _add_checksums(found: Verification, path: str | Path, card: Card) -> None:
    storage = Storage.open(path)
    _read_rows(found, storage.tables)
    if found.damaged:
        found.notes.append(_advise(path, card))
        return
    with storage.lock():
        storage.save()
    found.files = len(storage.card.checksums)
    found.notes.append(
        f"{path} was made by an earlier crosslens and had no checksums: its documents are whole, and all files have "
        "checksums as they are now"
    )


def _read_rows(found: Verification, tables: Tables) -> None:
    """Read all rows; the texts that are not those that were stored, by the hashes beside them, are damage."""
    try:
        changed = list(tables.find_changed())
    except InputError as error:
        found.damaged[TABLE] = str(error)
        return
    if changed:
        found.damaged[TABLE] = f"the text of {list_few(changed)} is not what was stored"


def _advise(path: str | Path, card: Card | None) -> str:
    """How an index is made again that cannot be repaired."""
    options = "".join(f" --encoder '{space.spec.name}'" for space in card.spaces) if card else ""
    if card and card.kind != "lance":
        options += f" --index {card.kind}"
    return f"Make it again: move {path} away and run `crosslens index COLLECTION {path}{options}`"
