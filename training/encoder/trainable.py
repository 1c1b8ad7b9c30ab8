"""What of an encoder is trained, and what training asks of every kind of encoder."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import torch

from ...checkpoints.devices import resolve_device
from ...encoders.registry import load_encoder
from ...errors import InputError, list_few
from ...items import Item, Role
from ...specs import Spec
from ..recipe import EncoderRecipe
from ..session import require_packages
from ..weights import drop_states, freeze_parts, is_part
from .losses import LogitScale
from .plain import start_late

# family -> what trains its encoders. A new kind is one file, one line here, and one in a parametrised test.
KINDS = {
    "hf": "dense:TrainableDense",
    "llm": "dense:TrainableDense",
    "late": "late:TrainableLate",
    "splade": "sparse:TrainableSparse",
    "clip": "pictures:TrainablePictures",
}
OFFLINE = {
    "e5-small": "hf",
    "conse": "clip",
}  # models of packages that can be trained, and the family that loads what they become
UNTRAINABLE = {
    "offline:use-m3": "it is a program in numpy, which knows no gradients",
    "offline:e5-use": "train offline:e5-small, and put the result into an ensemble:",
    "st": "write hf: in place of st:",
    "promptreps": "its weights are a language model's: train that, as llm:",
    "ensemble": "train its members one by one",
}
FEW_BITS = ("int8", "4bit")
APART = ("llm",)  # families that load adapters beside their base
STATES = 68  # bytes that a layer keeps of a token for each component of its state (Korthikanti et al. 2022, doubled)


class Trainable(Protocol):
    """An encoder whose weights can be trained: it makes rows of texts, and scores of rows."""

    encoder: Any

    @property
    def network(self) -> torch.nn.Module:
        """The modules that hold the weights."""
        ...

    @property
    def state_bytes(self) -> int:
        """Bytes that are kept of a token for the way back."""
        ...

    @property
    def scale(self) -> LogitScale | None:
        """Temperature and bias where they are learnt, and None where they are the recipe's."""
        ...

    def prepare(self, items: Sequence[Item], role: Role, most: int | None) -> list[Any]:
        """What `represent` takes of each item, cut to `most` tokens; `encoder.count_tokens` says how long one is."""
        ...

    def represent(self, inputs: Sequence[Any]) -> torch.Tensor:
        """A row for each of the inputs; gradients flow through it."""
        ...

    def score(self, queries: Sequence[torch.Tensor], documents: Sequence[torch.Tensor]) -> Iterator[torch.Tensor]:
        """The scores float32 [queries, documents] of rows; one for each way in which they are to be good."""
        ...

    def penalise(self, queries: Sequence[torch.Tensor], documents: Sequence[torch.Tensor]) -> torch.Tensor | float:
        """What is added to the loss of a batch."""
        ...

    def save(self, folder: Path) -> dict[str, str]:
        """Write a checkpoint that the family loads; the options that a SPEC must have to load the same."""
        ...


@dataclass(frozen=True)
class Base:
    """What training begins with: the SPEC, the family that will load the result, and the model."""

    spec: str
    family: str
    revision: str
    trainable: Trainable


def open_base(text: str, recipe: EncoderRecipe, *, device: str = "auto", trust_remote_code: bool = False) -> Base:
    """The encoder of a SPEC, in float32 unless the SPEC says otherwise, to be trained.

    Its weights are its own: an encoder of the same checkpoint that is in use keeps what it has. A plain encoder becomes
    one of late interaction (`plain.start_late`). `InputError` for a base that cannot be trained, saying why.
    """
    family = find_family(text, apart=not recipe.merge)
    if not recipe.merge and family not in APART:
        raise InputError(f"merge=false: {family}: loads no adapter beside its base ({', '.join(APART)}: does)")
    for key in ("lock_pictures", "learn_scale"):
        if getattr(recipe, key) and family != "clip":
            raise InputError(f"{key}: {text} has no tower of pictures; leave it out, or take a base such as clip:")
    if (recipe.flops or recipe.query_flops) and family != "splade":
        raise InputError(f"flops: {text} has no terms, whose weights that would lower")
    spec = Spec.parse(text)
    where = resolve_device(device)
    options = {"dtype": "float32", **spec.options}
    wide = Spec(spec.family, spec.checkpoint, options)
    how: dict[str, Any] = {"device": str(where), "trust_remote_code": trust_remote_code}
    begun = start_late(wide, recipe.seed, **how) if family == "late" else None
    encoder = begun or load_encoder(str(wide), **how)
    module, _, name = KINDS[family].partition(":")
    kind = getattr(import_module(f".{module}", __package__), name)
    return Base(text, family, encoder.spec.revision, kind.from_encoder(encoder, spec, recipe))


