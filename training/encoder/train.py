"""`crosslens train encoder`: examples and a base in, a checkpoint out; killed, the same call goes on."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import transformers

from ...checkpoints.devices import resolve_device
from ...encoders.registry import load_encoder
from ...errors import CrosslensError, InputError
from ...files import lock_directory, make_directory, read_json, write_json
from ...items import hash_json
from ...multilingual.collections.base import Collection
from ...pipeline import Progress, show_nothing
from ...specs import Spec
from ..data.examples import Examples, load_examples
from ..data.held_out import refuse_test_set
from ..disk import explain_full_disk
from ..recipe import EncoderRecipe
from ..session import begin_work, measure_memory
from .anchors import Anchor, interpolate
from .batches import Batches, Material
from .dev import Dev
from .loop import EncoderTrainer
from .page import write_training_page
from .trainable import Base, merge_adapters, open_base

FORMAT = 1
CARD, PAGE = "training.json", "training.html"
LEAST = 2  # examples: with one there is no other document to tell its positive from
FISHER = 16  # batches of replay that tell how important a weight is
# What may differ when a training goes on: it ends earlier or later.
OPEN = ("epochs", "steps", "minutes")


@dataclass(frozen=True)
class TrainedEncoder:
    """What came of a training: where it is, the SPEC that loads it, and its card (`training.json`)."""

    output: Path
    card: Mapping[str, Any]

    @property
    def spec(self) -> str:
        return str(self.card["spec"])

    def to_json(self) -> dict[str, Any]:
        return {"output": str(self.output), **self.card}

    def __str__(self) -> str:
        card = self.card
        lines = [
            f"{self.output}: {card['steps']} steps of {card['recipe']['batch']} examples from {card['base']['spec']}, "
            f"{card['seconds']:.0f} s, {card['examples_per_second']:.1f} examples a second, "
            f"{card['peak_gib']:.1f} GiB",
            f"load it as {self.spec}",
        ]
        if dev := card["dev"]:
            change = f"{dev['base']:.4f} before, {dev['best']:.4f} after step {dev['best_step']}"
            lines.insert(1, f"{dev['measure']} on {dev['collection']}: {change}")
        return "\n".join(lines)

    @property
    def notes(self) -> list[str]:
        """What people should know, a line each."""
        dev = self.card["dev"]
        if dev and dev["best"] <= dev["base"]:
            return [f"no step was better than the base on {dev['collection']}"]
        return []


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
) -> TrainedEncoder:
    """Train an encoder on examples and write a checkpoint directory that its family loads, with its prompts in it.

    Work happens in `.OUTPUT.partial` beside it, and the same call goes on from there. `InputError` for a base that
    cannot be trained, a test set (unless `force`), too few examples, examples without what the recipe's loss needs, a
    directory that holds something else, a loss that is not finite, and a full disk.
    """
    output, recipe = Path(output), recipe or EncoderRecipe()
    if isinstance(data, str) and not force:
        refuse_test_set(data)
    examples = load_examples(data) if isinstance(data, str) else data
    examples.check_enough(LEAST)
    if recipe.loss != "contrast" and not examples.card["scored"]:
        raise InputError(f"{examples.name} has no scores of a teacher, which the loss {recipe.loss} learns from")
    call = {
        "format": FORMAT,
        "base": base,
        "examples": examples.card["sha256"],
        "dev": dev.name if dev else None,
        "recipe": {key: value for key, value in recipe.to_json().items() if key not in OPEN},
    }
    partial = output.with_name(f".{output.name}.partial")
    if output.exists():
        return _find_finished(output, call)
    where = resolve_device(device)
    if where.index:
        raise InputError(
            f"training takes the first GPU there is: set CUDA_VISIBLE_DEVICES={where.index}, and --device cuda"
        )
    make_directory(partial)
    with lock_directory(partial), explain_full_disk(partial):
        begin_work(partial, call)
        opened = open_base(base, recipe, device=device, trust_remote_code=trust_remote_code)
        work = Training(opened, examples, recipe, partial, dev, where)
        trainer = work.run(progress)
        work.write(trainer, partial / "result", call)
        os.replace(partial / "result", output)
    shutil.rmtree(partial, ignore_errors=True)
    return TrainedEncoder(output, read_json(output / CARD))


class Training:
    """A base, examples and a recipe, set up to be trained in a folder."""

    def __init__(
        self, base: Base, examples: Examples, recipe: EncoderRecipe, folder: Path, dev: Collection | None,
        device: torch.device,
    ) -> None:  # fmt: skip
        self.base, self.examples, self.recipe, self.folder, self.device = base, examples, recipe, folder, device
        self.material = Material()
        self.own = self.material.add(examples)
        self.replayed = range(0)
        if recipe.replay:
            self.replayed = self.material.add(load_examples(recipe.replay), "replay")
        self.dev = Dev.read(dev, recipe.measure, recipe.dev_documents, recipe.seed) if dev else None

    def run(self, progress: Progress) -> EncoderTrainer:
        """Train; the weights are then the best ones that were seen, or the last where there is no dev collection."""
        recipe, trainable = self.recipe, self.base.trainable
        steps = recipe.steps
        if steps is None:
            size = Batches(self.material, self.own, self.replayed, recipe, 0)
            steps = max(1, math.ceil(recipe.epochs * size.epoch))
        batches = Batches(self.material, self.own, self.replayed, recipe, steps)
        anchored = recipe.anchor_strength if recipe.anchor != "none" else 0.0
        anchor = Anchor(trainable.network, anchored)
        kept = [each.detach().clone() for each in trainable.network.parameters() if each.requires_grad]
        trainer = EncoderTrainer(
            trainable, batches, recipe, self.folder, device=self.device, dev=self.dev, anchor=anchor
        )
        if recipe.anchor == "ewc":
            stream = iter(Batches(self.material, self.replayed, range(0), recipe, FISHER))
            anchor.weigh(lambda: trainer.learn(next(stream)), FISHER)
        notes = self.folder / "base.json"
        if self.dev and not notes.exists():
            write_json(notes, {"measure": trainer.measure()})
        trainer.run(progress)
        if recipe.interpolate:
            trained = [each for each in trainable.network.parameters() if each.requires_grad]
            interpolate(trained, kept, recipe.interpolate)
        return trainer

    def write(self, trainer: EncoderTrainer, folder: Path, call: Mapping[str, Any]) -> None:
        """Write the checkpoint and its card into a folder."""
        shutil.rmtree(folder, ignore_errors=True)
        make_directory(folder)
        measured = trainer.measure() if self.dev and self.recipe.interpolate else None
        trainable = self.base.trainable
        merge_adapters(trainable.network)
        options = trainable.save(folder)
        card = describe_training(self, trainer, call, options, measured)
        write_json(folder / CARD, card)
        write_training_page(card, folder / PAGE)
        if (events := self.folder / "events").is_dir():
            shutil.copytree(events, folder / "events")
        check_saved(trainable.encoder, self.base.family, folder, options)


def check_saved(encoder: Any, family: str, folder: Path, options: Mapping[str, str]) -> None:
    """`CrosslensError` unless the folder loads as the encoder it was written from, in all but its weights."""
    found = load_encoder(str(Spec(family, str(folder), {**options, "dtype": "float32"})), device="cpu").spec
    if difference := replace(found, revision=encoder.spec.revision).difference(encoder.spec):
        raise CrosslensError(f"{folder} does not load as what was trained ({difference}): please report this")


def describe_training(
    training: Training, trainer: EncoderTrainer, call: Mapping[str, Any], options: Mapping[str, str],
    measured: float | None,
) -> dict[str, Any]:  # fmt: skip
    """The card of a training: what went in, how it went, and how to load what came out."""
    state, clock = trainer.state, trainer.clock
    curve = [
        {"step": e["step"], "loss": e["loss"], "rate": e["learning_rate"]} for e in state.log_history if "loss" in e
    ]
    checks = [{"step": e["step"], "value": e["eval_measure"]} for e in state.log_history if "eval_measure" in e]
    dev = None
    if training.dev:
        best = max(checks, key=lambda each: (each["value"], -each["step"]))
        dev = {
            "collection": training.dev.name, "measure": str(training.dev.measure),
            "queries": len(training.dev.queries), "documents": len(training.dev.documents),
            "base": read_json(training.folder / "base.json")["measure"],
            "best": measured if measured is not None else best["value"], "best_step": best["step"], "checks": checks,
        }  # fmt: skip
    examples = trainer.state.global_step * training.recipe.batch
    weights = [each for each in trainer.trainable.network.parameters() if each.requires_grad]
    return {
        "format": FORMAT,
        "spec": str(Spec(training.base.family, str(training.folder.with_name(training.folder.name[1:-8])), options)),
        "base": {"spec": training.base.spec, "revision": training.base.revision},
        "recipe": training.recipe.to_json(),
        "examples": dict(training.examples.card),
        "steps": state.global_step,
        "planned": len(trainer.batches),
        "trained_weights": sum(each.numel() for each in weights),
        "seconds": round(clock.spent, 3),
        "examples_per_second": round(examples / max(clock.spent, 1e-9), 3),
        "peak_gib": round(measure_memory(training.device) / 2**30, 3),
        "micro_tokens": trainer.memory.micro,
        "computed_in": str(trainer.precision).removeprefix("torch."),
        "device": str(training.device),
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        "curve": curve,
        "dev": dev,
        "call": hash_json(dict(call)),
    }


def _find_finished(output: Path, call: Mapping[str, Any]) -> TrainedEncoder:
    """The result that is there, if the same call made it; `InputError` for anything else."""
    card = output / CARD
    if card.is_file() and (found := read_json(card)).get("call") == hash_json(dict(call)):
        return TrainedEncoder(output, found)
    raise InputError(f"{output} is there already, and not from this call: remove it, or name another directory")
