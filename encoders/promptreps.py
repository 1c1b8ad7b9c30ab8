"""`promptreps:` a causal language model as a zero-shot retriever: asked for the one word that represents a text.

PromptReps (Zhuang et al. 2024, EMNLP). `rep=dense` is the last hidden state of the prompt's last token; `rep=sparse` is
what the model would say next: the logits of the words of the text. The paper's hybrid adds both, scaled, at equal
weights: `zscore(dense) + zscore(sparse)`.

Known good: `promptreps:offline:gemma` (runs without a model hub); the paper used
`meta-llama/Meta-Llama-3-8B-Instruct`. Vectors of a model that was not trained for it keep languages apart: across
languages search them with the language correction (Gemma 3 270M on the demo: nDCG@10 0.17 without, 0.50 with it).
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
import torch
from transformers.models.auto import modeling_auto

from ..checkpoints.devices import LLMPrecision
from ..checkpoints.offline.packages import DECODERS, make_checkpoint
from ..checkpoints.open import DecoderSource, OpenModel, attends_ahead
from ..checkpoints.options import UNBOUNDED, Loading
from ..checkpoints.sharing import share
from ..checkpoints.source import Source
from ..errors import InputError, check_at_least, check_known
from ..items import Item, Role, hash_json
from .base import EncoderSpec
from .batching import Row, Terms, select_terms
from .pooling import collate
from .transformer import TransformerEncoder
from .words import DEFAULT, PromptTexts, is_spaced, list_stopwords, read_prompt_texts, split_words, tokenize_answers

Rep = Literal["dense", "sparse"]
TEXT = "{text}"
OWN = "own"
TOKENS = 512  # of a text, unless max_tokens says otherwise: as in the paper
LEAST = 8  # tokens of a text that must fit beside the prompt
WORDLESS = 10  # terms of a text without words: the strongest of the vocabulary, as in the paper


class Frame(NamedTuple):
    """A prompt in the model's tokens, before and after the text; `pattern` is all of it with {text} for the text."""

    pattern: str
    before: list[int]
    after: list[int]


class PromptedText(NamedTuple):
    """The tokens of a text within its prompt, and the tokens of its words, rising: int64 [t]."""

    tokens: list[int]
    terms: np.ndarray


