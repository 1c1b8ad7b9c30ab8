"""What a late-interaction checkpoint says about itself: ColBERT's own format, PyLate's, and sentence-transformers'."""

from __future__ import annotations

import json
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from safetensors import safe_open

from ..checkpoints.sentence_files import fetch
from ..errors import InputError
from .transformer import first_given

WEIGHTS = "model.safetensors"
PICKLED = "pytorch_model.bin"
# The defaults of ColBERT's and PyLate's own code, where a file leaves a field out.
QUERY_TOKENS = 32
COLBERT_TOKENS, PYLATE_TOKENS = 220, 180
PUNCTUATION = tuple(string.punctuation)


@dataclass(frozen=True)
class Published:
    """Markers are tokens put after the first one, prompts are text; `skipped` are symbols without a vector.

    `expansion` is None where queries are not filled up, else the token that fills them (empty: the mask).
    ColBERT's own code tokenises a text behind a `placeholder`, whose token the marker then replaces, where PyLate puts
    the marker in: tokenizers that keep spaces give the first word another token. `first_piece` says how a skipped
    symbol is looked up: by its first piece as tokenised, or in the vocabulary.
    """

    layers: tuple[torch.nn.Module, ...]
    query_marker: str = ""
    document_marker: str = ""
    query_prompt: str = ""
    document_prompt: str = ""
    query_tokens: int = QUERY_TOKENS
    truncates: bool = True
    max_tokens: int | None = None
    expansion: str | None = ""
    attend: bool = False
    skipped: tuple[str, ...] = PUNCTUATION
    placeholder: str = ""
    first_piece: bool = False


class Residual(torch.nn.Module):
    """PyLate's projection: activation(linear(x)), plus x (itself projected where the widths differ) if `residual`."""

    def __init__(
        self, weights: Mapping[str, torch.Tensor], activation: torch.nn.Module, residual: bool
    ) -> None:
        super().__init__()
        self.linear = _linear(weights["linear.weight"], weights.get("linear.bias"))
        self.activation = activation
        self.residual = residual
        self.bypass = _linear(weights["residual.weight"], None) if "residual.weight" in weights else None

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        projected: torch.Tensor = self.activation(self.linear(states))
        if self.residual:
            projected = projected + (states if self.bypass is None else self.bypass(states))
        return projected


def read(checkpoint: str, revision: str | None, architectures: Sequence[str]) -> Published:
    """`InputError` if the checkpoint is of none of the formats, has only pickled weights, or lacks its projection."""
    if not fetch(checkpoint, WEIGHTS, revision) and not fetch(checkpoint, f"{WEIGHTS}.index.json", revision):
        if fetch(checkpoint, PICKLED, revision):
            raise InputError(
                f"{checkpoint} has only pickled weights ({PICKLED}), which are not read; convert them there with: "
                "python -c \"import torch, safetensors.torch as s; w = torch.load('pytorch_model.bin', "
                "weights_only=True); s.save_file({k: v.clone() for k, v in w.items()}, 'model.safetensors', "
                "{'format': 'pt'})\""
            )
        raise InputError(f"{checkpoint} has no weights ({WEIGHTS})")
    modules = _json(checkpoint, "modules.json", revision)
    kinds = [str(module["type"]).rsplit(".", 1)[-1] for module in modules or ()]
    if modules and "Pooling" not in kinds and {"Dense", "MultiVectorMask"} & set(kinds):
        return _from_modules(checkpoint, revision, modules)
    metadata = _json(checkpoint, "artifact.metadata", revision)
    if metadata is not None or "HF_ColBERT" in architectures:
        return _from_colbert(checkpoint, revision, metadata or {})
    hint = "; it makes one vector a text: load it with hf:" if "Pooling" in kinds else ""
    raise InputError(
        f"{checkpoint} is not a late-interaction checkpoint: it has neither ColBERT's artifact.metadata nor "
        f"a projection in modules.json{hint}"
    )


def _from_colbert(checkpoint: str, revision: str | None, metadata: Mapping[str, Any]) -> Published:
    """ColBERT, ColBERT-X, PLAID-X, jina-colbert: `linear.weight` lies beside the transformer's weights."""
    if (similarity := metadata.get("similarity", "cosine")) != "cosine":
        raise InputError(f"{checkpoint}: its similarity {similarity} is not supported by late:, only cosine")
    return Published(
        layers=(_linear(_tensor(checkpoint, "linear.weight", revision), None),),
        query_marker=metadata.get("query_token_id") or "[unused0]",
        document_marker=metadata.get("doc_token_id") or "[unused1]",
        query_tokens=metadata.get("query_maxlen") or QUERY_TOKENS,
        max_tokens=metadata.get("doc_maxlen") or COLBERT_TOKENS,
        attend=bool(metadata.get("attend_to_mask_tokens")),
        skipped=PUNCTUATION if metadata.get("mask_punctuation", True) else (),
        placeholder=". ",
        first_piece=True,
    )


