"""Which index kinds there are, and how a directory becomes an index. A new kind is one file and one line."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from ..encoders.base import Encoder
from ..errors import InputError, check_known
from .card import Card, Windows
from .storage import is_remote

if TYPE_CHECKING:
    from .lance import LanceIndex
    from .passages import PassageIndex

# kind -> module and class, a `LanceIndex`; what follows a colon in the kind (`faiss:HNSW32`) is the class's
# own.
INDEXES = {
    "lance": "indexes.lance:LanceIndex",
    "flat": "indexes.flat:FlatIndex",
    "faiss": "indexes.faiss:FaissIndex",
    "sparse": "indexes.sparse:SparseIndex",
    "late": "indexes.late:LateIndex",
}


def create_index(
    path: str | Path,
    *,
    kind: str = "lance",
    name: str = "",
    lexical: bool = True,
    passages: Windows | None = None,
    device: str = "auto",
    trust_remote_code: bool = False,
) -> LanceIndex | PassageIndex:
    """A new index in the directory `path`, or in memory for `memory://`; one already there is opened.

    `path` may be in an object store (`s3://BUCKET/PREFIX`, `gs://`, `az://`) or a database that LanceDB serves
    (`db://NAME`), too; keys come from the environment. With `passages` documents are split into such windows, and
    found by the best of them. `InputError` if the directory holds an index of another kind or with other settings, or
    other files, and on a kind that needs a directory elsewhere.
    """
    found = index_class(kind)
    if found.needs_folder and is_remote(path):
        raise InputError(f"an index of kind {kind} has files of its own: it needs a directory, not {path}")
    made = found.create(
        path,
        kind=kind,
        name=name,
        lexical=lexical,
        passages=passages,
        device=device,
        trust_remote_code=trust_remote_code,
    )
    return _whole(made)


def open_index(
    path: str | Path,
    *,
    encoders: Encoder | Sequence[Encoder] | None = None,
    device: str = "auto",
    trust_remote_code: bool = False,
) -> LanceIndex | PassageIndex:
    """The index in the directory `path`: a `PassageIndex` if it was made of passages.

    Given encoders must be those that made its vectors, else `SpecMismatch` names the difference; those not
    given are loaded by their SPEC at the first search that needs them. `InputError` if there is no index, or
    one of a newer format.
    """
    card = Card.read(path)
    opened = index_class(card.kind)(
        path, card, encoders=encoders, device=device, trust_remote_code=trust_remote_code
    )
    return _whole(opened)


def index_class(kind: str) -> type[LanceIndex]:
    """The class of an index kind; `InputError` lists the known ones."""
    family, colon, rest = kind.partition(":")
    check_known(family, INDEXES, "index kind")
    if colon and not rest:
        raise InputError(f"the index kind {kind!r} has nothing after the colon")
    module, _, name = INDEXES[family].partition(":")
    found: type[LanceIndex] = getattr(import_module(f"..{module}", __package__), name)
    if rest and not found.takes_more:
        raise InputError(f"the index kind {kind!r}: {family} takes nothing after it")
    return found


def _whole(index: LanceIndex) -> LanceIndex | PassageIndex:
    """The index as documents are seen in it."""
    if index.card.passages is None:
        return index
    from .passages import PassageIndex

    return PassageIndex(index)
