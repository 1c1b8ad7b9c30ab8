"""`crosslens train`: a checkpoint out of examples and a base."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .console import progress, show
from .options import Json, Trust

Data = Annotated[str, typer.Argument(metavar="DATA", help="A file of examples, or a collection with judgements.")]
Base = Annotated[str, typer.Option("--base", metavar="SPEC", help="What training begins with.")]
Made = Annotated[Path, typer.Option("--output", "-o", help="The directory to make; a rerun resumes.")]
Recipe = Annotated[str | None, typer.Option(metavar="NAME|FILE.toml", help="A ready recipe, or one of your own.")]
Dev = Annotated[
    str | None, typer.Option(metavar="COLLECTION", help="Stop early, and keep the best weights, by its nDCG.")
]
Minutes = Annotated[float | None, typer.Option(help="End after so many minutes.")]
Steps = Annotated[int | None, typer.Option(help="End after so many steps.")]
Batch = Annotated[int | None, typer.Option(help="Examples a step.")]
Rate = Annotated[float | None, typer.Option(help="The highest learning rate.")]
Seed = Annotated[int | None, typer.Option(help="Seed of all that is drawn at random.")]
Force = Annotated[bool, typer.Option("--force", help="Train on test topics, too.")]
Where = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")]


def train_encoder_command(
    data: Data,
    base: Base,
    output: Made,
    recipe: Recipe = None,
    dev: Dev = None,
    minutes: Minutes = None,
    steps: Steps = None,
    batch: Batch = None,
    learning_rate: Rate = None,
    seed: Seed = None,
    force: Force = False,
    device: Where = "auto",
    trust_remote_code: Trust = False,
    json: Json = False,
) -> None:
    """Train an encoder; killed, the same command goes on. Options win over the recipe."""
    from ..multilingual.collections.registry import load_collection
    from ..training.encoder.train import train_encoder
    from ..training.recipe import EncoderRecipe, read_recipe

    chosen = read_recipe(
        EncoderRecipe, recipe, minutes=minutes, steps=steps, batch=batch, learning_rate=learning_rate, seed=seed
    )
    watched = load_collection(dev) if dev else None
    result = train_encoder(
        data,
        base,
        output,
        chosen,
        dev=watched,
        force=force,
        device=device,
        trust_remote_code=trust_remote_code,
        progress=progress,
    )
    show(result, json)


def train_ranker_command(
    data: Data,
    base: Base,
    output: Made,
    recipe: Recipe = None,
    dev: Dev = None,
    minutes: Minutes = None,
    steps: Steps = None,
    batch: Batch = None,
    learning_rate: Rate = None,
    seed: Seed = None,
    force: Force = False,
    device: Where = "auto",
    trust_remote_code: Trust = False,
    json: Json = False,
) -> None:
    """Train a ranker, PROMPT@FAMILY:CHECKPOINT; killed, the same command goes on. Options win over the recipe."""
    from ..training.data.examples import load_examples
    from ..training.ranker.recipe import RankerRecipe
    from ..training.ranker.train import RankerTraining
    from ..training.recipe import read_recipe

    chosen = read_recipe(
        RankerRecipe, recipe, minutes=minutes, steps=steps, batch=batch, learning_rate=learning_rate, seed=seed
    )
    training = RankerTraining(
        load_examples(data, force=force),
        base,
        output,
        chosen,
        load_examples(dev) if dev else None,
        device,
        trust_remote_code,
    )
    show(training.run(progress), json)
