"""`crosslens export`: a collection as files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .console import emit, progress
from .options import Collection, Fields, Json, QueryLang, Source


def export_command(
    collection: Collection,
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="A new or empty directory.")],
    format: Annotated[str, typer.Option(help="directory or beir.")] = "directory",
    fields: Fields = None,
    query_lang: QueryLang = None,
    source: Source = None,
    json: Json = False,
) -> None:
    """Write a collection as files: documents, topics, judgements, and copies of its pictures."""
    from ..multilingual.collections.export import export_collection
    from ..multilingual.collections.registry import load_collection
    from ..pipeline import watch

    with progress("exporting") as bar, watch(bar):
        done = export_collection(
            load_collection(collection), directory, format, fields=fields, lang=query_lang, source=source  # type: ignore[arg-type]
        )  # fmt: skip
    if json:
        emit({"directory": str(directory), "format": format, **done.to_json()})
    else:
        print(
            f"{directory}: {done.documents} documents, {done.queries} topics, {done.judged} judgements, "
            f"{done.images} pictures"
        )
