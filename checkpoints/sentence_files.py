"""What a checkpoint says about itself in its sentence-transformers files: pooling, prompts, lengths, dense layers."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, Literal

import torch
from safetensors.torch import load_file

from ..errors import InputError
from .source import Source

Pooling = Literal["mean", "cls", "last"]
POOLINGS: dict[str, Pooling] = {"cls": "cls", "mean": "mean", "lasttoken": "last"}
# Older files have a switch for each, as `pooling_mode_cls_token`.
SWITCH = re.compile("pooling_mode_(mean_sqrt_len_tokens|.+?)(?:_tokens?)?")


@dataclass(frozen=True)
class SentenceSettings:
    """What the files say; `None` and empty where they say nothing. `dense` are the folders of layers after pooling."""

    pooling: Pooling | None = None
    max_tokens: int | None = None
    lowercase: bool = False
    dense: tuple[str, ...] = ()
    prompts: Mapping[str, str] = field(default_factory=dict)

    @property
    def query_prompt(self) -> str | None:
        return self.prompts.get("query", self.prompts.get("search_query"))

    @property
    def document_prompt(self) -> str | None:
        named = [self.prompts[n] for n in ("document", "passage", "search_document") if n in self.prompts]
        # A checkpoint with a query prompt alone (Qwen3-Embedding) embeds documents bare.
        return named[0] if named else ("" if self.query_prompt is not None else None)


class DenseLayer(torch.nn.Module):
    """activation(linear(x)), plus x (itself projected where the widths differ) if `residual`, as PyLate has it."""

    def __init__(
        self, weights: Mapping[str, torch.Tensor], activation: torch.nn.Module, residual: bool = False
    ) -> None:
        super().__init__()
        self.linear = make_linear(weights["linear.weight"], weights.get("linear.bias"))
        self.activation = activation
        self.residual = residual
        self.bypass = make_linear(weights["residual.weight"]) if "residual.weight" in weights else torch.nn.Identity()

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        projected: torch.Tensor = self.activation(self.linear(states))
        return projected + self.bypass(states) if self.residual else projected


def make_linear(weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.nn.Linear:
    """A linear layer in float32 with these weights [out, in] and biases [out]."""
    linear = torch.nn.Linear(weight.shape[1], weight.shape[0], bias is not None)
    linear.load_state_dict({"weight": weight.float()} | ({} if bias is None else {"bias": bias.float()}))
    return linear


def load_dense(source: Source, folder: str) -> DenseLayer:
    """The dense layer in a folder of the checkpoint; `InputError` if its weights or its activation are not there."""
    config = source.read_json(f"{folder}/config.json") or {}
    if (path := source.find(f"{folder}/model.safetensors")) is None:
        raise InputError(f"{source}: {folder} has no model.safetensors (pickled weights are not read)")
    name = strip_modules(config.get("activation_function", "torch.nn.modules.linear.Identity"))
    if not hasattr(torch.nn, name):
        raise InputError(f"{source}: unknown activation {name} in {folder}")
    return DenseLayer(load_file(path), getattr(torch.nn, name)(), bool(config.get("use_residual")))


def load_dense_stack(source: Source, folders: Sequence[str], width: int) -> tuple[torch.nn.Sequential | None, int]:
    """The dense layers after pooling, if there are any, and the width of what comes out of them."""
    layers = [load_dense(source, folder) for folder in folders]
    return (torch.nn.Sequential(*layers), layers[-1].linear.out_features) if layers else (None, width)


def read_modules(source: Source) -> Iterator[tuple[str, str]]:
    """The kind and the folder of each of the modules in `modules.json`; none where there is no such file.

    `InputError` for a folder that is not inside the checkpoint.
    """
    for module in source.read_json("modules.json") or ():
        folder = PurePosixPath(str(module.get("path", "")))
        if folder.is_absolute() or ".." in folder.parts:
            raise InputError(f"{source}: its modules.json names {str(folder)!r}, which is not inside the checkpoint")
        yield strip_modules(module["type"]), "" if folder == PurePosixPath() else str(folder)


def read_prompts(source: Source) -> dict[str, str]:
    """The prompts of the checkpoint by their names."""
    settings = source.read_json("config_sentence_transformers.json") or {}
    prompts: Mapping[str, str | None] = settings.get("prompts") or {}
    return {str(name): str(text) for name, text in prompts.items() if text is not None}


def read_sentence_settings(source: Source) -> SentenceSettings:
    """Read `modules.json` and what it points to; `InputError` on a module that we cannot reproduce."""
    modules = list(read_modules(source))
    if not modules:
        return SentenceSettings()
    length = source.read_json("sentence_bert_config.json") or {}
    pooling: Pooling | None = None
    for kind, folder in modules:
        if kind in ("Transformer", "SentenceTransformer"):
            length = (folder and source.read_json(f"{folder}/sentence_bert_config.json")) or length
        elif kind == "Pooling":
            pooling = _read_pooling(source, source.read_json(f"{folder}/config.json") or {})
        elif kind not in ("Normalize", "Dense"):
            raise InputError(f"{source}: its module {kind} is not supported by hf:")
    return SentenceSettings(
        pooling,
        length.get("max_seq_length"),
        bool(length.get("do_lower_case")),
        tuple(folder for kind, folder in modules if kind == "Dense"),
        read_prompts(source),
    )


def strip_modules(dotted: object) -> str:
    """`Identity` of `torch.nn.modules.linear.Identity`."""
    return str(dotted).rpartition(".")[2]


def _read_pooling(source: Source, config: Mapping[str, Any]) -> Pooling:
    mode = config.get("pooling_mode") or [own[1] for key, on in config.items() if on and (own := SWITCH.fullmatch(key))]
    modes = [mode] if isinstance(mode, str) else list(mode)
    if len(modes) != 1 or modes[0] not in POOLINGS:
        raise InputError(f"{source}: pooling {'+'.join(modes) or 'none'} is not one of {', '.join(POOLINGS)}")
    if not config.get("include_prompt", True):
        raise InputError(f"{source}: pooling without the prompt's tokens is not supported by hf:")
    return POOLINGS[modes[0]]