@dataclass(eq=False, kw_only=True)
class PromptReps(TransformerEncoder):
    """A causal language model, its next word unsaid: a float32 vector [hidden] a text, or weights of [vocabulary].

    Sparse weights are log(1 + relu(logit)) of the tokens that the words of the text are made of: of the text as far
    as it is read, in lower case, without stopwords, each word by itself as it would begin the answer. What stands
    between spaces is a word; in scripts without spaces the model's own tokens take the place of words. A text none of
    whose tokens has a weight gets the 10 strongest of the vocabulary.
    """

    prompt: str
    frames: Mapping[str, Mapping[Role, Frame]]  # by language or name
    longest: int  # tokens of a prompt
    call: ClassVar[Mapping[str, object]] = {"use_cache": False}
    count_tokens: ClassVar[Any] = staticmethod(lambda text: len(text.tokens))

    def __post_init__(self) -> None:
        super().__post_init__()
        self._special = np.array(sorted(set(self.tokenizer.all_special_ids)), np.int64)
        self._stopword_tokens: dict[tuple[str | None, str], set[int]] = {}
        takes = inspect.signature(self.model.forward).parameters
        self._positioned = "position_ids" in takes  # others count from the mask
        self._last = {"logits_to_keep": 1} if "logits_to_keep" in takes else {}  # else all, of which the last

    @classmethod
    def from_checkpoint(  # type: ignore[override]
        cls,
        checkpoint: str,
        *,
        loading: Loading,
        rep: Rep = "dense",
        prompt: str = DEFAULT,
        chat: bool | None = None,
        terms: int = 128,
        max_tokens: int | None = None,
        dtype: LLMPrecision = "auto",
    ) -> PromptReps:
        """Load from the hub or a directory, safetensors only; `offline:NAME` is a model that packages carry.

        `prompt` is a language (ISO 639-3) or another name in `promptreps.toml`, English by default; `own` asks in
        the language of each item, and in English where that is not known or has no prompt. `chat` puts the
        tokenizer's chat template around it, by default where there is one. `terms` keeps so many of the strongest
        terms of a text (0: all). `max_tokens` counts the prompt too, which is never cut; by default 512 tokens of
        the text are read. `dtype` is also `int8` (CPU) and `4bit` (CUDA, needs bitsandbytes). `InputError` where
        anything is missing, does not fit or is out of range.
        """
        texts = read_prompt_texts()
        check_known(prompt, (OWN, *texts), "prompt of promptreps")
        check_at_least(0, checkpoint, terms=terms)
        opened = _open_decoder(checkpoint, loading, dtype)
        tokenizer = opened.tokenizer
        templated = bool(getattr(tokenizer, "chat_template", None))
        if chat and not templated:
            raise InputError(f"{checkpoint} has no chat template: leave chat out, or write chat=false")
        names = tuple(texts) if prompt == OWN else (prompt,)
        chat = templated if chat is None else chat
        # Chat templates bring the BOS. Some tokenizers do not add the one that the model was trained with: Gemma's.
        start = [] if chat or tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
        frames = {name: _make_frames(tokenizer, texts[name], start, chat, checkpoint) for name in names}
        longest = getattr(opened.config, "max_position_embeddings", None) or UNBOUNDED
        framed = max(len(each.before + each.after) for both in frames.values() for each in both.values())
        least = framed + LEAST
        if longest < least:
            raise InputError(
                f"{checkpoint}: its context of {longest} tokens is too short for the prompt {prompt}, which with "
                f"{LEAST} tokens of a text takes {least}"
            )
        if max_tokens is not None and not least <= max_tokens <= longest:
            raise InputError(
                f"{checkpoint}: max_tokens must be in {least}..{longest}, the prompt included, not {max_tokens}"
            )
        extra: dict[str, object] = {"rep": rep, "prompt": prompt}
        if prompt == OWN:
            extra["prompts"] = hash_json({name: [each.pattern for each in frames[name].values()] for name in names}, 16)
        if rep == "sparse":
            lists = {name: sorted(each.stopwords) for name, each in texts.items()}
            extra |= {"terms": terms, "stopwords": hash_json(lists, 16)}
        first = frames[DEFAULT if prompt == OWN else prompt]
        head: Any = opened.model.get_output_embeddings()  # type: ignore[operator]
        vocabulary, hidden = head.weight.shape
        spec = EncoderSpec(
            name=f"promptreps:{checkpoint}",
            revision=opened.weights,
            modalities=("text",),
            dim=int(hidden if rep == "dense" else vocabulary),
            kind=rep,
            pooling="last",
            query_prompt=first["query"].pattern,
            document_prompt=first["document"].pattern,
            special_tokens=tokenizer.decode(start),
            max_tokens=max_tokens or min(longest, framed + TOKENS),
            normalized=rep == "dense",
            metric="cosine" if rep == "dense" else "dot",
            extra=extra,
            dtype=opened.computes_in,
        )
        return cls(opened=opened, spec=spec, prompt=prompt, frames=frames, longest=framed)

    def room(self, role: Role = "document") -> int:
        """How many tokens of a text fit, beside the longest prompt (`encoders.base.Tokenizes`)."""
        return self.spec.max_tokens - self.longest

    # A text in its prompt

    def prepare(self, items: Sequence[Item], role: Role) -> list[PromptedText]:
        """What the model will see of each item, and which of its vocabulary count."""
        # The text is tokenised by itself, as the paper does it: it may be cut without a look at the prompt, and what
        # looks like a special token in it stays text.
        most = self.spec.max_tokens
        texts = [item.text or "" for item in items]
        options = {"truncation": True, "max_length": most, "split_special_tokens": True, "verbose": False}
        tokens = self.tokenizer(texts, add_special_tokens=False, **options)["input_ids"]
        read, prompted = [], []
        for item, text, ids in zip(items, texts, tokens, strict=True):
            frame = self.frames[self._choose_prompt(item)][role]
            space = most - len(frame.before) - len(frame.after)
            read.append(text if len(ids) < space else self.tokenizer.decode(ids[:space]))
            prompted.append([*frame.before, *ids[:space], *frame.after])
        if self.spec.kind == "dense":
            return [PromptedText(ids, np.empty(0, np.int64)) for ids in prompted]
        return [PromptedText(*pair) for pair in zip(prompted, self._find_terms(items, read), strict=True)]

    def _choose_prompt(self, item: Item) -> str:
        if self.prompt != OWN:
            return self.prompt
        return item.lang if item.lang is not None and item.lang in read_prompt_texts() else DEFAULT

    def _find_terms(self, items: Sequence[Item], texts: Sequence[str]) -> list[np.ndarray]:
        """The tokens of the words of each text."""
        found = [split_words(text) for text in texts]
        beginnings = [read_prompt_texts()[self._choose_prompt(item)].answer for item in items]
        answers = sorted({(b, word) for b, each in zip(beginnings, found, strict=True) for word in each})
        tokens = dict(zip(answers, tokenize_answers(self.tokenizer, answers), strict=True))
        rows = []
        for item, beginning, each in zip(items, beginnings, found, strict=True):
            terms: set[int] = set()
            for word in each - list_stopwords(item.lang):
                ids = tokens[beginning, word]
                terms.update(ids if is_spaced(word) else set(ids) - self._find_stopwords(item.lang, beginning))
            rows.append(np.setdiff1d(np.array(sorted(terms), np.int64), self._special))
        return rows

    def _find_stopwords(self, lang: str | None, beginning: str) -> set[int]:
        """The tokens that are stopwords of a language by themselves."""
        key = (lang, beginning)
        if key not in self._stopword_tokens:
            each = tokenize_answers(self.tokenizer, [(beginning, word) for word in list_stopwords(lang)])
            self._stopword_tokens[key] = {ids[0] for ids in each if len(ids) == 1}
        return self._stopword_tokens[key]

    # The model

    @property
    def body(self) -> Any:
        return self.model.base_model

    def collate(self, ids: Sequence[Sequence[int]]) -> dict[str, torch.Tensor]:
        """The inputs of the model for a batch, padded, on the device."""
        # On the left, so that the last token of every prompt is in the last column: the only one the head is for.
        return collate(ids, side="left", positions=self._positioned, device=self.device)

    @torch.inference_mode()
    def compute(self, batch: Sequence[PromptedText], role: Role) -> Iterable[Row]:
        """The vector of each text, or its terms."""
        tokens = [text.tokens for text in batch]
        if self.spec.kind == "dense":
            return super().compute(tokens, role)
        inputs = self.collate(tokens)
        logits = self.model(**inputs, **self.call, **self._last).logits[:, -1]
        most = int(self.spec.extra["terms"])  # type: ignore[call-overload]
        found: list[Terms] = []
        for row, text in zip(logits, batch, strict=True):
            mine = torch.from_numpy(text.terms).to(row.device)
            places, weights = select_terms(_saturate(row[mine]), most)
            terms = text.terms[places].astype(np.int32)
            if not len(terms):
                everything = _saturate(row)
                everything[self._special] = 0
                terms, weights = select_terms(everything, WORDLESS)
            found.append((terms, weights))
        return found


