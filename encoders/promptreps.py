"""`promptreps:` a causal language model as a zero-shot retriever: asked for the one word that represents a text.

PromptReps (Zhuang et al. 2024, EMNLP). `rep=dense` is the last hidden state of the prompt's last token; `rep=sparse` is
what the model would say next: the logits of the words of the text. The paper's hybrid adds both, scaled, at equal
weights: `zscore(dense) + zscore(sparse)`.

Known good: `promptreps:offline:gemma` (runs without a model hub); the paper used
`meta-llama/Meta-Llama-3-8B-Instruct`. Vectors of a model that was not trained for it keep languages apart: across
languages search them with the language correction (Gemma 3 270M on the demo: nDCG@10 0.17 without, 0.50 with it).
"""

from __future__ import annotations

import hashlib
import inspect
import json
import tomllib
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.resources import files
from typing import Any, Literal, NamedTuple
from weakref import WeakValueDictionary

import numpy as np
import torch
from transformers.models.auto import modeling_auto

from ..checkpoints.decoders import LLMPrecision, Source, attends_ahead
from ..checkpoints.devices import resolve_device, token_budget
from ..checkpoints.offline import packages as offline
from ..errors import InputError, check_known, unknown_name
from ..items import Batch, Item, Role
from .base import EncoderSpec
from .batching import stream
from .terms import Terms, stream_terms, strongest
from .transformer import Opened, TransformerEncoder

Rep = Literal["dense", "sparse"]
TEXT = "{text}"
DEFAULT, OWN = "eng", "own"
TOKENS = 512  # of a text, unless max_tokens says otherwise: as in the paper
LEAST = 8  # tokens of a text that must fit beside the prompt
UNBOUNDED = 1 << 20  # tokens that models without a limit of their own read
WORDLESS = 10  # terms of a text without words: the strongest of the vocabulary, as in the paper
OFFLINE = ("gemma",)

# Scripts that write no spaces between words: Thai to Burmese, Khmer, kana, Han.
UNSPACED = (
    (0x0E00, 0x109F), (0x1780, 0x17FF), (0x3040, 0x30FF), (0x31F0, 0x31FF), (0x3400, 0x9FFF), (0xA9E0, 0xA9FF),
    (0xF900, 0xFAFF), (0xFF66, 0xFF9F), (0x20000, 0x3FFFF),
)  # fmt: skip
JOINERS = "\u200c\u200d"


class Wording(NamedTuple):
    """What a model is told around a document and around a query, how its answer begins, and words that are no terms."""

    document: str
    query: str
    answer: str
    stopwords: frozenset[str] = frozenset()


class Frame(NamedTuple):
    """A prompt in the model's tokens, before and after the text; `pattern` is all of it with {text} for the text."""

    pattern: str
    before: list[int]
    after: list[int]


class Asked(NamedTuple):
    """A wording's two prompts."""

    document: Frame
    query: Frame


class Piece(NamedTuple):
    """The tokens of a text within its prompt, and the tokens of its words, rising: int64 [t]."""

    tokens: list[int]
    terms: np.ndarray


@dataclass(frozen=True, eq=False)
class Decoder(Opened):
    """A causal language model in memory with its head: dense and sparse encoders of it share it while one lives."""

    head: Any
    weights: str
    computes_in: str


_LIVE: WeakValueDictionary[tuple[object, ...], Decoder] = WeakValueDictionary()


