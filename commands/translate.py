"""`crosslens translate`: documents or topics in another language."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .console import leave_stdout, progress, show
from .options import Collection, Device, Fields, Json, Trust


def translate_command(
    collection: Collection,
    output: Annotated[Path, typer.Option("--output", "-o", help="The JSON lines to write; a rerun resumes.")],
    to: Annotated[str, typer.Option(help="The language to translate into.")],
    spec: Annotated[
        str, typer.Option("--with", help="The model: hf:facebook/nllb-200-distilled-600M, openai:MODEL, ...")
    ],
    what: Annotated[str, typer.Option(help="documents or queries.")] = "documents",
    fields: Fields = None,
    device: Device = "auto",
    trust_remote_code: Trust = False,
    json: Json = False,
) -> None:
    """Translate a collection's documents or topics into a file; killed, the same command goes on where it was."""
    from ..multilingual.collections.registry import load_collection
    from ..multilingual.judges import check_judge
    from ..multilingual.rewriting.translation import load_translation
    from ..multilingual.rewriting.translation_files import check_translation, translate_collection

    check_translation(output, what, fields)
    check_judge(spec)
    source = load_collection(collection)
    if what == "queries":
        source.queries(fields=fields)  # refuses fields that topics do not have
    total = source.check().documents if what == "documents" else None
    stage = load_translation(spec, to=to, device=device, trust_remote_code=trust_remote_code)
    with progress("translating", total) as bar:
        report = translate_collection(source, output, stage, what=what, fields=fields, total=total, progress=bar)  # type: ignore[arg-type]
    with leave_stdout(output):
        show(report, json)
