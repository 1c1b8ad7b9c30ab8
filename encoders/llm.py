"""`llm:` decoder language models as dense retrievers: last-token or mean pooling, instructions, adapters, few bits.

What a checkpoint says in its sentence-transformers files is followed; what it does not say is known for these:

- RepLLaMA (Ma et al. 2023): `llm:castorini/repllama-v1-7b-lora-passage`, an adapter of Llama 2 (in
  safetensors: samaya-ai/RepLLaMA-reproduced); `query: `, `passage: ` and the title before the text, and the state of
  an appended `</s>`.
- E5-Mistral (Wang et al. 2023): `llm:intfloat/e5-mistral-7b-instruct`; `Instruct: TASK\\nQuery: `, appended `</s>`.
- Qwen3-Embedding (Zhang et al. 2025): `llm:Qwen/Qwen3-Embedding-0.6B?dim=512`; its tokenizer appends
  `<|endoftext|>`, which is not its eos_token.
- gte-Qwen2 (Li et al. 2023): `llm:Alibaba-NLP/gte-Qwen2-1.5B-instruct`; attention in both directions.
- DRAMA (Ma et al. 2025): `llm:facebook/drama-base`; attention in both directions, mean pooling, `Query: `.
- EmbeddingGemma (Schechter Vera et al. 2025): `llm:google/embeddinggemma-300m`; both directions, mean pooling, two
  dense layers.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import torch

from ..checkpoints.decoders import Attention, LLMPrecision, Source, attends_ahead
from ..checkpoints.devices import resolve_device
from ..errors import InputError
from ..items import Item
from .base import EncoderSpec
from .instructions import TASK, Style, instructed, known
from .transformer import Opened, Pooling, TransformerEncoder, dense_layers, first_given, longest_input

log = logging.getLogger("crosslens")


class LLMEncoder(TransformerEncoder):
    """A decoder language model; one float32 vector [dim] a text.

    With last-token pooling the end-of-sequence token is appended where the tokenizer does not do it, and the vector
    is its state. Truncation cuts the end of the text: the prompt, its instruction and the special tokens stay.
    """

    def __init__(
        self,
        opened: Opened,
        spec: EncoderSpec,
        *,
        append: int | None = None,
        padding: Literal["right", "left"] = "right",
        truncate: bool = True,
        **settings: Any,
    ) -> None:
        super().__init__(opened, spec, **settings)
        self.append = append
        self.padding = padding
        self.truncate = truncate

    @classmethod
    def from_checkpoint(
        cls,
        checkpoint: str,
        *,
        device: str = "auto",
        trust_remote_code: bool = False,
        pooling: Pooling | None = None,
        attention: Attention = "auto",
        eos: bool | None = None,
        instruct: str | None = None,
        style: Style | None = None,
        query_prompt: str | None = None,
        document_prompt: str | None = None,
        adapter: str | None = None,
        base: str | None = None,
        max_tokens: int | None = None,
        truncate: bool = True,
        dim: int | None = None,
        normalize: bool = True,
        dtype: LLMPrecision = "auto",
        padding: Literal["right", "left"] = "right",
        revision: str | None = None,
    ) -> LLMEncoder:
        """Load from the hub or a directory, safetensors only.

        `instruct` is the task that queries are told, put into the checkpoint's own query prompt or that of a `style`.
        `eos` appends the end-of-sequence token, or leaves it to the tokenizer; by default it is there where the
        tokenizer's configuration asks for it, and with last-token pooling, unless the checkpoint's
        sentence-transformers files are followed. `attention` makes a causal model look both ways or the reverse. A
        checkpoint that is an adapter of peft is merged into its base model, or into `base`; `adapter` names one to be
        merged into the checkpoint. `dim` keeps the first components (Matryoshka).
        `dtype` is also `int8` (CPU) and `4bit` (CUDA, needs bitsandbytes). With `truncate=false` a text longer than
        `max_tokens` is an error. `padding` changes no vector; `left` is for models whose own code supposes it.
        `InputError` where anything is missing, does not fit or is out of range.
        """
        where = resolve_device(device)
        source = Source.of(checkpoint, revision, adapter, base, trust_remote_code)
        is_known = known(adapter, checkpoint, source.checkpoint)
        published, files_at, files_revision = source.published()
        tokenizer = source.tokenizer()
        tokenizer.truncation_side = "right"
        model, weights, computes_in = source.model(
            attention, is_known.bidirectional if is_known else None, dtype, where
        )
        ahead = attends_ahead(model)
        if attention != "auto" and ahead != (attention == "bidirectional"):
            raise InputError(
                f"{checkpoint} cannot be given {attention} attention: its architecture "
                f"({model.config.model_type}) goes its own way; leave attention out"
            )
        config = model.config.get_text_config()
        dense, width = dense_layers(files_at, published.dense, files_revision, config.hidden_size)
        if dim is not None and not 1 <= dim <= width:
            raise InputError(f"{checkpoint}: dim must be in 1..{width}, not {dim}")
        known_ids = model.get_input_embeddings().num_embeddings
        if (top := max(set(tokenizer.get_vocab().values()) - {tokenizer.pad_token_id})) >= known_ids:
            raise InputError(
                f"{checkpoint}: its tokenizer has a token {top}, its model embeddings for only {known_ids}"
            )
        longest = longest_input(config, tokenizer, published.max_tokens)
        if max_tokens is not None and not 3 <= max_tokens <= longest:
            raise InputError(f"{checkpoint}: max_tokens must be in 3..{longest}, not {max_tokens}")
        pools = pooling or published.pooling or (is_known.pooling if is_known else "last")
        asks = first_given(query_prompt, published.query_prompt, is_known.query_prompt if is_known else "")
        tells = first_given(
            document_prompt, published.document_prompt, is_known.document_prompt if is_known else ""
        )
        if instruct is not None or style is not None:
            if query_prompt is not None:
                raise InputError(
                    f"{checkpoint}: query_prompt is the whole prompt; leave instruct and style out"
                )
            asks = instructed(asks, TASK if instruct is None else instruct, style, checkpoint)
        if eos is None:
            unsaid = is_known is not None or published.pooling is None
            eos = (pools == "last" and unsaid) or source.asks_for_end()
        extra: dict[str, object] = {"attention": "bidirectional" if ahead else "causal"}
        if source.adapter:
            extra["adapter"] = source.adapter.revision
        spec = EncoderSpec(
            name=f"llm:{checkpoint}",
            revision=weights,
            modalities=("text",),
            dim=dim or width,
            pooling=pools,
            query_prompt=asks,
            document_prompt=tells,
            max_tokens=max_tokens or longest,
            normalized=normalize,
            metric="cosine" if normalize else "dot",
            extra=extra,
            dtype=computes_in,
        )
        encoder = cls(
            Opened(config, tokenizer, model),
            spec,
            device=where,
            append=_end(tokenizer, checkpoint, is_known.end if is_known else "") if eos else None,
            dense=dense,
            padding=padding,
            truncate=truncate,
            lowercase=published.lowercase,
        )
        encoder._check_special_tokens()
        return encoder

    def _prepared(self, items: Sequence[Item], prompt: str) -> list[list[int]]:
        pieces = super()._prepared(items, prompt)
        for item, ids in zip(items, pieces, strict=True):
            if len(ids) > self.spec.max_tokens:
                raise InputError(
                    f"item {item.id!r} has {len(ids)} tokens, and {self.spec.name} reads "
                    f"{self.spec.max_tokens}; shorten it, or let it be cut with truncate=true"
                )
        return pieces

    def token_ids(self, texts: Sequence[str]) -> list[list[int]]:
        """What the model will see, special tokens and truncation included."""
        if self.lowercase:
            texts = [text.lower() for text in texts]
        cut = (
            {"truncation": True, "max_length": self.spec.max_tokens} if self.truncate else {"verbose": False}
        )
        ids: list[list[int]] = self.tokenizer(list(texts), **cut)["input_ids"]
        if self.append is None:
            return ids
        room = self.spec.max_tokens - 1 if self.truncate else None
        return [each if each[-1:] == [self.append] else [*each[:room], self.append] for each in ids]

    @torch.inference_mode()
    def _forward(self, batch: Sequence[list[int]]) -> np.ndarray:
        lengths = torch.tensor([len(ids) for ids in batch])
        longest = int(lengths.max())
        starts = longest - lengths if self.padding == "left" else torch.zeros_like(lengths)
        columns = torch.arange(longest)
        mask = (columns >= starts[:, None]) & (columns < (starts + lengths)[:, None])
        tokens = torch.zeros(
            mask.shape, dtype=torch.long
        )  # what pads is masked; not every vocabulary has a token for it
        tokens[mask] = torch.tensor([token for ids in batch for token in ids])
        given = {"input_ids": tokens, "attention_mask": mask.long()}
        if self.padding == "left":  # the first token of a text is at position 0 wherever it stands
            given["position_ids"] = (columns - starts[:, None]).clamp_min(0)
        given = {name: tensor.to(self.device) for name, tensor in given.items()}
        states = self.model(**given, use_cache=False).last_hidden_state
        rows = torch.arange(len(batch), device=states.device)
        if self.spec.pooling == "mean":
            weights = mask.to(states.device, states.dtype)
            pooled = torch.bmm(weights[:, None], states)[:, 0].float() / lengths.to(states.device)[:, None]
        else:
            at = starts if self.spec.pooling == "cls" else starts + lengths - 1
            pooled = states[rows, at.to(states.device)].float()
        return self._finished(pooled)

    def _check_special_tokens(self) -> None:
        """Put them into the spec; `InputError` if a prompt repeats one that the tokenizer puts first."""
        bare = self.token_ids([""])[0]
        self.spec = replace(self.spec, special_tokens=self.tokenizer.decode(bare))
        for prompt in (self.spec.query_prompt, self.spec.document_prompt):
            first = self.token_ids([prompt])[0][:2]
            if bare and first == bare[:1] * 2:
                raise InputError(
                    f"{self.spec.name}: the prompt {prompt!r} begins with {self.tokenizer.decode(first[:1])}, which "
                    f"the tokenizer puts there itself; leave it out of the prompt"
                )
        word = self.tokenizer("a", add_special_tokens=False)["input_ids"]
        if self.spec.pooling == "last" and self.token_ids(["a"])[0][-1] == word[-1]:
            log.warning("%s: the vector is the state of a text's last word; see ?eos=true", self.spec.name)


def _end(tokenizer: Any, checkpoint: str, named: str) -> int | None:
    """The token to append, `named` or eos_token; None where the tokenizer already ends texts with a special token."""
    word = tokenizer("a", add_special_tokens=False)["input_ids"]
    if tokenizer("a")["input_ids"][-len(word) :] != word:
        return None
    if named and named in (vocabulary := tokenizer.get_vocab()):
        return int(vocabulary[named])
    if tokenizer.eos_token_id is None:
        raise InputError(
            f"{checkpoint}: its tokenizer names no eos_token to append; say eos=false to go without"
        )
    return int(tokenizer.eos_token_id)