class PromptReps(TransformerEncoder):
    """A causal language model, its next word unsaid: a float32 vector [hidden] a text, or weights of [vocabulary].

    Sparse weights are log(1 + relu(logit)) of the tokens that the words of the text are made of: of the text as far
    as it is read, in lower case, without stopwords, each word by itself as it would begin the answer. What stands
    between spaces is a word; in scripts without spaces the model's own tokens take the place of words. A text none of
    whose tokens has a weight gets the 10 strongest of the vocabulary.
    """

    opened: Decoder

    def __init__(
        self, opened: Decoder, spec: EncoderSpec, *, rep: Rep, prompt: str, frames: Frames, **settings: Any
    ) -> None:
        super().__init__(opened, spec, **settings)
        self.rep = rep
        self.prompt = prompt
        self.frames = frames
        self._special = np.array(sorted(set(self.tokenizer.all_special_ids)), np.int64)
        self._silent: dict[tuple[str | None, str], set[int]] = {}
        takes = inspect.signature(self.model.forward).parameters
        self._positioned = "position_ids" in takes
        self._last = {"logits_to_keep": 1} if "logits_to_keep" in takes else {}  # else all, of which the last

    @classmethod
    def from_checkpoint(  # type: ignore[override]
        cls,
        checkpoint: str,
        *,
        device: str = "auto",
        trust_remote_code: bool = False,
        rep: Rep = "dense",
        prompt: str = DEFAULT,
        chat: bool | None = None,
        terms: int = 128,
        max_tokens: int | None = None,
        dtype: LLMPrecision = "auto",
        revision: str | None = None,
    ) -> PromptReps:
        """Load from the hub or a directory, safetensors only; `offline:gemma` is the model of that package.

        `prompt` is a language (ISO 639-3) or another name in `promptreps.toml`, English by default; `own` asks in
        the language of each item, and in English where that is not known or has no prompt. `chat` puts the
        tokenizer's chat template around it, by default where there is one. `terms` keeps so many of the strongest
        terms of a text (0: all). `max_tokens` counts the prompt too, which is never cut; by default 512 tokens of
        the text are read. `dtype` is also `int8` (CPU) and `4bit` (CUDA, needs bitsandbytes). `InputError` where
        anything is missing, does not fit or is out of range.
        """
        if prompt != OWN and prompt not in wordings():
            raise unknown_name(prompt, (OWN, *wordings()), "prompt of promptreps")
        if terms < 0:
            raise InputError(f"{checkpoint}: terms must be 0 or more, not {terms}")
        where = resolve_device(device)
        opened = _opened(checkpoint, revision, trust_remote_code, dtype, where)
        config, tokenizer = opened.config, opened.tokenizer
        templated = bool(getattr(tokenizer, "chat_template", None))
        if chat and not templated:
            raise InputError(f"{checkpoint} has no chat template: leave chat out, or say chat=false")
        names = tuple(wordings()) if prompt == OWN else (prompt,)
        frames = Frames.of(tokenizer, names, templated if chat is None else chat, checkpoint)
        longest = getattr(config, "max_position_embeddings", None) or UNBOUNDED
        least = frames.longest + LEAST
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
            extra["prompts"] = _digest({name: [each.pattern for each in frames[name]] for name in names})
        if rep == "sparse":
            lists = {name: sorted(each.stopwords) for name, each in wordings().items()}
            extra |= {"terms": terms, "stopwords": _digest(lists)}
        first = frames[DEFAULT if prompt == OWN else prompt]
        vocabulary, hidden = opened.head.weight.shape
        spec = EncoderSpec(
            name=f"promptreps:{checkpoint}",
            revision=opened.weights,
            modalities=("text",),
            dim=int(hidden if rep == "dense" else vocabulary),
            kind=rep,
            pooling="last",
            query_prompt=first.query.pattern,
            document_prompt=first.document.pattern,
            special_tokens=tokenizer.decode(frames.start),
            max_tokens=max_tokens or min(longest, frames.longest + TOKENS),
            normalized=rep == "dense",
            metric="cosine" if rep == "dense" else "dot",
            extra=extra,
            dtype=opened.computes_in,
        )
        return cls(opened, spec, rep=rep, prompt=prompt, frames=frames, device=where)

    def encode(self, items: Iterable[Item], role: Role) -> Iterator[Batch]:  # type: ignore[override]
        """One `Dense` [n, hidden] or `Sparse` [n, vocabulary], float32, a window of items; long texts are cut."""
        given: dict[str, Any] = {
            "prepare": lambda group: self._pieces(group, role),
            "cost": lambda piece: len(piece.tokens),
            "budget": token_budget(self.device),
        }
        if self.rep == "dense":
            return stream(items, self.spec, forward=self._states, **given)
        return stream_terms(items, self.spec, forward=self._terms, **given)

    def room(self, role: Role = "document") -> int:
        """How many tokens of a text fit, beside the longest prompt (`encoders.base.Tokenizes`)."""
        return self.spec.max_tokens - self.frames.longest

    def _wording(self, item: Item) -> str:
        if self.prompt != OWN:
            return self.prompt
        return item.lang if item.lang is not None and item.lang in wordings() else DEFAULT

    # A text in its prompt

    def _pieces(self, items: Sequence[Item], role: Role) -> list[Piece]:
        # The text is tokenised by itself, as the paper does it: it may be cut without a look at the prompt, and what
        # looks like a special token in it stays text.
        most = self.spec.max_tokens
        texts = [item.text or "" for item in items]
        options = {"truncation": True, "max_length": most, "split_special_tokens": True, "verbose": False}
        tokens = self.tokenizer(texts, add_special_tokens=False, **options)["input_ids"]
        read, pieces = [], []
        for item, text, ids in zip(items, texts, tokens, strict=True):
            frame = getattr(self.frames[self._wording(item)], role)
            space = most - len(frame.before) - len(frame.after)
            read.append(text if len(ids) < space else self.tokenizer.decode(ids[:space]))
            pieces.append([*frame.before, *ids[:space], *frame.after])
        if self.rep == "dense":
            return [Piece(ids, np.empty(0, np.int64)) for ids in pieces]
        return [Piece(*pair) for pair in zip(pieces, self._said(items, read), strict=True)]

    def _said(self, items: Sequence[Item], texts: Sequence[str]) -> list[np.ndarray]:
        """The tokens of the words of each text."""
        found = [words(text) for text in texts]
        answers = [wordings()[self._wording(item)].answer for item in items]
        asked = sorted({(answer, word) for answer, each in zip(answers, found, strict=True) for word in each})
        known = dict(zip(asked, begun(self.tokenizer, asked), strict=True))
        rows = []
        for item, answer, each in zip(items, answers, found, strict=True):
            terms: set[int] = set()
            for word in each - stopwords(item.lang):
                ids = known[answer, word]
                terms.update(ids if spaced(word) else set(ids) - self._stopped(item.lang, answer))
            rows.append(np.setdiff1d(np.array(sorted(terms), np.int64), self._special))
        return rows

    def _stopped(self, lang: str | None, answer: str) -> set[int]:
        """The tokens that are stopwords of a language by themselves."""
        key = (lang, answer)
        if key not in self._silent:
            each = begun(self.tokenizer, [(answer, word) for word in stopwords(lang)])
            self._silent[key] = {ids[0] for ids in each if len(ids) == 1}
        return self._silent[key]

    # The model

    @torch.inference_mode()
    def _states(self, batch: Sequence[Piece]) -> np.ndarray:
        base: Any = self.model.base_model  # without the head
        states = base(**self._left_padded(batch)).last_hidden_state
        return self._finished(states[:, -1].float())

    @torch.inference_mode()
    def _terms(self, batch: Sequence[Piece]) -> list[Terms]:
        logits = self.model(**self._left_padded(batch), **self._last).logits[:, -1]
        most = int(self.spec.extra["terms"])  # type: ignore[call-overload]
        found = []
        for row, piece in zip(logits, batch, strict=True):
            mine = torch.from_numpy(piece.terms).to(row.device)
            places, weights = strongest(_saturated(row[mine]), most)
            terms = piece.terms[places].astype(np.int32)
            if not len(terms):
                everything = _saturated(row)
                everything[self._special] = 0
                terms, weights = strongest(everything, WORDLESS)
            found.append((terms, weights))
        return found

    def _left_padded(self, batch: Sequence[Piece]) -> dict[str, Any]:
        # On the left, so that the last token of every prompt is in the last column: the only one the head is for.
        lengths = torch.tensor([len(piece.tokens) for piece in batch])
        starts = (longest := int(lengths.max())) - lengths
        columns = torch.arange(longest)
        mask = columns >= starts[:, None]
        tokens = torch.zeros(mask.shape, dtype=torch.long)  # what pads is masked
        tokens[mask] = torch.tensor([token for piece in batch for token in piece.tokens])
        given = {"input_ids": tokens, "attention_mask": mask.long()}
        if self._positioned:  # others count from the mask
            given["position_ids"] = (columns - starts[:, None]).clamp_min(0)
        return {name: tensor.to(self.device) for name, tensor in given.items()} | {"use_cache": False}


