"""The card of a training, whatever it trained: what went in, how it went, and how what came out is loaded."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from ..errors import InputError
from ..files import read_json, write_json
from ..items import hash_json
from .loop import EVENTS, TrainingLoop
from .page import write_training_page
from .recipe import Recipe
from .session import OPEN, find_finished, measure_memory

FORMAT = 2
CARD, PAGE = "training.json", "training.html"
PACKAGES = ("crosslens", "torch", "transformers", "peft", "sentence-transformers", "accelerate", "trl")
THERE = "the same call has made it before, and nothing was done"
USES = {"encoder": "load it as", "ranker": "rerank with"}


@dataclass(frozen=True)
class Trained:
    """What came of a training: where it is, and its card (`training.json`).

    `spec` is the SPEC that loads an encoder, or of the reranker that a ranker is. `before` is true where the same call
    had made it already.
    """

    output: Path
    card: Mapping[str, Any]
    before: bool = False

    @classmethod
    def read(cls, output: Path) -> Trained:
        """What is in a directory."""
        return cls(output, read_json(output / CARD))

    @property
    def spec(self) -> str:
        return str(self.card["spec"])

    def to_json(self) -> dict[str, Any]:
        return {"output": str(self.output), **self.card}

    def __str__(self) -> str:
        card = self.card
        what = "reward" if any("reward" in point for point in card["curve"]) else "loss"
        course = [point[what] for point in card["curve"] if what in point]
        lines = [
            f"{self.output}: {card['steps']} steps of {card['recipe']['batch']} examples from {card['base']['spec']}, "
            f"{card['seconds']:.0f} s, {card['examples_per_second']:.3g} examples a second, {card['peak_gib']:.1f} GiB"
            + (f", {what} {course[0]:.4g} to {course[-1]:.4g}" if course else "")
        ]
        if dev := card["dev"]:
            change = f"{dev['base']:.4f} before, {dev['best']:.4f} after step {dev['best_step']}"
            lines.append(f"{dev['measure']} on {dev['collection']}: {change}")
        return "\n".join([*lines, f"{USES[card['kind']]} {self.spec}"])

    @property
    def notes(self) -> list[str]:
        """What people should know, a line each."""
        dev, losses = self.card["dev"], [point["loss"] for point in self.card["curve"] if "loss" in point]
        notes = [THERE] if self.before else []
        if losses and not any(losses):
            notes.append("the loss was 0 at each step: no query had another document than its own to tell it from")
        if dev and dev["best"] <= dev["base"]:
            notes.append(f"no step was better than the base on {dev['collection']}")
        return notes


def find_trained(output: Path, call: Mapping[str, Any], recipe: Recipe) -> Trained | None:
    """What the call has made already; `InputError` where something else is there, or what ended at another step."""
    found = find_finished(output, CARD, {"call": hash_json(dict(call))})
    if found is None:
        return None
    own, was = recipe.to_json(), found["recipe"]
    if other := [f"{key} {was[key]}, not {own[key]}" for key in OPEN if was[key] != own[key]]:
        raise InputError(f"{output} is there already, trained with {' and '.join(other)}: name another output")
    return Trained(output, found, before=True)


def write_card(
    folder: Path, loop: TrainingLoop, call: Mapping[str, Any], device: torch.device, dev: Mapping[str, Any] | None,
    **more: Any,
) -> None:  # fmt: skip
    """Write the card of a training beside its weights, its page, and the events that TensorBoard reads.

    `more` has what only the one who trains knows: `kind`, `spec`, `base` (its `spec` and `revision`), `examples`, and
    other facts. `dev` has the name of the dev `collection`, the `measure`, and counts.
    """
    card = {
        "format": FORMAT,
        **more,
        "recipe": loop.recipe.to_json(),
        **loop.describe(),
        "peak_gib": round(measure_memory(device) / 2**30, 3),
        "device": str(device),
        "versions": {name: found for name in PACKAGES if (found := _find_version(name))},
        "dev": None if dev is None else {**loop.describe_checks(), **dev},
        "call": hash_json(dict(call)),
    }
    write_json(folder / CARD, card)
    for weights in folder.rglob("*.safetensors"):
        shutil.copymode(folder / CARD, weights)  # safetensors writes for the owner alone
    write_training_page(card, folder / PAGE)
    if (events := Path(loop.args.output_dir, EVENTS)).is_dir():
        shutil.copytree(events, folder / EVENTS)


def _find_version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""