def _from_modules(checkpoint: str, revision: str | None, modules: Sequence[Mapping[str, Any]]) -> Published:
    """PyLate's modules (Transformer, Dense ...), and those of sentence-transformers' MultiVectorEncoder."""
    settings = _json(checkpoint, "config_sentence_transformers.json", revision) or {}
    length = _json(checkpoint, "sentence_bert_config.json", revision) or {}
    layers: list[torch.nn.Module] = []
    mask: Mapping[str, Any] | None = None
    for module in modules:
        kind, folder = str(module["type"]).rsplit(".", 1)[-1], str(module.get("path", ""))
        if kind in ("Transformer", "SentenceTransformer"):
            if folder:
                raise InputError(f"{checkpoint}: its transformer lies in {folder}: give late: that directory's parent "
                                 "with the transformer's files at its top")  # fmt: skip
        elif kind == "Dense":
            layers.append(_dense(checkpoint, folder, revision))
        elif kind == "MultiVectorMask":
            mask = _json(checkpoint, f"{folder}/config.json", revision) or {}
            if mask.get("keep_only_token_ids") or mask.get("skiplist_tasks", ["document"]) != ["document"]:
                raise InputError(
                    f"{checkpoint}: its MultiVectorMask skips tokens in a way that late: does not"
                )
        elif kind != "Normalize":
            raise InputError(f"{checkpoint}: its module {kind} is not supported by late:")
    prompts = {str(name): str(text) for name, text in (settings.get("prompts") or {}).items() if text}
    shared: dict[str, Any] = {
        "layers": tuple(layers),
        "query_prompt": prompts.get("query", ""),
        "document_prompt": prompts.get("document", ""),
    }
    if settings.get("query_prefix") is None and mask is not None:
        expansion = length.get("query_expansion")
        return Published(
            **shared,
            query_tokens=(expansion or {}).get("length") or length.get("query_length") or 0,
            truncates=expansion is None or expansion.get("strategy") == "fixed",
            max_tokens=length.get("document_length") or length.get("max_seq_length"),
            expansion=None if expansion is None else expansion.get("token") or "",
            attend=bool((expansion or {}).get("attend")),
            skipped=tuple(mask.get("skiplist_words") or ()),
        )
    skipped = settings.get("skiplist_words")
    return Published(
        **shared,
        query_marker=first_given(settings.get("query_prefix"), "[Q] "),
        document_marker=first_given(settings.get("document_prefix"), "[D] "),
        query_tokens=settings.get("query_length") or QUERY_TOKENS,
        max_tokens=settings.get("document_length") or PYLATE_TOKENS,
        expansion=None if settings.get("do_query_expansion") is False else "",
        attend=bool(settings.get("attend_to_expansion_tokens")),
        skipped=PUNCTUATION if skipped is None else tuple(skipped),
    )


def _dense(checkpoint: str, folder: str, revision: str | None) -> Residual:
    config = _json(checkpoint, f"{folder}/config.json", revision) or {}
    path = fetch(checkpoint, f"{folder}/{WEIGHTS}", revision)
    if path is None:
        raise InputError(f"{checkpoint}: {folder} has no {WEIGHTS} (pickled weights are not read)")
    with safe_open(path, "pt") as file:
        weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    name = str(config.get("activation_function", "torch.nn.modules.linear.Identity")).rsplit(".", 1)[-1]
    if not hasattr(torch.nn, name):
        raise InputError(f"{checkpoint}: unknown activation {name} in {folder}")
    return Residual(weights, getattr(torch.nn, name)(), bool(config.get("use_residual")))


def _tensor(checkpoint: str, name: str, revision: str | None) -> torch.Tensor:
    """One tensor of the checkpoint's safetensors, which may be several files."""
    parts = _json(checkpoint, f"{WEIGHTS}.index.json", revision)
    path = fetch(checkpoint, parts["weight_map"].get(name, WEIGHTS) if parts else WEIGHTS, revision)
    if path is not None:
        with safe_open(path, "pt") as file:
            if name in file.keys():  # noqa: SIM118 (not a dict)
                tensor: torch.Tensor = file.get_tensor(name)
                return tensor
    raise InputError(f"{checkpoint}: its weights lack {name}, the projection of ColBERT")


def _linear(weight: torch.Tensor, bias: torch.Tensor | None) -> torch.nn.Linear:
    linear = torch.nn.Linear(weight.shape[1], weight.shape[0], bias is not None)
    linear.load_state_dict({"weight": weight.float()} | ({} if bias is None else {"bias": bias.float()}))
    return linear


def _json(checkpoint: str, name: str, revision: str | None) -> Any:
    path = fetch(checkpoint, name, revision)
    if path is None:
        return None
    try:
        return json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise InputError(f"{path}: not JSON ({error})") from None
