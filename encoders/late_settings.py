"""What a late-interaction checkpoint says about itself: ColBERT's own format, PyLate's, and sentence-transformers'."""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from safetensors import safe_open

from ..checkpoints.options import choose_given
from ..checkpoints.sentence_files import load_dense, make_linear, read_modules, read_prompts
from ..checkpoints.source import TO_SAFETENSORS, Source
from ..errors import InputError

WEIGHTS, PICKLED = "model.safetensors", "pytorch_model.bin"
# The defaults of ColBERT's and PyLate's own code, where a file leaves a field out.
QUERY_TOKENS = 32
COLBERT_TOKENS, PYLATE_TOKENS = 220, 180
PUNCTUATION = tuple(string.punctuation)


@dataclass(frozen=True)
class LateSettings:
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


def read_late_settings(source: Source, architectures: Sequence[str]) -> LateSettings:
    """`InputError` if the checkpoint is of none of the formats, has only pickled weights, or lacks its projection."""
    if not source.find(WEIGHTS, f"{WEIGHTS}.index.json"):
        if source.find(PICKLED):
            raise source.refuse_pickled(PICKLED, TO_SAFETENSORS.format(old=PICKLED, new=WEIGHTS))
        raise InputError(f"{source} has no weights ({WEIGHTS})")
    modules = list(read_modules(source))
    kinds = {kind for kind, _ in modules}
    if "Pooling" not in kinds and {"Dense", "MultiVectorMask"} & kinds:
        return _read_modules(source, modules)
    metadata = source.read_json("artifact.metadata")
    if metadata is not None or "HF_ColBERT" in architectures:
        return _read_colbert(source, metadata or {})
    hint = "; it makes one vector a text: load it with hf:" if "Pooling" in kinds else ""
    raise InputError(
        f"{source} is not a late-interaction checkpoint: it has neither ColBERT's artifact.metadata nor "
        f"a projection in modules.json{hint}"
    )


def _read_colbert(source: Source, metadata: Mapping[str, Any]) -> LateSettings:
    """ColBERT, ColBERT-X, PLAID-X, jina-colbert: `linear.weight` lies beside the transformer's weights."""
    if (similarity := metadata.get("similarity", "cosine")) != "cosine":
        raise InputError(f"{source}: its similarity {similarity} is not supported by late:, only cosine")
    return LateSettings(
        layers=(make_linear(_read_tensor(source, "linear.weight")),),
        query_marker=metadata.get("query_token_id") or "[unused0]",
        document_marker=metadata.get("doc_token_id") or "[unused1]",
        query_tokens=metadata.get("query_maxlen") or QUERY_TOKENS,
        max_tokens=metadata.get("doc_maxlen") or COLBERT_TOKENS,
        attend=bool(metadata.get("attend_to_mask_tokens")),
        skipped=PUNCTUATION if metadata.get("mask_punctuation", True) else (),
        placeholder=". ",
        first_piece=True,
    )


def _read_modules(source: Source, modules: Sequence[tuple[str, str]]) -> LateSettings:
    """PyLate's modules (Transformer, Dense ...), and those of sentence-transformers' MultiVectorEncoder."""
    settings = source.read_json("config_sentence_transformers.json") or {}
    length = source.read_json("sentence_bert_config.json") or {}
    mask: Mapping[str, Any] | None = None
    for kind, folder in modules:
        if kind in ("Transformer", "SentenceTransformer") and folder:
            raise InputError(
                f"{source}: its transformer lies in {folder}: give late: that directory's parent with the "
                "transformer's files at its top"
            )
        if kind == "MultiVectorMask":
            mask = source.read_json(f"{folder}/config.json") or {}
            if mask.get("keep_only_token_ids") or mask.get("skiplist_tasks", ["document"]) != ["document"]:
                raise InputError(f"{source}: its MultiVectorMask skips tokens in a way that late: does not")
        elif kind not in ("Transformer", "SentenceTransformer", "Dense", "Normalize"):
            raise InputError(f"{source}: its module {kind} is not supported by late:")
    prompts = read_prompts(source)
    shared: dict[str, Any] = {
        "layers": tuple(load_dense(source, folder) for kind, folder in modules if kind == "Dense"),
        "query_prompt": prompts.get("query", ""),
        "document_prompt": prompts.get("document", ""),
    }
    if settings.get("query_prefix") is None and mask is not None:
        expansion = length.get("query_expansion")
        return LateSettings(
            **shared,
            query_tokens=(expansion or {}).get("length") or length.get("query_length") or 0,
            truncates=expansion is None or expansion.get("strategy") == "fixed",
            max_tokens=length.get("document_length") or length.get("max_seq_length"),
            expansion=None if expansion is None else expansion.get("token") or "",
            attend=bool((expansion or {}).get("attend")),
            skipped=tuple(mask.get("skiplist_words") or ()),
        )
    skipped = settings.get("skiplist_words")
    return LateSettings(
        **shared,
        query_marker=choose_given(settings.get("query_prefix"), "[Q] "),
        document_marker=choose_given(settings.get("document_prefix"), "[D] "),
        query_tokens=settings.get("query_length") or QUERY_TOKENS,
        max_tokens=settings.get("document_length") or PYLATE_TOKENS,
        expansion=None if settings.get("do_query_expansion") is False else "",
        attend=bool(settings.get("attend_to_expansion_tokens")),
        skipped=PUNCTUATION if skipped is None else tuple(skipped),
    )


def _read_tensor(source: Source, name: str) -> torch.Tensor:
    """One tensor of the checkpoint's safetensors, which may be several files."""
    parts = source.read_json(f"{WEIGHTS}.index.json")
    path = source.find(parts["weight_map"].get(name, WEIGHTS) if parts else WEIGHTS)
    if path is not None:
        with safe_open(path, "pt") as file:
            if name in file.keys():  # noqa: SIM118 (not a dict)
                tensor: torch.Tensor = file.get_tensor(name)
                return tensor
    raise InputError(f"{source}: its weights lack {name}, the projection of ColBERT")
