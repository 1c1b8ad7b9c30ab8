"""Which index kinds there are, and how a directory becomes an index. A new kind is one file and one line."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from ..encoders.base import Encoder
from ..errors import InputError, nearest
from .card import Card

if TYPE_CHECKING:
    from .lance import LanceIndex

# kind -> module and class, a `LanceIndex`; what follows a colon in the kind (`faiss:HNSW32`) is the class's
# own.
INDEXES = {
    "lance": "indexes.lance:LanceIndex",
    "flat": "indexes.flat:FlatIndex",
    "faiss": "indexes.faiss:FaissIndex",
}


def create_index(
    path: str | Path,
    *,
    kind: str = "lance",
    name: str = "",
    lexical: bool = True,
    device: str = "auto",
    trust_remote_code: bool = False,
) -> LanceIndex:
    """A new index in the directory `path`, or in memory for `memory://`; one already there is opened.

    `InputError` if the directory holds an index of another kind or with other settings, or other files.
    """
    return index_class(kind).create(
        path, kind=kind, name=name, lexical=lexical, device=device, trust_remote_code=trust_remote_code
    )


def open_index(
    path: str | Path,
    *,
    encoders: Encoder | Sequence[Encoder] | None = None,
    device: str = "auto",
    trust_remote_code: bool = False,
) -> LanceIndex:
    """The index in the directory `path`.

    Given encoders must be those that made its vectors, else `SpecMismatch` names the difference; those not
    given are loaded by their SPEC at the first search that needs them. `InputError` if there is no index, or
    one of a newer format.
    """
    card = Card.read(path)
    return index_class(card.kind)(
        path, card, encoders=encoders, device=device, trust_remote_code=trust_remote_code
    )


def index_class(kind: str) -> type[LanceIndex]:
    """The class of an index kind; `InputError` lists the known ones."""
    family, colon, rest = kind.partition(":")
    if family not in INDEXES:
        raise nearest(family, tuple(INDEXES), "index kind")
    if colon and not rest:
        raise InputError(f"the index kind {kind!r} has nothing after the colon")
    module, _, name = INDEXES[family].partition(":")
    found: type[LanceIndex] = getattr(import_module(f"..{module}", __package__), name)
    return found