def find_family(text: str, *, apart: bool = False) -> str:
    """The family that loads what the base of a SPEC becomes; `InputError` for one that cannot be trained, saying why.

    Nothing is loaded, so that this can be asked before any work. Weights in 4 bits are a base where adapters are kept
    `apart` (QLoRA; Dettmers et al. 2023).
    """
    require_packages("accelerate", "peft")
    spec = Spec.parse(text)
    family = OFFLINE.get(spec.checkpoint, "") if spec.family == "offline" else spec.family
    if family not in KINDS:
        reason = UNTRAINABLE.get(text.partition("?")[0], UNTRAINABLE.get(spec.family, "it is none of ours"))
        known = [f"{each}:" for each in KINDS] + [f"offline:{each}" for each in OFFLINE]
        raise InputError(f"{text} cannot be trained ({reason}); take one of {list_few(known, 20)}")
    if (given := spec.options.get("dtype")) in FEW_BITS and not (apart and given == "4bit"):
        more = ", or train adapters beside them: lora, and merge=false" if given == "4bit" else ""
        raise InputError(f"{text} cannot be trained: weights in {given} take no gradients; leave dtype out{more}")
    if (backend := spec.options.get("backend", "torch")) != "torch":
        raise InputError(f"{text} cannot be trained: what {backend} runs takes no gradients; leave backend out")
    return family


def keep_options(spec: Spec, named: Sequence[str] | None = None) -> dict[str, str]:
    """The options of a base's SPEC that its result is loaded with, too: those that are `named`, or all but `dtype`."""
    kept = spec.options.keys() - {"dtype"} if named is None else named
    return {key: value for key, value in spec.options.items() if key in kept}


def count_state_bytes(layers: int, width: int) -> int:
    """Bytes that so many layers of a transformer keep of a token for the way back."""
    return layers * width * STATES


def own_weights(encoder: Any) -> Any:
    """An encoder of text with modules of its own: those of checkpoints in memory are shared."""
    opened = replace(encoder.opened, model=copy.deepcopy(encoder.opened.model))
    # What copied the weights to compute a text alone would not follow them.
    return replace(encoder, opened=opened, dense=copy.deepcopy(encoder.dense), alone=None)


def choose_weights(
    network: torch.nn.Module,
    embeddings: Sequence[torch.Tensor],
    recipe: EncoderRecipe,
    new: Sequence[torch.Tensor] = (),
) -> None:
    """Let gradients reach the weights that the recipe trains, and no others; adapters are put in where it wants them.

    What is `new`, and so random, is trained whole: an adapter would leave most of it as it is.
    `InputError` where a part that the recipe names is not there, and where nothing is left to train.
    """
    network.requires_grad_(not recipe.lora)
    drop_states(network, 0.0 if recipe.lora else recipe.dropout)
    if recipe.lora:
        _add_adapters(network, recipe, [*embeddings, *new])
        for weights in new:
            weights.requires_grad_(True)
    freeze_parts(network, recipe.freeze)
    for name, weights in network.named_parameters():
        unused = is_part(name, "pooler")  # which no encoder of ours has its vectors from
        if unused or (not recipe.embeddings and any(weights is each for each in embeddings)):
            weights.requires_grad_(False)
    if not any(weights.requires_grad for weights in network.parameters()):
        raise InputError("nothing is left to train: freeze fewer parts")
    network.train(recipe.dropout > 0)  # without any, the model is as it is when it encodes


def _add_adapters(network: torch.nn.Module, recipe: EncoderRecipe, none: Sequence[torch.Tensor]) -> None:
    """Put adapters into linear layers, but for those whose weights are to have `none`."""
    from peft import LoraConfig, inject_adapter_in_model

    linear = [
        name
        for name, module in network.named_modules()
        if isinstance(module, torch.nn.Linear) and not any(module.weight is each for each in none)
    ]
    if lacking := [each for each in recipe.lora_layers if not any(name.endswith(each) for name in linear)]:
        raise InputError(f"lora_layers: no linear layer's name ends with {list_few(lacking, 8)}")
    if recipe.lora_layers:
        linear = [name for name in linear if name.endswith(recipe.lora_layers)]
    torch.manual_seed(recipe.seed)
    config = LoraConfig(r=recipe.lora, lora_alpha=recipe.lora_alpha, lora_dropout=recipe.dropout, target_modules=linear)
    inject_adapter_in_model(config, network)


@torch.no_grad()
def merge_adapters(network: torch.nn.Module) -> None:
    """Put adapters into the weights that they adapt, for good; nothing where there are none."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    for name, module in list(network.named_modules()):
        if isinstance(module, BaseTunerLayer):
            module.merge()
            network.set_submodule(name, module.get_base_layer())
