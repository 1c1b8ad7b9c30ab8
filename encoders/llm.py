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
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch

from ..checkpoints.devices import LLMPrecision
from ..checkpoints.open import Attention, DecoderSource, attends_ahead
from ..checkpoints.options import Limits, Loading, Prompts, choose_given
from ..checkpoints.sentence_files import Pooling, load_dense_stack
from ..errors import InputError
from ..items import Item, Role
from .base import EncoderSpec
from .known import KNOWN_CHECKPOINTS
from .pooling import Side, collate
from .transformer import TransformerEncoder

log = logging.getLogger("crosslens")
Style = Literal["e5", "tart", "gemma"]
TASK = "Given a web search query, retrieve relevant passages that answer the query"

# How a query states its task: E5-Mistral's way (also Qwen3-Embedding's and gte-Qwen2's), TART's (Asai et al. 2023),
# and EmbeddingGemma's.
STYLES = {"e5": "Instruct: {task}\nQuery: ", "tart": "{task} [SEP] ", "gemma": "task: {task} | query: "}

# Prompts that hold a task, up to and after it.
_TASKED = (re.compile(r"(Instruct: ).*?(\nQuery: ?)", re.DOTALL), re.compile(r"(task: ).*?( \| query: )"))


@dataclass(frozen=True)
class KnownRetriever:
    """A retriever whose files do not say it all: prompts, pooling, whether attention goes both ways.

    `end` is the token that texts end with where the tokenizer does not put it; empty for its eos_token.
    """

    query_prompt: str
    document_prompt: str = ""
    pooling: Literal["last", "mean"] = "last"
    bidirectional: bool = False
    end: str = ""


# By a part of the checkpoint's name, in lower case.
KNOWN = {name: KnownRetriever(**table) for name, table in KNOWN_CHECKPOINTS["retrievers"].items()}


