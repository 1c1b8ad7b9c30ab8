"""Which weights of a ranker are trained, adapters among them, and the checkpoint that they become."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from ...errors import InputError
from ...multilingual.judges.hf import find_task
from ..weights import freeze_parts
from .opening import RankerBase
from .recipe import RankerRecipe

TASKS = {"causal": "CAUSAL_LM", "seq2seq": "SEQ_2_SEQ_LM", "classify": "SEQ_CLS"}


def plan_adapters(base: RankerBase, recipe: RankerRecipe) -> Any:
    """The configuration of LoRA (Hu et al. 2022); None where the recipe has none. `InputError` for unknown layers."""
    if not recipe.lora:
        return None
    import peft

    if not recipe.merge and "+" in base.weights:
        raise InputError(f"the base {base.written} has an adapter in it: a second one must be merged; leave merge out")
    model = base.judge.model
    names = {name.rpartition(".")[2] for name, each in model.named_modules() if hasattr(each, "in_features")}
    if unknown := [each for each in recipe.lora_layers if each not in names]:
        known = ", ".join(sorted(names))
        raise InputError(f"{base.written} has no layers {', '.join(unknown)}; its linear ones are {known}")
    kind = "classify" if base.prompt.asks == "score" else find_task(model.config, base.source)
    return peft.LoraConfig(
        task_type=TASKS[kind],
        r=recipe.lora,
        lora_alpha=recipe.lora_alpha,
        lora_dropout=recipe.dropout,
        target_modules=list(recipe.lora_layers) or "all-linear",
    )


def add_adapters(base: RankerBase, adapters: Any, seed: int) -> Any:
    """The model with adapters in it, of which alone the weights are trained."""
    import peft

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return peft.get_peft_model(base.judge.model, adapters)


def free_weights(base: RankerBase, recipe: RankerRecipe) -> None:
    """Let the weights take gradients, but for the parts that keep the base's."""
    model = base.judge.model.requires_grad_(True)
    freeze_parts(model, recipe.freeze)
    if not recipe.embeddings:
        model.get_input_embeddings().requires_grad_(False)
    if not any(each.requires_grad for each in model.parameters()):
        raise InputError(f"all weights of {base.written} are frozen: there is nothing to train")


def save_ranker(base: RankerBase, tuned: Any, merge: bool, place: Path) -> None:
    """Write the checkpoint: whole, with adapters merged, or of the adapters alone; and the tokenizer."""
    if tuned is not None and not merge:
        tuned.save_pretrained(place)
    else:
        model = base.judge.model if tuned is None else tuned.merge_and_unload()
        model.save_pretrained(place)
    base.judge.tokenizer.save_pretrained(place)
