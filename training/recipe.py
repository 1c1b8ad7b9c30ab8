"""Recipes of training: TOML files whose keys are fields here; nothing in them is ignored."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from ..errors import InputError, check_at_least, check_known, list_few
from ..files import parse_toml, read_text
from ..specs import check_types

R = TypeVar("R", bound="Recipe")
LARGEST = 1_000_000  # from so many on, a batch is a mistake
SEEDS = 2**32  # how many seeds numpy knows
RECIPES = files(__package__).joinpath("recipes")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a model is trained, whatever it is: a key of the file is a field, and is explained here.

    `batch` is the number of examples a step. Training ends after `epochs`, or after `steps` where they are given, and
    at any rate after `minutes`; by then the `learning_rate` has risen for the share `warmup` of it and fallen to 0
    (`schedule`). `weight_decay` is AdamW's, `clip` the longest gradient, `dropout` the share of states left out,
    with adapters of what goes into them. `lora` is the rank of adapters (Hu et al. 2022), 0 for all weights; their
    scale is `lora_alpha` / `lora`, and they go into the linear layers whose names end with one of `lora_layers`, or
    into all of them; `merge` puts them into the weights at the end, and without it they are the result. `freeze` names
    parts that keep the base's weights, beside those of word embeddings unless `embeddings` is true.
    `micro_tokens` are the padded tokens a model sees at once (0: by the device), halved when memory runs out; neither
    changes what is learned. `check` is the number of steps after which a checkpoint is kept and the dev collection
    asked (0: a tenth of all), `patience` how often in a row its measure may fail to rise before training stops.
    """

    batch: int = 32
    epochs: float = 1.0
    steps: int | None = None
    minutes: float | None = None
    learning_rate: float = 2e-5
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    warmup: float = 0.1
    weight_decay: float = 0.01
    clip: float = 1.0
    dropout: float = 0.0
    lora: int = 0
    lora_alpha: float = 32.0
    lora_layers: tuple[str, ...] = ()
    merge: bool = True
    freeze: tuple[str, ...] = ()
    embeddings: bool = False
    micro_tokens: int = 0
    check: int = 0
    patience: int = 3
    seed: int = 0

    def __post_init__(self) -> None:
        try:
            check_types(self)
        except TypeError as error:
            raise InputError(str(error)) from None
        check_at_least(1, batch=self.batch, steps=self.steps, patience=self.patience)
        check_at_least(0, lora=self.lora, micro_tokens=self.micro_tokens, check=self.check, seed=self.seed)
        check_below(LARGEST, batch=self.batch)
        check_below(SEEDS, seed=self.seed)
        check_above(0, epochs=self.epochs, minutes=self.minutes, learning_rate=self.learning_rate, clip=self.clip)
        check_above(0, lora_alpha=self.lora_alpha)
        check_weight(weight_decay=self.weight_decay)
        check_share(warmup=self.warmup, dropout=self.dropout)
        if not self.merge and not self.lora:
            raise InputError("merge=false keeps adapters apart, and there are none: give their rank as lora")

    def to_json(self) -> dict[str, Any]:
        """A dict for JSON, every key in it."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class EncoderRecipe(Recipe):
    """How an encoder is trained.

    `loss` is `contrast` (InfoNCE over the batch; van den Oord et al. 2018), `sigmoid` (of each pair in it by itself;
    SigLIP, Zhai et al. 2023), or what a teacher's scores ask for: `kl` (of the scores of a query's documents; M-KD
    where they are in several languages) or `margin-mse` (Hofstätter et al. 2020). With those `contrast` is the weight
    of InfoNCE beside them. `temperature` divides the cosines, `bias` is added for `sigmoid`, and `learn_scale` says
    that both are learnt, from a checkpoint's own on (of clip:, whose checkpoints keep them). `teacher_temperature`
    divides the teacher's scores. `symmetric` adds the loss of finding the query of a document. `lock_pictures` leaves
    the vision tower as it is (LiT; Zhai et al. 2022), but for a head that is behind it.
    A query has one positive a step, drawn again each epoch, and `negatives` hard negatives; what else is in the batch
    is a negative unless it is known to be a positive, or scores above the positive by more than `margin` (Zhang et
    al. 2025; None: no bound). `dims` are the lengths at which vectors shall be good too (Matryoshka; Kusupati et al.
    2022); `flops` and `query_flops` are how much terms cost that documents and queries have weights for (of splade:),
    which rises in the first third of the training.
    `query_tokens` and `document_tokens` cut texts while training (None: as the base does).
    `languages` says if a batch mixes pairs of languages or keeps them apart (Lawrie et al. 2023), `balance` whether
    each pair is seen equally often. Against forgetting: `replay` names other examples, of which `replay_share` of a
    batch are; `anchor` pulls weights to the base's, all alike (`l2-sp`; Li et al. 2018) or by how much the examples of
    `replay` need them (`ewc`; Kirkpatrick et al. 2017), with the strength `anchor_strength`; and `interpolate` is the
    base's share in the weights at the end (Wortsman et al. 2022). Training is watched by `measure` on the dev
    collection, of whose documents so many are searched as `dev_documents` says, the judged ones among them.
    """

    loss: Literal["contrast", "sigmoid", "kl", "margin-mse"] = "contrast"
    contrast: float = 0.0
    temperature: float = 0.02
    bias: float = -10.0
    learn_scale: bool = False
    teacher_temperature: float = 1.0
    symmetric: bool = False
    lock_pictures: bool = False
    negatives: int = 7
    margin: float | None = None
    dims: tuple[int, ...] = ()
    flops: float = 0.0
    query_flops: float = 0.0
    query_tokens: int | None = None
    document_tokens: int | None = None
    languages: Literal["mixed", "apart"] = "mixed"
    balance: bool = False
    replay: str = ""
    replay_share: float = 0.2
    anchor: Literal["none", "l2-sp", "ewc"] = "none"
    anchor_strength: float = 0.01
    interpolate: float = 0.0
    measure: str = "nDCG@20"
    dev_documents: int = 2000

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(0, negatives=self.negatives, dev_documents=self.dev_documents)
        check_at_least(3, query_tokens=self.query_tokens, document_tokens=self.document_tokens)
        check_above(0, temperature=self.temperature, teacher_temperature=self.teacher_temperature)
        check_weight(contrast=self.contrast, margin=self.margin, flops=self.flops, query_flops=self.query_flops)
        check_weight(anchor_strength=self.anchor_strength)
        if not math.isfinite(self.bias):
            raise InputError(f"bias must be a finite number, not {self.bias}")
        check_share(replay_share=self.replay_share, interpolate=self.interpolate)
        for dim in self.dims:
            check_at_least(1, dims=dim)
        if self.anchor == "ewc" and not self.replay:
            raise InputError("anchor ewc needs replay: examples that show which weights the base needs")


def read_recipe(kind: type[R], name: str | None = None, **given: Any) -> R:
    """The recipe of a TOML file, or a ready one by its name, or the defaults; what is `given` and not None wins.

    A file may have another recipe's keys beside its own, which win: `extends` names a ready one, or a file relative to
    it. `InputError` naming the file and the key that is unknown or wrong.
    """
    options = {key: value for key, value in given.items() if value is not None}
    return replace(kind() if name is None else kind(**_read(kind, name)), **options)


def _read(kind: type[Recipe], name: str, below: tuple[str, ...] = ()) -> dict[str, Any]:
    """The fields that a recipe and those that it extends have; `below` are the files that led to it."""
    ready = list_recipes()
    if name in ready:
        where, text = f"recipe {name}", RECIPES.joinpath(f"{name}.toml").read_text("utf-8")
    elif name.endswith(".toml"):
        where, text = name, read_text(Path(name))
    else:
        raise InputError(f"there is no recipe {name!r}: write a TOML file, or one of {list_few(ready, 30)}")
    if where in below:
        raise InputError(f"{where} extends itself")
    try:
        values = parse_toml(text)
        parent = values.pop("extends", None)
        if not isinstance(parent, str | None):
            raise InputError("extends must be the name of a recipe, or of a file")
        if parent is not None and parent not in ready:
            parent = str(Path(name).parent / parent)
        made = {**(_read(kind, parent, (*below, where)) if parent else {}), **_fit(kind, values)}
        kind(**made)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
    return made


def list_recipes() -> list[str]:
    """The names of the ready recipes."""
    return sorted(entry.name.removesuffix(".toml") for entry in RECIPES.iterdir() if entry.name.endswith(".toml"))


def check_above(least: float, **values: float | None) -> None:
    """`InputError` naming the first value that is not a finite number above `least`; None is none."""
    for name, value in values.items():
        if value is not None and not least < value < float("inf"):
            raise InputError(f"{name} must be above {least}, not {value}")


def check_below(most: int, **values: int) -> None:
    """`InputError` naming the first value that is not below `most`."""
    for name, value in values.items():
        if value >= most:
            raise InputError(f"{name} must be below {most:,}, not {value}")


def check_weight(**values: float | None) -> None:
    """`InputError` naming the first value that is not a finite number from 0; None is none."""
    for name, value in values.items():
        if value is not None and not 0 <= value < float("inf"):
            raise InputError(f"{name} must be a number from 0, not {value}")


def check_share(**values: float) -> None:
    """`InputError` naming the first value that is no share, from 0 to below 1."""
    for name, value in values.items():
        if not 0 <= value < 1:
            raise InputError(f"{name} must be from 0 to below 1, not {value}")


def _fit(kind: type[Recipe], values: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a file as the fields have them."""
    hints = get_type_hints(kind)
    made = {}
    for key, value in values.items():
        check_known(key, [each.name for each in fields(kind)], "key")
        made[key] = tuple(value) if get_origin(hints[key]) is tuple and isinstance(value, list) else value
        if get_origin(hints[key]) is Literal:
            check_known(value, get_args(hints[key]), f"value of {key}")
    return made