def _make_frames(
    tokenizer: Any, texts: PromptTexts, start: list[int], chat: bool, checkpoint: str
) -> dict[Role, Frame]:
    """The prompts of documents and of queries, in the chat template, or as plain text after the tokens `start`."""
    frames: dict[Role, Frame] = {}
    prompts: dict[Role, str] = {"document": texts.document, "query": texts.query}
    for role, prompt in prompts.items():
        pattern = (_render_turn(tokenizer, prompt.rstrip(), checkpoint) if chat else prompt) + texts.answer
        before, _, after = pattern.partition(TEXT)
        ids = [tokenizer(part, add_special_tokens=False)["input_ids"] for part in (before, after)]
        frames[role] = Frame(pattern, start + ids[0], ids[1])
    return frames


def _open_decoder(checkpoint: str, loading: Loading, dtype: LLMPrecision) -> OpenModel:
    """The model and its tokenizer; `InputError` for what is no causal language model."""
    source = loading.find_source(checkpoint)
    if checkpoint.startswith("offline:"):
        name = checkpoint.removeprefix("offline:")
        check_known(name, DECODERS, "offline language model")
        if loading.revision is not None:
            raise InputError(f"{checkpoint} has one revision, that of its package: leave revision out")
        source = Source(str(make_checkpoint(name)))
    where = loading.where

    def load() -> OpenModel:
        decoder = DecoderSource.find(source, family="promptreps")
        config = decoder.config
        named = tuple(config.architectures or ())
        heads = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")
        custom = "AutoModelForCausalLM" in (getattr(config, "auto_map", None) or {})
        known = custom or type(config) in modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING
        if not known or (named and not any(each.endswith(heads) for each in named)):
            what = " and ".join(named) or f"of type {config.model_type}"
            raise InputError(
                f"{checkpoint} is {what}, and promptreps: needs a causal language model with its head; "
                f"for text encoders write hf:, for trained decoders llm:"
            )
        opened = decoder.open("causal", None, dtype, where, head=True)
        if attends_ahead(opened.model.base_model):
            raise InputError(f"{checkpoint} attends in both directions, so it says no next word; write llm: for it")
        return opened

    return share((source, "causal", dtype, where), load)


def _render_turn(tokenizer: Any, prompt: str, checkpoint: str) -> str:
    """The chat template around the user's turn, up to where the answer begins; thoughts are closed, empty."""
    import jinja2

    options = {"enable_thinking": False} if "enable_thinking" in str(tokenizer.chat_template) else {}
    turns = [{"role": "user", "content": prompt}]
    try:
        text = str(tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True, **options))
    except jinja2.TemplateError:
        text = ""
    if text.count(TEXT) != 1:
        raise InputError(f"{checkpoint}: its chat template does not take a user's turn alone; write chat=false")
    return text


def _saturate(logits: torch.Tensor) -> np.ndarray:
    return np.asarray(torch.log1p(torch.relu(logits.float())).cpu())
