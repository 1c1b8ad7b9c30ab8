"""`crosslens train encoder`: examples and a base in, a checkpoint out; killed, the same call goes on."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ...checkpoints.devices import name_dtype, resolve_device
from ...encoders.base import check_modalities
from ...encoders.registry import load_encoder
from ...errors import CrosslensError, InputError
from ...files import make_directory
from ...multilingual.collections.base import Collection
from ...pipeline import Progress, show_nothing
from ...specs import Spec
from ..card import Trained, find_trained, write_card
from ..data.examples import Example, Examples, load_examples
from ..data.held_out import warn_of_common
from ..loop import find_checkpoint
from ..processes import join_processes, share_weights
from ..recipe import EncoderRecipe
from ..session import OPEN, open_work
from ..weights import is_part
from .anchors import Anchor, interpolate
from .batches import Batches, Material
from .dev import Dev
from .loop import EncoderTrainer
from .trainable import Base, merge_adapters, open_base

LEAST = 2  # examples: with one there is no other document to tell its positive from
FISHER = 16  # batches of replay that tell how important a weight is


def train_encoder(
    data: str | Examples,
    base: str,
    output: str | Path,
    recipe: EncoderRecipe | None = None,
    *,
    dev: Collection | None = None,
    force: bool = False,
    device: str = "auto",
    trust_remote_code: bool = False,
    progress: Progress = show_nothing,
) -> Trained:
    """Train an encoder on examples and write a checkpoint directory that its family loads, with its prompts in it.

    Work happens in `.OUTPUT.partial` beside it, and the same call goes on from there. `InputError` for a base that
    cannot be trained, a test set (unless `force`), too few examples, examples without what the recipe's loss needs, a
    directory that holds something else, a loss that is not finite, and a full disk.
    """
    output, recipe = Path(output), recipe or EncoderRecipe()
    examples = load_examples(data, force=force) if isinstance(data, str) else data
    examples.check_enough(LEAST)
    if recipe.loss in ("kl", "margin-mse") and not examples.card["scored"]:
        raise InputError(f"{examples.name} has no scores of a teacher, which the loss {recipe.loss} learns from")
    call = {
        "format": 1,
        "base": base,
        "examples": examples.card["sha256"],
        "dev": dev.name if dev else None,
        "recipe": {key: value for key, value in recipe.to_json().items() if key not in OPEN},
    }
    processes = join_processes(device)
    if found := find_trained(output, call, recipe):
        return found
    where = resolve_device(device)
    if where.index:
        raise InputError(
            f"training takes the first GPU there is: set CUDA_VISIBLE_DEVICES={where.index}, and --device cuda"
        )
    if processes.num_processes > 1 and where.type == "cuda":
        where = processes.device
    partial, main = output.with_name(f".{output.name}.partial"), processes.is_main_process
    with open_work(partial, call, lambda: find_checkpoint(partial) is not None) if main else nullcontext():
        processes.wait_for_everyone()
        opened = open_base(base, recipe, device=str(where), trust_remote_code=trust_remote_code)
        with closing(Training(opened, examples, recipe, partial, dev, where)) as work:
            trainer = work.run(progress)
            if main:
                work.write(trainer, partial / "result", output, call)
                os.replace(partial / "result", output)
    if main:
        shutil.rmtree(partial, ignore_errors=True)
    processes.wait_for_everyone()
    return Trained.read(output)


class Training:
    """A base, examples and a recipe, set up to be trained in a folder."""

    def __init__(
        self, base: Base, examples: Examples, recipe: EncoderRecipe, folder: Path, dev: Collection | None,
        device: torch.device,
    ) -> None:  # fmt: skip
        self.base, self.examples, self.recipe, self.folder, self.device = base, examples, recipe, folder, device
        self.material = Material(folder)
        self.own = self.material.add(check_items(examples, base))
        self.replayed = range(0)
        if recipe.replay:
            self.replayed = self.material.add(check_items(load_examples(recipe.replay), base), "replay")
        self.material.finish()
        self.interpolated: float | None = None  # the dev collection's measure of weights that were interpolated
        if "image" in base.trainable.encoder.spec.modalities and "image" not in self.material.modalities:
            raise InputError(f"no example has a picture, which {base.spec} is to learn: give documents an image")
        self.dev = Dev.read(dev, recipe.measure, recipe.dev_documents, recipe.seed) if dev else None
        if self.dev:
            warn_of_common(self.dev.queries, self.dev.name, self.material.list_queries(self.own))

    def close(self) -> None:
        """Give back the room on the disk that the examples took."""
        self.material.close()

    def run(self, progress: Progress) -> EncoderTrainer:
        """Train; the weights are then the best ones that were seen, or the last where there is no dev collection."""
        recipe, trainable = self.recipe, self.base.trainable
        steps = recipe.steps
        if steps is None:
            size = Batches(self.material, self.own, self.replayed, recipe, 0)
            steps = max(1, math.ceil(recipe.epochs * size.epoch))
        batches = Batches(self.material, self.own, self.replayed, recipe, steps)
        share_weights([each for each in trainable.network.parameters() if each.requires_grad])
        anchored = recipe.anchor_strength if recipe.anchor != "none" else 0.0
        anchor = Anchor(trainable.network, anchored)
        kept = [each.detach().clone() for each in list_moved(trainable.network)]
        trainer = EncoderTrainer(
            trainable, batches, recipe, self.folder, device=self.device, dev=self.dev, anchor=anchor
        )
        if recipe.anchor == "ewc":
            stream = iter(Batches(self.material, self.replayed, range(0), recipe, FISHER))
            anchor.weigh(lambda: trainer.learn(next(stream)), FISHER)
        trainer.run(progress)
        if recipe.interpolate:
            interpolate(list_moved(trainable.network), kept, recipe.interpolate)
            if self.dev:
                self.interpolated = trainer.measure_now()
        return trainer

    def write(self, trainer: EncoderTrainer, folder: Path, output: Path, call: Mapping[str, Any]) -> None:
        """Write the checkpoint and its card into a folder, which will be the `output`."""
        shutil.rmtree(folder, ignore_errors=True)
        make_directory(folder)
        dev, base = self.dev.describe() if self.dev else None, self.base
        if dev and self.interpolated is not None:
            dev["best"] = self.interpolated
        if self.recipe.merge:
            merge_adapters(base.trainable.network)
        options = base.trainable.save(folder)
        write_card(
            folder, trainer, call, self.device, dev,
            kind="encoder",
            spec=str(Spec(base.family, str(output), options)),
            base={"spec": base.spec, "revision": base.revision},
            examples=dict(self.examples.card),
            micro_tokens=trainer.memory.micro,
            computed_in=name_dtype(trainer.precision),
        )  # fmt: skip
        # A base that adapters stand beside may be too large for float32.
        options = {**options, "dtype": "float32" if self.recipe.merge else "bfloat16"}
        check_saved(base.trainable.encoder, base.family, folder, options)


def list_moved(network: torch.nn.Module) -> list[torch.Tensor]:
    """The weights by which a model is another than its base; of an adapter's two factors the one that began as 0."""
    return [each for name, each in network.named_parameters() if each.requires_grad and not is_part(name, "lora_A")]


def check_items(examples: Iterable[Example], base: Base) -> Iterator[Example]:
    """The examples as they come; `InputError` at an item of which the base reads nothing."""
    spec = replace(base.trainable.encoder.spec, name=base.spec)
    for example in examples:
        check_modalities((example.query, *example.documents), spec)
        yield example


def check_saved(encoder: Any, family: str, folder: Path, options: Mapping[str, str]) -> None:
    """`CrosslensError` unless the folder loads as the encoder it was written from, in all but its weights."""
    found = load_encoder(str(Spec(family, str(folder), options)), device="cpu").spec
    # An adapter beside its base is named there.
    if difference := replace(found, revision=encoder.spec.revision, extra=encoder.spec.extra).difference(encoder.spec):
        raise CrosslensError(f"{folder} does not load as what was trained ({difference}): please report this")
