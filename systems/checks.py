"""What can be known to be wrong before a model is loaded or anything is written."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from ..encoders.registry import Foreseen, check_encoder
from ..errors import InputError, list_few
from ..indexes.registry import check_index, find_kind
from ..indexes.storage.card import Card
from ..items import Item
from ..media.modalities import MEDIA
from ..specs import Spec

LOOKED_AT = 10_000  # first documents of a collection, which takes part of a second


def check_indexing(
    documents: Iterable[Item],
    directory: str | Path,
    specs: Sequence[str],
    *,
    media: bool,
    kind: str,
    ann: str,
    **settings: Any,
) -> None:
    """`InputError` where these encoders cannot make this index, or nothing in it can hold the first of the documents.

    `media` says whether documents may hold other than text: where none does and text is read, none has to be looked at.
    `settings` are those of `create_index`, beside its kind.
    """
    card = check_index(directory, kind=kind, **settings)
    found = find_kind(kind)[0]
    found.check_ann(kind, ann)
    if len(specs) > 1 and not found.several:
        raise InputError(
            f"an index of kind {kind} holds the vectors of one encoder: make one for each, and fuse their runs"
        )
    foreseen = {spec: check_encoder(spec) for spec in specs}
    for spec, each in foreseen.items():
        if each.kind not in (None, found.holds):
            raise InputError(
                f"{spec} makes {each.kind} vectors, and an index of kind {kind} holds {found.holds} ones: give another "
                "encoder, or another kind of index (--index)"
            )
    _check_held(directory, card, specs)
    _check_readable(documents, card, foreseen, media)


def _check_held(directory: str | Path, card: Card, specs: Sequence[str]) -> None:
    """`InputError` where vectors that are there need an encoder that is not given: all packages' names are known."""
    given, held = (list(map(Spec.parse, names)) for names in (specs, [space.spec.name for space in card.spaces]))
    packaged = {spec.checkpoint for spec in given if spec.family == "offline"}
    for spec in held:
        lacking = spec.family == "offline" and spec.checkpoint not in packaged
        if len(given) < len(held) or (lacking and len(packaged) == len(given)):
            names = list_few([space.spec.name for space in card.spaces])
            raise InputError(f"{directory} holds vectors of {names}: give those encoders, too, or leave --encoder out")


def _check_readable(documents: Iterable[Item], card: Card, foreseen: dict[str, Foreseen], media: bool) -> None:
    """`InputError` for a document that neither full text nor any of the encoders could take."""
    readable = {"text"} if card.lexical else set()
    readable |= {each for space in card.spaces for each in space.spec.modalities}
    for found in foreseen.values():
        if found.modalities is None:
            return
        readable |= set(found.modalities)
    if readable.issuperset(("text", *MEDIA) if media else ("text",)):
        return
    for item in islice(documents, LOOKED_AT):
        if item.modalities and not item.modalities & readable:
            raise InputError(
                f"item {item.id!r} holds {' and '.join(sorted(item.modalities))}, which none of the encoders reads "
                f"({list_few(foreseen)}); give one that does, too, as offline:conse or a clip: for pictures"
            )
