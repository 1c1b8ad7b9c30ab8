"""`crosslens list`: the documents of an index, a line each."""

from __future__ import annotations

import json as format
from collections.abc import Iterable
from itertools import islice
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import escape_controls
from .console import say
from .options import Json, Langs, Location, Wheres, parse_filters

if TYPE_CHECKING:
    from ..indexes.listing import Listed


def list_command(
    directory: Location,
    lang: Langs = None,
    where: Wheres = None,
    limit: Annotated[int | None, typer.Option(min=0, help="So many at most; else all.")] = None,
    json: Json = False,
) -> None:
    """The documents of an index: id, language, what it holds and the start of its text, between tabs, as a stream."""
    from ..indexes.listing import list_documents
    from ..indexes.storage.storage import Storage

    storage = Storage.open(directory)
    wanted = parse_filters([*(where or ()), *(f"lang={each}" for each in lang or ())])
    found = islice(list_documents(storage, wanted), limit)
    if json:
        _write_json(storage.path, found)
        return
    count = 0
    for count, each in enumerate(found, 1):  # noqa: B007 (how many there were)
        print(escape_controls(each.id), each.lang or "", each.modality, escape_controls(each.snippet), sep="\t")
    if not count:
        say("no document matches" if wanted else "there are no documents")
    elif not storage.card.complete:
        say(f"{storage.path} is unfinished: these are the documents that are stored so far")


def _write_json(path: str, documents: Iterable[Listed]) -> None:
    """One object, written as the documents come: a line each."""
    count = 0
    print(f'{{\n"index": {format.dumps(path, ensure_ascii=False)},\n"documents": [', end="")
    for count, each in enumerate(documents, 1):
        print("," * (count > 1) + "\n" + format.dumps(each.to_json(), ensure_ascii=False), end="")
    print(f'\n],\n"count": {count}\n}}')
