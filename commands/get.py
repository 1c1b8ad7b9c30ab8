"""`crosslens get`: documents of an index, whole."""

from __future__ import annotations

import json as format
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import escape_controls
from .console import emit
from .options import Ids, IdsFile, Json, Location, list_ids

if TYPE_CHECKING:
    from ..items import Item


def get_command(directory: Location, ids: Ids = None, file: IdsFile = None, json: Json = False) -> None:
    """Documents of an index, whole: text, metadata, and where their pictures are; status 2 if one is not there."""
    from ..indexes.registry import open_index

    found = [_describe(item) for item in open_index(directory).get(list_ids(ids, file))]
    if json:
        emit({"index": directory, "documents": found})
        return
    for number, document in enumerate(found):
        if number:
            print()
        for name, value in document.items():
            if name != "text" and value not in (None, {}):
                shown = value if isinstance(value, str) else format.dumps(value, ensure_ascii=False)
                print(escape_controls(f"{name + ':':<9} {shown}"))
        if document["text"] is not None:
            print("\n" + "\n".join(map(escape_controls, document["text"].splitlines())))


def _describe(item: Item) -> dict[str, Any]:
    """A document as JSON: a picture that is stored in the index, and has no path, is said to be there."""
    media = {
        name: str(held) if isinstance(held, Path) else f"(stored {name})"
        for name, held in item.contents.items()
        if held is not None
    }
    head = {"id": item.id, "lang": item.lang, "modality": item.modality, "image": media.pop("image", None)}
    return {**head, **media, "meta": dict(item.meta), "text": item.text}
