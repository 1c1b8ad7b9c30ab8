"""`crosslens rewrite`: a collection's topics as a language model rewrites them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .console import leave_stdout, progress, show
from .options import Collection, Device, Fields, Json, QueryLang, Source, Trust


def rewrite_command(
    collection: Collection,
    spec: Annotated[
        str,
        typer.Option(
            "--with",
            metavar="SPEC",
            help="METHOD@FAMILY:CHECKPOINT[?lang=&n=], METHOD being hyde, query2doc, keywords, "
            "question, decompose or cot.",
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The JSON lines to write, plain or .gz.")],
    index: Annotated[
        str | None,
        typer.Option(metavar="DIR", help="The index whose languages lang=document means, not the collection's."),
    ] = None,
    fields: Fields = None,
    query_lang: QueryLang = None,
    source: Source = None,
    device: Device = "auto",
    trust_remote_code: Trust = False,
    json: Json = False,
) -> None:
    """Rewrite a collection's topics into a file, to look at and to search with; killed, it goes on where it was."""
    from ..multilingual.collections.registry import load_collection
    from ..systems.rewriting import rewrite_topics

    report = rewrite_topics(
        load_collection(collection), spec, output, index=index, fields=fields, lang=query_lang,
        source=source, device=device, trust_remote_code=trust_remote_code, progress=progress,  # type: ignore[arg-type]
    )  # fmt: skip
    with leave_stdout(output):
        show(report, json)
