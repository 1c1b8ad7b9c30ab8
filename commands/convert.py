"""`crosslens convert`: training data scored by a teacher, in other languages, or as another toolkit has it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .console import progress, show
from .options import Device, Json, Trust


def convert_command(
    data: Annotated[
        str, typer.Argument(metavar="DATA", help="A file of examples, ours or another toolkit's, or a collection.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The JSON lines to write, plain or .gz.")],
    form: Annotated[
        str,
        typer.Option(
            "--format", metavar="SPEC", help="crosslens, tevatron, miracl, mteb, bge, sentence-transformers?negatives=."
        ),
    ] = "crosslens",
    score: Annotated[
        str | None, typer.Option("--score", help="A reranker's SPEC: the teacher whose scores are written.")
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            metavar="SPEC",
            help="Documents in other languages: translate-train?to=rus, translate-distill?to=, mtt?to=rus,zho&mix= or "
            "mtd?to=&mix=.",
        ),
    ] = None,
    parallel: Annotated[
        list[str] | None,
        typer.Option(metavar="COLLECTION", help="Where the recipe finds the translations; repeatable."),
    ] = None,
    by: Annotated[
        str,
        typer.Option(
            help="How translations are told: by ids that differ in the language (id), a key of meta, or the same id "
            "(default)."
        ),
    ] = "",
    force: Annotated[bool, typer.Option("--force", help="Take test topics, too.")] = False,
    seed: Annotated[int, typer.Option(help="Seed of the languages that are drawn.")] = 0,
    device: Device = "auto",
    trust_remote_code: Trust = False,
    json: Json = False,
) -> None:
    """Make training data of training data: add a teacher's scores, change languages, or the format."""
    from ..training.data.convert import Conversion
    from ..training.data.examples import load_examples

    conversion = Conversion(score, recipe, tuple(parallel or ()), by, form, seed, device, trust_remote_code)
    show(conversion.run(load_examples(data, force=force), output, progress=progress), json)
