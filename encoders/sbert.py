"""`st:` text models as the library sentence-transformers runs them (Reimers and Gurevych 2019): what ours must equal."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from ..checkpoints.devices import resolve_device, resolve_dtype
from ..checkpoints.sentence_files import fetch
from ..checkpoints.weights import require_safetensors
from ..errors import InputError, unknown_name
from ..items import Dense, Item, Role
from .base import EncoderSpec, Precision, check_finite
from .batching import halving, prepared
from .transformer import TOKENIZER_FILES, loaded


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
        device: str = "auto",
        trust_remote_code: bool = False,
        query_prompt_name: str | None = None,
        document_prompt_name: str | None = None,
        max_tokens: int | None = None,
        dim: int | None = None,
        normalize: bool = True,
        dtype: Precision = "auto",
        batch_size: int = 32,
        revision: str | None = None,
    ) -> SentenceTransformersEncoder:
        """Load from the hub or a directory, safetensors only.

        Prompts are named as the checkpoint names them; without a name the library's own choice holds: `query`, and
        the first of `document`, `passage` and `corpus`, else the checkpoint's default. `InputError` if the library or
        the checkpoint is not there, or for a prompt, `dim` or `max_tokens` that it does not have.
        """
        try:
            from sentence_transformers import SentenceTransformer
        except ImportError:
            raise InputError("st: needs sentence-transformers: pip install 'crosslens[st]'") from None

        class AutoSentenceTransformer:  # what `loaded` calls
            from_pretrained = SentenceTransformer

        where = resolve_device(device)
        precision = resolve_dtype(dtype, where)
        if batch_size < 1:
            raise InputError(f"batch_size must be at least 1, not {batch_size}")
        try:
            model: Any = loaded(
                AutoSentenceTransformer,
                checkpoint,
                device=str(where),
                trust_remote_code=trust_remote_code,
                revision=revision,
                model_kwargs={"dtype": precision, "use_safetensors": True},
            )
        except InputError:
            require_safetensors(checkpoint, revision)
            raise
        _require_tokenizer(checkpoint, revision)
        if not model.supports("text"):
            raise InputError(f"{checkpoint} encodes {' and '.join(map(str, model.modalities))}, not text")
        width = model.get_embedding_dimension()
        if dim is not None and not 1 <= dim <= width:
            raise InputError(f"{checkpoint}: dim must be in 1..{width}, not {dim}")
        model.truncate_dim = dim
        longest = model.max_seq_length or 0
        if max_tokens is not None:
            if not 3 <= max_tokens <= longest:
                raise InputError(f"{checkpoint}: max_tokens must be in 3..{longest}, not {max_tokens}")
            model.max_seq_length = max_tokens
        spec = EncoderSpec(
            name=f"st:{checkpoint}",
            revision=_revision(model, checkpoint),
            modalities=("text",),
            dim=dim or width,
            pooling="+".join(_pooling(module) for module in model),
            query_prompt=_prompt(model, checkpoint, query_prompt_name, "query"),
            document_prompt=_prompt(model, checkpoint, document_prompt_name, "document", "passage", "corpus"),
            special_tokens=_special_tokens(model.tokenizer),
            max_tokens=max_tokens or longest,
            normalized=normalize,
            metric="cosine" if normalize else "dot",
            dtype=str(precision).removeprefix("torch."),
        )
        return cls(model, spec, batch_size=batch_size)

    def encode(self, items: Iterable[Item], role: Role) -> Iterator[Dense]:
        """One `Dense` of float32 [n, dim] a window of items; text beyond `max_tokens` is cut off."""
        if role == "query":
            encode, prompt = self.model.encode_query, self.spec.query_prompt
        else:
            encode, prompt = self.model.encode_document, self.spec.document_prompt

        def forward(texts: Sequence[str]) -> np.ndarray:
            found = encode(
                list(texts),
                prompt=prompt,
                batch_size=self.batch_size,
                show_progress_bar=False,
                normalize_embeddings=self.spec.normalized,
            )
            return np.asarray(found, np.float32)

        def texts(group: Sequence[Item]) -> list[str]:
            return [item.text or "" for item in group]

        with closing(prepared(items, self.spec, texts)) as ready:
            for group, given in ready:
                ids = [item.id for item in group]
                vectors = halving(forward, given, ids)
                check_finite(ids, vectors, self.spec.name, self.spec.dtype)
                yield Dense(ids, vectors)


def _require_tokenizer(checkpoint: str, revision: str | None) -> None:
    """`InputError` unless the checkpoint or the folder of a module has one: transformers would make an empty one up."""
    modules = fetch(checkpoint, "modules.json", revision)
    folders = (
        [] if modules is None else [str(each.get("path", "")) for each in json.loads(modules.read_text())]
    )
    places = [f"{folder}/{name}".lstrip("/") for folder in {"", *folders} for name in TOKENIZER_FILES]
    if not any(fetch(checkpoint, place, revision) for place in places):
        raise InputError(f"{checkpoint} has no tokenizer (none of {', '.join(TOKENIZER_FILES)})")


def _prompt(model: Any, checkpoint: str, name: str | None, *usual: str) -> str:
    held = {key: text for key, text in model.prompts.items() if text is not None}
    if name is not None and name not in held:
        raise unknown_name(name, tuple(held), f"prompt of {checkpoint}")
    chosen = next((each for each in (name, *usual, model.default_prompt_name) if each in held), None)
    return held[chosen] if chosen else ""


def _pooling(module: Any) -> str:
    """The module's name, with the mode of pooling and the size of a dense layer."""
    mode = getattr(module, "pooling_mode", None)
    shown = "" if mode is None else f"({mode if isinstance(mode, str) else '+'.join(mode)})"
    return type(module).__name__ + shown


def _special_tokens(tokenizer: Any) -> str:
    return str(tokenizer.decode(tokenizer("")["input_ids"])) if callable(tokenizer) else ""


def _revision(model: Any, checkpoint: str) -> str:
    """The hub's commit, or the sha256 over all safetensors files of a directory, 16 hex digits."""
    commit = getattr(getattr(model.transformers_model, "config", None), "_commit_hash", None)
    if commit:
        return str(commit)
    digest = hashlib.sha256()
    for path in sorted(Path(checkpoint).rglob("*.safetensors")):
        with path.open("rb") as weights:
            digest.update(hashlib.file_digest(weights, "sha256").digest())
    return digest.hexdigest()[:16]
