"""`crosslens train`: a checkpoint out of examples and a base."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from .console import progress, show
from .options import Json, Trust

if TYPE_CHECKING:
    from ..training.data.examples import Examples
    from ..training.recipe import Recipe

    R = TypeVar("R", bound=Recipe)

Data = Annotated[str, typer.Argument(metavar="DATA", help="A file of examples, or a collection with judgements.")]
Base = Annotated[str, typer.Option("--base", metavar="SPEC", help="What training begins with.")]
Made = Annotated[Path, typer.Option("--output", "-o", help="The directory to make; a rerun resumes.")]
Ready = Annotated[
    str | None, typer.Option("--recipe", metavar="NAME|FILE.toml", help="A ready recipe, or one of your own.")
]
Watched = Annotated[
    str | None, typer.Option("--dev", metavar="COLLECTION", help="Stop early, and keep the best weights, by its nDCG.")
]
Minutes = Annotated[float | None, typer.Option(help="End after so many minutes.")]
Steps = Annotated[int | None, typer.Option(help="End after so many steps.")]
Batch = Annotated[int | None, typer.Option(help="Examples a step.")]
Rate = Annotated[float | None, typer.Option(help="The highest learning rate.")]
Seed = Annotated[int | None, typer.Option(help="Seed of all that is drawn at random.")]
Force = Annotated[bool, typer.Option("--force", help="Train on test topics, too.")]
Where = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:N or mps.")]


@dataclass(frozen=True)
class Options:
    """What `train encoder` and `train ranker` are told alike."""

    data: str
    base: str
    output: Path
    recipe: str | None
    dev: str | None
    given: dict[str, Any]
    force: bool
    device: str
    trust_remote_code: bool

    def read_examples(self) -> Examples:
        from ..training.data.examples import load_examples

        return load_examples(self.data, force=self.force)

    def read_recipe(self, kind: type[R]) -> R:
        """The recipe; what is an option wins over it."""
        from ..training.recipe import read_recipe

        return read_recipe(kind, self.recipe, **self.given)


def _define(train: Callable[[Options], Any], summary: str) -> Callable[..., None]:
    """The command with the options of all training."""

    def command(
        data: Data,
        base: Base,
        output: Made,
        recipe: Ready = None,
        dev: Watched = None,
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
        given = {
            "minutes": minutes, "steps": steps, "batch": batch, "learning_rate": learning_rate, "seed": seed,
        }  # fmt: skip
        from ..training.processes import find_rank

        made = train(Options(data, base, output, recipe, dev, given, force, device, trust_remote_code))
        if find_rank()[0] == 0:  # of those that train together, one says so
            show(made, json)

    command.__doc__ = summary
    return command


def _train_encoder(options: Options) -> Any:
    from ..multilingual.collections.registry import load_collection
    from ..training.encoder.train import train_encoder
    from ..training.recipe import EncoderRecipe

    recipe = options.read_recipe(EncoderRecipe)
    return train_encoder(
        options.read_examples(), options.base, options.output, recipe,
        dev=load_collection(options.dev) if options.dev else None,
        device=options.device, trust_remote_code=options.trust_remote_code, progress=progress,
    )  # fmt: skip


def _train_ranker(options: Options) -> Any:
    from ..training.data.examples import load_examples
    from ..training.ranker.recipe import RankerRecipe
    from ..training.ranker.train import RankerTraining

    recipe = options.read_recipe(RankerRecipe)
    dev = load_examples(options.dev) if options.dev else None
    return RankerTraining(
        options.read_examples(), options.base, options.output, recipe, dev, options.device, options.trust_remote_code
    ).run(progress)


train_encoder_command = _define(
    _train_encoder, "Train an encoder; killed, the same command goes on. Options win over the recipe."
)
train_ranker_command = _define(
    _train_ranker,
    "Train a ranker, PROMPT@FAMILY:CHECKPOINT; killed, the same command goes on. Options win over the recipe.",
)