class Frames(dict[str, "Asked"]):
    """The prompts of a model by the names of their wordings; `start` are the tokens that it puts first itself."""

    def __init__(self, prompts: Mapping[str, Asked], start: Sequence[int]) -> None:
        super().__init__(prompts)
        self.start = list(start)
        self.longest = max(len(f.before) + len(f.after) for asked in prompts.values() for f in asked)

    @classmethod
    def of(cls, tokenizer: Any, names: Sequence[str], chat: bool, checkpoint: str) -> Frames:
        """In the chat template, or as plain text after the beginning-of-sequence token."""
        # Chat templates bring the BOS. Some tokenizers do not add the one that the model was trained with: Gemma's.
        start = [] if chat or tokenizer.bos_token_id is None else [tokenizer.bos_token_id]

        def frame(said: str, answer: str) -> Frame:
            pattern = (_rendered(tokenizer, said.rstrip(), checkpoint) if chat else said) + answer
            before, _, after = pattern.partition(TEXT)
            ids = [tokenizer(part, add_special_tokens=False)["input_ids"] for part in (before, after)]
            return Frame(pattern, start + ids[0], ids[1])

        prompts = {}
        for name in names:
            wording = wordings()[name]
            prompts[name] = Asked(
                frame(wording.document, wording.answer), frame(wording.query, wording.answer)
            )
        return cls(prompts, start)


