"""`st:` text models as sentence-transformers runs them (Reimers and Gurevych 2019): what ours must equal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..checkpoints.devices import Precision, name_dtype, resolve_dtype
from ..checkpoints.openvino import Backend, find_published, open_exported, open_published, require_backend
from ..checkpoints.options import Limits, Loading
from ..checkpoints.sentence_files import read_modules
from ..checkpoints.source import TOKENIZER_FILES, Source, hash_files
from ..errors import InputError, check_at_least, check_known
from ..items import Dense, Item, Role
from .base import EncoderSpec
from .batching import WINDOW, encode_windows

SAMPLE = ("a", "One text of many words is longer than the other: 一篇文章。 " * 3)
COSINES = {torch.float32: 0.9999, torch.bfloat16: 0.99}  # of vectors by another backend to those of torch in float32


class SentenceTransformersEncoder:
    """A dense text model of sentence-transformers with its own prompts and batches; one float32 vector [dim] a text.

    `llm:` and `hf:` run the same checkpoints faster; this runs also those with modules that they do not know, for
    example `st:sentence-transformers/LaBSE`.
    """

    def __init__(self, model: Any, spec: EncoderSpec, *, batch_size: int) -> None:
        self.model = model
        self.spec = spec
        self.batch_size = batch_size

    @classmethod
    def from_checkpoint(
        cls,
        checkpoint: str,
        *,
        loading: Loading,
        limits: Limits,
        query_prompt_name: str | None = None,
        document_prompt_name: str | None = None,
        normalize: bool = True,
        dtype: Precision = "auto",
        backend: Backend = "torch",
        batch_size: int = 32,
    ) -> SentenceTransformersEncoder:
        """Load from the hub or a directory, safetensors only. `backend` runs the first module's model, as `hf:` does.

        Prompts are named as the checkpoint names them; without a name the library's own choice holds: `query`, and
        the first of `document`, `passage` and `corpus`, else the checkpoint's default. `InputError` if the library or
        the checkpoint is not there, or for a prompt, `dim` or `max_tokens` that it does not have.
        """
        try:
            from sentence_transformers import SentenceTransformer
        except ImportError:
            raise InputError("st: needs sentence-transformers: pip install 'crosslens[st]'") from None

        class AutoSentenceTransformer:  # what `Source.load` calls
            from_pretrained = SentenceTransformer

        where, source = loading.where, loading.find_source(checkpoint)
        precision = resolve_dtype(dtype, where)
        check_at_least(1, batch_size=batch_size)
        if backend != "torch":
            require_backend(backend, precision, where)
        settings = {"dtype": precision if backend == "torch" else torch.float32, "use_safetensors": True}
        try:
            model: Any = source.load(AutoSentenceTransformer, device=str(where), model_kwargs=settings)
        except InputError:
            source.require_safetensors()
            raise
        # Its own, or that of a module: transformers would make an empty one up.
        folders = {"", *(folder for _, folder in read_modules(source))}
        if not any(replace(source, folder=folder).find(*TOKENIZER_FILES) for folder in folders):
            source.require(TOKENIZER_FILES, "tokenizer")
        if not model.supports("text"):
            raise InputError(f"{checkpoint} encodes {' and '.join(map(str, model.modalities))}, not text")
        dim = limits.limit_dim(checkpoint, model.get_embedding_dimension())
        tokens = limits.limit_tokens(checkpoint, model.max_seq_length or 0)
        if limits.dim is not None:
            model.truncate_dim = dim
        if limits.max_tokens is not None:
            model.max_seq_length = tokens
        tokenizer = model.tokenizer
        commit = getattr(getattr(model.transformers_model, "config", None), "_commit_hash", None)
        weights = str(commit or hash_files(sorted(Path(checkpoint).rglob("*.safetensors"))))
        if backend != "torch":
            _replace_model(model, source, backend, weights, precision)
        spec = EncoderSpec(
            name=f"st:{checkpoint}",
            revision=weights,
            modalities=("text",),
            dim=dim,
            pooling="+".join(_name_module(module) for module in model),
            query_prompt=_choose_prompt(model, checkpoint, query_prompt_name, "query"),
            document_prompt=_choose_prompt(model, checkpoint, document_prompt_name, "document", "passage", "corpus"),
            special_tokens=str(tokenizer.decode(tokenizer("")["input_ids"])) if callable(tokenizer) else "",
            max_tokens=tokens,
            normalized=normalize,
            metric="cosine" if normalize else "dot",
            dtype=name_dtype(precision),
        )
        return cls(model, spec, batch_size=batch_size)

    def encode(self, items: Iterable[Item], role: Role) -> Iterator[Dense]:
        """One `Dense` of float32 [n, dim] a window of items; text beyond `max_tokens` is cut off."""
        encode = self.model.encode_query if role == "query" else self.model.encode_document

        def forward(texts: Sequence[str]) -> np.ndarray:
            vectors = encode(
                list(texts),
                prompt=self.spec.prompt(role),
                batch_size=self.batch_size,
                show_progress_bar=False,
                normalize_embeddings=self.spec.normalized,
            )
            return np.asarray(vectors, np.float32)

        def read_texts(group: Sequence[Item]) -> list[str]:
            return [item.text or "" for item in group]

        # The library makes the batches.
        return encode_windows(items, self.spec, prepare=read_texts, cost=lambda _: 1, forward=forward, budget=WINDOW)


@torch.inference_mode()
def _replace_model(model: Any, source: Source, backend: Backend, weights: str, dtype: torch.dtype) -> None:
    """Let another backend compute what the first module's model, in float32, does.

    `InputError` if it is not the library's Transformer, has more than states taken from it, or the vectors change.
    """
    first = model[0]
    how = getattr(first, "modality_config", {}).get("text", {})
    stated = how.get("method_output_name")
    if how.get("method") != "forward" or stated not in (
        "last_hidden_state",
        ["last_hidden_state"],
        ("last_hidden_state",),
    ):
        raise InputError(f"{source}: backend={backend} is for modules that take a model's last states; leave it out")
    before = model.encode(SAMPLE, batch_size=len(SAMPLE), show_progress_bar=False)
    whole, folder = first.model, next((folder for _, folder in read_modules(source)), "")
    published = find_published(replace(source, folder=folder), backend)
    made = open_published(published, dtype) if published else open_exported(whole.config, weights, lambda: whole, dtype)
    made.config = whole.config
    first.model = made.eval()
    first.model_forward_params = {"input_ids", "attention_mask"}
    after = model.encode(SAMPLE, batch_size=len(SAMPLE), show_progress_bar=False)
    lowest = float(torch.cosine_similarity(torch.from_numpy(before), torch.from_numpy(after)).min())
    if not lowest >= COSINES[dtype]:
        raise InputError(f"{source}: backend={backend} gives other vectors (cosine {lowest:.4f}); leave it out")


def _choose_prompt(model: Any, checkpoint: str, name: str | None, *usual: str) -> str:
    held = {key: text for key, text in model.prompts.items() if text is not None}
    if name is not None:
        check_known(name, held, f"prompt of {checkpoint}")
    chosen = next((each for each in (name, *usual, model.default_prompt_name) if each in held), None)
    return held[chosen] if chosen else ""


def _name_module(module: Any) -> str:
    """The module's name, with the mode of pooling."""
    mode = getattr(module, "pooling_mode", None)
    shown = "" if mode is None else f"({mode if isinstance(mode, str) else '+'.join(mode)})"
    return type(module).__name__ + shown
