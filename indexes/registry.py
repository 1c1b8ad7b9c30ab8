"""Which index kinds there are, and how a directory becomes an index."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from numbers import Real
from pathlib import Path

from ..encoders.base import Encoder
from ..errors import InputError, check_unicode
from ..specs import Spec, find_factory
from .base import Index, list_encoders
from .encoding import SpaceEncoders
from .index import DocumentIndex
from .kinds.base import Kind
from .passages import PassageIndex
from .snapshot import Snapshot
from .storage.card import GRACE, Card, JointWindows, Passages, Windows
from .storage.place import is_remote
from .storage.storage import Storage

log = logging.getLogger("crosslens")

# kind -> a `kinds.base.Kind`; what follows a colon in the kind (`faiss:HNSW32`) is the class's own. Other packages add
# kinds by entry points of the group `crosslens.indexes`.
KINDS = {
    "lance": "indexes.kinds.lance:LanceKind",
    "flat": "indexes.kinds.flat:FlatKind",
    "faiss": "indexes.kinds.faiss:FaissKind",
    "sparse": "indexes.kinds.sparse:SparseKind",
    "late": "indexes.kinds.late:LateKind",
}


def create_index(
    path: str | Path,
    *,
    kind: str = "lance",
    name: str = "",
    lexical: bool = True,
    passages: Windows | None = None,
    grace: float | None = None,
    device: str = "auto",
    trust_remote_code: bool = False,
) -> Index:
    """A new index in the directory `path`, or in memory for `memory://`; one already there is opened.

    `path` may be in an object store (`s3://BUCKET/PREFIX`, `gs://`, `az://`) or a database that LanceDB serves
    (`db://NAME`), too; keys come from the environment. With `passages` documents are split into such windows, and
    found by the best of them. What a change replaces is kept for `grace` seconds for those who still read it, and goes
    with the next change after that: 600, unless the index was given another number. `InputError` if the directory holds
    an index of another kind or with other settings, or other files, and on a kind that needs a directory elsewhere.
    """
    storage = Storage.create(path, _describe_index(path, kind, name, lexical, passages, grace))
    if grace is not None:
        storage.set_grace(grace)
    return _assemble(storage, SpaceEncoders(device, trust_remote_code))


def check_index(
    path: str | Path,
    *,
    kind: str = "lance",
    name: str = "",
    lexical: bool = True,
    passages: Windows | None = None,
    grace: float | None = None,
) -> Card:
    """The card of the index that `create_index` would open, or of the one that it would make; nothing is made.

    `InputError` as there, and where nothing could be written.
    """
    return Storage.check(path, _describe_index(path, kind, name, lexical, passages, grace))


def _describe_index(
    path: str | Path, kind: str, name: str, lexical: bool, passages: Windows | None, grace: float | None
) -> Card:
    """The card of a new index; `InputError` for settings that it cannot have."""
    found = check_kind(kind)
    if found.needs_folder and is_remote(path):
        raise InputError(f"an index of kind {kind} has files of its own: it needs a directory, not {path}")
    if isinstance(passages, JointWindows) and found.holds != "dense":
        raise InputError(f"an index of kind {kind} cannot add up the scores of passages and of whole documents")
    split = Passages(passages) if passages else None
    check_unicode(str(path), "the directory")
    if grace is not None and not (isinstance(grace, Real) and 0 <= grace < math.inf):
        raise InputError(f"grace must be a number of seconds from 0 on, not {grace}")
    return Card(kind, name, lexical, passages=split, grace=GRACE if grace is None else grace)


def open_index(
    path: str | Path,
    *,
    encoders: Encoder | Sequence[Encoder] | None = None,
    device: str = "auto",
    trust_remote_code: bool = False,
) -> Index:
    """The index in the directory `path`.

    Given encoders must be those that made its vectors, else `SpecMismatch` names the difference; those not
    given are loaded by their SPEC at the first search that needs them. While it is changed, or after a change that was
    interrupted, it is what it was before, which is said in a warning. `InputError` if there is no index, or
    one of a newer format.
    """
    storage = Storage.open(path)
    if storage.is_changing and storage.card.complete:  # else there is nothing before it
        log.warning("%s is being changed, or a change of it was interrupted: it is searched as it was before", path)
    held = SpaceEncoders(device, trust_remote_code)
    for encoder in list_encoders(encoders or ()):
        storage.card.space(encoder.spec)
        held.give(encoder)
    return _assemble(storage, held)


def find_kind(kind: str) -> tuple[type[Kind], str]:
    """The class of an index kind, and what follows the colon in it; `InputError` lists the known ones."""
    family, colon, rest = kind.partition(":")
    if colon and not rest:
        raise InputError(f"the index kind {kind!r} has nothing after the colon")
    found, spec = find_factory(Spec(family, rest), "indexes", KINDS, "index kind")
    return found, spec.checkpoint


def check_kind(kind: str) -> type[Kind]:
    """The class of an index kind that can be made here; `InputError` if it is not known, or wrong after the colon."""
    found, detail = find_kind(kind)
    found.check_detail(kind.removesuffix(detail).rstrip(":"), detail)
    return found


def _assemble(storage: Storage, encoders: SpaceEncoders) -> Index:
    kind, detail = find_kind(storage.card.kind)
    index = DocumentIndex(Snapshot(storage, kind(storage, encoders.device, detail)), encoders)
    return index if storage.card.passages is None else PassageIndex(index)