def _opened(
    checkpoint: str,
    revision: str | None,
    trust_remote_code: bool,
    dtype: LLMPrecision,
    device: torch.device,
) -> Decoder:
    """The model and its tokenizer; `InputError` for what is no causal language model."""
    key = (checkpoint, revision, trust_remote_code, dtype, device)
    if (live := _LIVE.get(key)) is not None:
        return live
    at = checkpoint
    if checkpoint.startswith("offline:"):
        name = checkpoint.removeprefix("offline:")
        check_known(name, OFFLINE, "offline language model")
        if revision is not None:
            raise InputError(f"{checkpoint} has one revision, that of its package: leave revision out")
        at = str(offline.checkpoint(name))
    source = Source.of(at, revision, None, None, trust_remote_code, "promptreps")
    config = source.config
    said = tuple(config.architectures or ())
    heads = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")
    custom = "AutoModelForCausalLM" in (getattr(config, "auto_map", None) or {})
    known = custom or type(config) in modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING
    if not known or (said and not any(each.endswith(heads) for each in said)):
        what = " and ".join(said) or f"of type {config.model_type}"
        raise InputError(
            f"{checkpoint} is {what}, and promptreps: needs a causal language model with its head; "
            f"for text encoders write hf:, for trained decoders llm:"
        )
    tokenizer = source.tokenizer()
    model, weights, computes_in = source.model("causal", None, dtype, device, head=True)
    if attends_ahead(model.base_model):
        raise InputError(
            f"{checkpoint} attends in both directions, so it says no next word; write llm: for it"
        )
    head = model.get_output_embeddings()
    made = _LIVE[key] = Decoder(model.config.get_text_config(), tokenizer, model, head, weights, computes_in)
    return made


def _rendered(tokenizer: Any, said: str, checkpoint: str) -> str:
    """The chat template around the user's turn, up to where the answer begins; thoughts are closed, empty."""
    import jinja2

    options = {"enable_thinking": False} if "enable_thinking" in str(tokenizer.chat_template) else {}
    turns = [{"role": "user", "content": said}]
    try:
        text = str(
            tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True, **options)
        )
    except jinja2.TemplateError:
        text = ""
    if text.count(TEXT) != 1:
        raise InputError(f"{checkpoint}: its chat template does not take a user's turn alone; say chat=false")
    return text


def _saturated(logits: torch.Tensor) -> np.ndarray:
    weights: np.ndarray = torch.log1p(torch.relu(logits.float())).cpu().numpy()
    return weights


# Words


@cache
def wordings() -> Mapping[str, Wording]:
    """What `promptreps.toml` holds: language or name -> wording."""
    text = files(__package__).joinpath("promptreps.toml").read_text("utf-8")
    return {
        name: Wording(**table | {"stopwords": frozenset(table.get("stopwords", "").split())})
        for name, table in tomllib.loads(text).items()
    }


def stopwords(lang: str | None) -> frozenset[str]:
    """The stopwords of a language; those of English, as in the paper, where there is no list."""
    mine = wordings().get(lang or DEFAULT)
    return mine.stopwords if mine and mine.stopwords else wordings()[DEFAULT].stopwords


def words(text: str) -> set[str]:
    """The words of a text, lower-cased: runs of letters, digits and their marks in any script."""
    kept = "".join(each if _inside(each) else " " for each in text.lower())
    found = (run.strip(JOINERS) for run in kept.split())
    return {word for word in found if any(map(str.isalnum, word))}


def spaced(word: str) -> bool:
    """Whether it is in a script that writes spaces between words."""
    return not any(low <= ord(each) <= high for each in word for low, high in UNSPACED)


def begun(tokenizer: Any, asked: Sequence[tuple[str, str]]) -> list[list[int]]:
    """The tokens of (answer, word): the word as it goes on from the quotation mark that the answer ends with."""
    if not asked:
        return []
    marks = [answer[-1] for answer, _ in asked]
    options = {"add_special_tokens": False, "split_special_tokens": True, "verbose": False}
    opened = {mark: tokenizer(mark, **options)["input_ids"] for mark in set(marks)}
    joined = tokenizer([mark + word for mark, (_, word) in zip(marks, asked, strict=True)], **options)
    bare = tokenizer([word for _, word in asked], **options)
    found = []
    for mark, whole, alone in zip(marks, joined["input_ids"], bare["input_ids"], strict=True):
        first = opened[mark]
        # Where mark and word share a token, the word's own are the nearest to be had.
        found.append(whole[len(first) :] if whole[: len(first)] == first else alone)
    return found


@lru_cache(maxsize=1 << 16)
def _inside(character: str) -> bool:
    return character.isalnum() or character in JOINERS or unicodedata.category(character).startswith("M")


def _digest(value: object) -> str:
    text = json.dumps(value, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
