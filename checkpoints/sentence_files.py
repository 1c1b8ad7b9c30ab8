"""What a checkpoint says about itself in its sentence-transformers files: pooling, prompts, lengths, dense layers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import InputError

POOLINGS = {"cls": "cls", "mean": "mean", "lasttoken": "last"}
_OLD_POOLINGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_lasttoken": "lasttoken",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
}


@dataclass(frozen=True)
class DenseLayer:
    """A linear layer after pooling (LaBSE and others): the subfolder of its weights, and its activation's name."""

    folder: str
    bias: bool
    activation: str


@dataclass(frozen=True)
class Published:
    """What the files say; `None` and empty where they say nothing."""

    pooling: str | None = None
    normalize: bool = False
    max_tokens: int | None = None
    lowercase: bool = False
    dense: tuple[DenseLayer, ...] = ()
    prompts: Mapping[str, str] = field(default_factory=dict)

    @property
    def query_prompt(self) -> str | None:
        return self.prompts.get("query", self.prompts.get("search_query"))

    @property
    def document_prompt(self) -> str | None:
        found = [
            self.prompts[name] for name in ("document", "passage", "search_document") if name in self.prompts
        ]
        # A checkpoint with a query prompt alone (Qwen3-Embedding) embeds documents bare.
        return found[0] if found else ("" if self.query_prompt is not None else None)


def fetch(checkpoint: str, name: str, revision: str | None) -> Path | None:
    """The path of a checkpoint's file, from a directory or the hub; `None` if the checkpoint has no such file."""
    if Path(checkpoint).is_dir():
        path = Path(checkpoint) / name
        return path if path.is_file() else None
    from transformers.utils import cached_file

    found = cached_file(
        checkpoint,
        name,
        revision=revision,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )
    return None if found is None else Path(found)


def read(checkpoint: str, revision: str | None = None) -> Published:
    """Read `modules.json` and what it points to; `InputError` on a module that we cannot reproduce."""
    modules = _json(checkpoint, "modules.json", revision)
    if modules is None:
        return Published()
    length = _json(checkpoint, "sentence_bert_config.json", revision) or {}
    settings = _json(checkpoint, "config_sentence_transformers.json", revision) or {}
    pooling: str | None = None
    normalize = False
    dense: list[DenseLayer] = []
    for module in modules:
        kind, folder = str(module["type"]).rsplit(".", 1)[-1], str(module.get("path", ""))
        if kind in ("Transformer", "SentenceTransformer"):
            length = (
                _json(checkpoint, f"{folder}/sentence_bert_config.json", revision) or length
                if folder
                else length
            )
        elif kind == "Pooling":
            pooling = _pooling(checkpoint, _json(checkpoint, f"{folder}/config.json", revision) or {})
        elif kind == "Normalize":
            normalize = True
        elif kind == "Dense":
            config = _json(checkpoint, f"{folder}/config.json", revision) or {}
            activation = str(config.get("activation_function", "torch.nn.modules.linear.Identity"))
            dense.append(DenseLayer(folder, bool(config.get("bias", True)), activation.rsplit(".", 1)[-1]))
        else:
            raise InputError(f"{checkpoint}: its module {kind} is not supported by hf:")
    prompts = {
        str(name): str(text) for name, text in (settings.get("prompts") or {}).items() if text is not None
    }
    return Published(
        pooling,
        normalize,
        length.get("max_seq_length"),
        bool(length.get("do_lower_case")),
        tuple(dense),
        prompts,
    )


def _pooling(checkpoint: str, config: Mapping[str, Any]) -> str:
    mode = config.get("pooling_mode")
    modes = (
        [mode]
        if isinstance(mode, str)
        else list(mode or [new for old, new in _OLD_POOLINGS.items() if config.get(old)])
    )
    if len(modes) != 1 or modes[0] not in POOLINGS:
        raise InputError(
            f"{checkpoint}: pooling {'+'.join(modes) or 'none'} is not one of {', '.join(POOLINGS)}"
        )
    if not config.get("include_prompt", True):
        raise InputError(f"{checkpoint}: pooling without the prompt's tokens is not supported by hf:")
    return POOLINGS[modes[0]]


def _json(checkpoint: str, name: str, revision: str | None) -> Any:
    path = fetch(checkpoint, name, revision)
    if path is None:
        return None
    try:
        return json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise InputError(f"{path}: not JSON ({error})") from None
