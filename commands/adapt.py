"""`crosslens adapt`: an encoder that knows a collection's documents, without labels."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .console import progress, show
from .options import Collection, Device, Json, Trust


def adapt_command(
    collection: Collection,
    base: Annotated[str, typer.Option("--base", metavar="SPEC", help="The encoder that is adapted.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The directory to make; a rerun resumes.")],
    source: Annotated[
        list[str] | None,
        typer.Option(
            "--with",
            metavar="SOURCE",
            help="What makes questions, as in `synthesize`; repeatable. [default: translations, then titles and ict]",
            show_default=False,
        ),
    ] = None,
    generator: Annotated[
        str | None, typer.Option(metavar="SPEC", help="A language model that writes questions, or a source with one.")
    ] = None,
    judge: Annotated[
        str | None, typer.Option(metavar="SPEC", help="A reranker whose scores are taught: likelihood@offline:gemma.")
    ] = None,
    langs: Annotated[
        str, typer.Option(help="Languages in which the generator writes: same, eng, or a mix as eng=0.5,same=0.5.")
    ] = "same",
    recipe: Annotated[
        str | None, typer.Option(metavar="NAME|FILE.toml", help="How to train. [default: adapt, or adapt-distilled]")
    ] = None,
    documents: Annotated[int, typer.Option(help="Documents that get questions, at most.")] = 4000,
    pool: Annotated[int, typer.Option(help="Documents that are searched, at most.")] = 10_000,
    minutes: Annotated[float, typer.Option(help="What there is time for.")] = 60.0,
    seed: Annotated[int, typer.Option(help="Seed of all that is drawn at random.")] = 0,
    device: Device = "auto",
    trust_remote_code: Trust = False,
    json: Json = False,
) -> None:
    """Adapt an encoder to documents without labels, and compare it with its base; killed, the same command goes on."""
    from ..multilingual.collections.registry import load_collection
    from ..training.adapt.adaptation import Adaptation

    task = Adaptation(
        base, tuple(source or ()), generator, judge, langs, recipe, documents, pool, minutes, seed, device,
        trust_remote_code,
    )  # fmt: skip
    show(task.run(load_collection(collection), output, progress=progress), json)