@dataclass(eq=False, kw_only=True)
class LLMEncoder(TransformerEncoder):
    """A decoder language model; one float32 vector [dim] a text.

    With last-token pooling the end-of-sequence token is appended where the tokenizer does not do it, and the vector
    is its state. Truncation cuts the end of the text: the prompt, its instruction and the special tokens stay.
    """

    padding: Side = "right"
    call: ClassVar[Mapping[str, object]] = {"use_cache": False}

    @classmethod
    def from_checkpoint(  # type: ignore[override]  # decoders have no other backend than torch
        cls,
        checkpoint: str,
        *,
        loading: Loading,
        limits: Limits,
        prompts: Prompts,
        pooling: Pooling | None = None,
        attention: Attention = "auto",
        eos: bool | None = None,
        instruct: str | None = None,
        style: Style | None = None,
        adapter: str | None = None,
        base: str | None = None,
        truncate: bool = True,
        normalize: bool = True,
        dtype: LLMPrecision = "auto",
        padding: Side = "right",
    ) -> LLMEncoder:
        """Load from the hub or a directory, safetensors only.

        `instruct` is the task that queries state, put into the checkpoint's own query prompt or that of a `style`.
        `eos` appends the end-of-sequence token, or leaves it to the tokenizer; by default it is there where the
        tokenizer's configuration asks for it, and with last-token pooling, unless the checkpoint's
        sentence-transformers files are followed. `attention` makes a causal model look both ways or the reverse. A
        checkpoint that is an adapter of peft is merged into its base model, or into `base`; `adapter` names one to be
        merged into the checkpoint.
        `dtype` is also `int8` (CPU) and `4bit` (CUDA, needs bitsandbytes). With `truncate=false` a text longer than
        `max_tokens` is an error. `padding` changes no vector; `left` is for models whose own code supposes it.
        `InputError` where anything is missing, does not fit or is out of range.
        """
        source = DecoderSource.find(loading.find_source(checkpoint), adapter, base)
        known = find_retriever(adapter, checkpoint, source.base.checkpoint)
        usual = known or KnownRetriever("")
        settings, files = source.read_settings()
        opened = source.open(attention, known.bidirectional if known else None, dtype, loading.where)
        config, tokenizer, model = opened.config, opened.tokenizer, opened.model
        tokenizer.truncation_side = "right"
        ahead = attends_ahead(model)
        if attention != "auto" and ahead != (attention == "bidirectional"):
            raise InputError(
                f"{checkpoint} cannot be given {attention} attention: its architecture ({config.model_type}) goes its "
                f"own way; leave attention out"
            )
        dense, width = load_dense_stack(files, settings.dense, config.hidden_size)
        rows = model.get_input_embeddings().num_embeddings  # type: ignore[operator]
        if (top := max(set(tokenizer.get_vocab().values()) - {tokenizer.pad_token_id})) >= rows:
            raise InputError(f"{checkpoint}: its tokenizer has a token {top}, its model embeddings for only {rows}")
        how = pooling or settings.pooling or usual.pooling
        query_prompt = choose_given(prompts.query_prompt, settings.query_prompt, usual.query_prompt)
        if instruct is not None or style is not None:
            if prompts.query_prompt is not None:
                raise InputError(f"{checkpoint}: query_prompt is the whole prompt; leave instruct and style out")
            query_prompt = instruct_prompt(query_prompt, TASK if instruct is None else instruct, style, checkpoint)
        if eos is None:
            unstated = known is not None or settings.pooling is None
            eos = (how == "last" and unstated) or source.ends_texts()
        extra: dict[str, object] = {"attention": "bidirectional" if ahead else "causal"}
        if source.adapter:
            extra["adapter"] = source.adapter.revision
        spec = EncoderSpec(
            name=f"llm:{checkpoint}",
            revision=opened.weights,
            modalities=("text",),
            dim=limits.limit_dim(checkpoint, width),
            pooling=how,
            query_prompt=query_prompt,
            document_prompt=choose_given(prompts.document_prompt, settings.document_prompt, usual.document_prompt),
            max_tokens=limits.limit_tokens(checkpoint, opened.find_longest_input(settings.max_tokens)),
            normalized=normalize,
            metric="cosine" if normalize else "dot",
            extra=extra,
            dtype=opened.computes_in,
        )
        encoder = cls(
            opened=opened,
            spec=spec,
            append=_find_end(tokenizer, checkpoint, usual.end) if eos else None,
            dense=dense,
            padding=padding,
            truncate=truncate,
            lowercase=settings.lowercase,
        )
        encoder._check_special_tokens()
        return encoder

    def prepare(self, items: Sequence[Item], role: Role) -> Sequence[list[int]]:
        """The token ids of each item's text behind its prompt; `InputError` if one is too long and none is cut."""
        tokenized = super().prepare(items, role)
        for item, ids in zip(items, tokenized, strict=True):
            if len(ids) > self.spec.max_tokens:
                raise InputError(
                    f"item {item.id!r} has {len(ids)} tokens, and {self.spec.name} reads "
                    f"{self.spec.max_tokens}; shorten it, or let it be cut with truncate=true"
                )
        return tokenized

    def collate(self, ids: Sequence[Sequence[int]]) -> dict[str, torch.Tensor]:
        """The inputs of the model for a batch, padded, on the device."""
        # What pads is masked; not every vocabulary has a token for it.
        return collate(ids, side=self.padding, positions=self.padding == "left", device=self.device)

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


def _find_end(tokenizer: Any, checkpoint: str, named: str) -> int | None:
    """The token to append, `named` or eos_token; None where the tokenizer already ends texts with a special token."""
    word = tokenizer("a", add_special_tokens=False)["input_ids"]
    if tokenizer("a")["input_ids"][-len(word) :] != word:
        return None
    if named and named in (vocabulary := tokenizer.get_vocab()):
        return int(vocabulary[named])
    if tokenizer.eos_token_id is None:
        raise InputError(f"{checkpoint}: its tokenizer names no eos_token to append; write eos=false to go without")
    return int(tokenizer.eos_token_id)


def find_retriever(*names: str | None) -> KnownRetriever | None:
    """The retriever that one of the names (of a checkpoint, of an adapter) is; None if it is none of `KNOWN`."""
    lasts = [name.rstrip("/").rpartition("/")[2].lower() for name in names if name]
    return next((each for last in lasts for part, each in KNOWN.items() if part in last), None)


def instruct_prompt(prompt: str, task: str, style: Style | None, checkpoint: str) -> str:
    """The query prompt with `task` in it: in the style named, else in the checkpoint's own, else in E5's.

    `InputError` for a checkpoint whose own prompt has no place for a task (RepLLaMA's is `query: `), unless a style
    is named.
    """
    if style is not None:
        return STYLES[style].format(task=task)
    for pattern in _TASKED:
        if match := pattern.fullmatch(prompt):
            return match[1] + task + match[2]
    if prompt:
        raise InputError(
            f"{checkpoint} reads its queries after {prompt!r}, which holds no task: leave instruct out, or name a "
            f"style= ({', '.join(STYLES)}), or write the whole prompt as query_prompt="
        )
    return STYLES["e5"].format(task=task)
