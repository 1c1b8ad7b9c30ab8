"""Judges: language models that answer batches of comparisons. `Judge` is the contract, `HFJudge` runs transformers."""

from __future__ import annotations

import copy
import inspect
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ..encoders.base import Precision
from ..encoders.batching import batches, halving
from ..errors import InputError, nearest
from ..items import Modality
from .prompts import Message, Passage

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class Completion:
    """Generated text and how many tokens it took."""

    text: str
    tokens: int


class Judge(Protocol):
    """A model behind a backend. `usage` counts calls, prompt_tokens (those computed) and generated_tokens."""

    name: str
    revision: str
    modalities: frozenset[Modality]
    usage: Counter[str]

    @property
    def fingerprint(self) -> str: ...

    def choose(self, prompts: Sequence[Message], labels: Sequence[str]) -> np.ndarray:
        """Log-probabilities float64 [n, labels] of each label as the next thing said."""
        ...

    def likelihood(self, prompts: Sequence[Message], targets: Sequence[str]) -> np.ndarray:
        """Mean log-probability per token, float64 [n], of each target after its prompt."""
        ...

    def generate(self, prompts: Sequence[Message], **sampling: Any) -> list[Completion]:
        """What the model says after each prompt."""
        ...


SEAM = 16  # characters before a seam that decide how a tokenizer splits there


@dataclass(frozen=True, slots=True)
class _Heads:
    rows: list[int]  # of each message
    texts: list[str]


@dataclass(frozen=True, slots=True)
class _Asked:
    """One question: the row of its head among the distinct heads, the tokens after it, how many are scored."""

    head: int
    tokens: tuple[int, ...]
    scored: int


_Read = Callable[["torch.Tensor", Sequence[_Asked]], np.ndarray]


class HFJudge:
    """A causal language model through transformers.

    A message is computed in two parts: its head, up to the end of the passage, once for all the messages that share
    it; and on the head's key-value cache the rest, for every message. Batches are sorted by length and kept within a
    token budget; the language-model head sees only the positions that are asked for.
    """

    modalities: frozenset[Modality] = frozenset({"text"})

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        name: str,
        revision: str,
        *,
        passage_tokens: int,
        device: torch.device,
    ) -> None:
        self.name = name
        self.revision = revision
        self.model = model.to(device).eval()
        self.tokenizer = tokenizer
        self.device = device
        self.passage_tokens = passage_tokens
        self.usage: Counter[str] = Counter()
        self.progress: Callable[[int], None] | None = None  # told how many questions were answered in all
        self._answered = 0
        self.budget = 2048 if device.type == "cpu" else 32768
        # transformers renames the argument and the output in the course of 5.x.
        self._cache = "cache" if "cache" in inspect.signature(model.forward).parameters else "past_key_values"
        self.context = int(getattr(model.config.get_text_config(), "max_position_embeddings", 0) or 1 << 20)

    @classmethod
    def from_checkpoint(
        cls,
        checkpoint: str,
        *,
        device: str = "auto",
        trust_remote_code: bool = False,
        dtype: Precision = "auto",
        passage_tokens: int = 384,
        revision: str | None = None,
    ) -> HFJudge:
        """Load from the hub or a directory, safetensors only; passages are cut to `passage_tokens`."""
        import transformers

        from ..encoders.devices import resolve_device, resolve_dtype
        from ..encoders.transformer import loaded, loaded_tokenizer, weights_hash

        where = resolve_device(device)
        precision = resolve_dtype(dtype, where)
        if passage_tokens < 1:
            raise InputError(f"passage_tokens must be at least 1, not {passage_tokens}")
        source = {"revision": revision, "trust_remote_code": trust_remote_code}
        tokenizer = loaded_tokenizer(checkpoint, revision, trust_remote_code)
        model = loaded(
            transformers.AutoModelForCausalLM, checkpoint, dtype=precision, use_safetensors=True, **source
        )
        found = getattr(model.config, "_commit_hash", None) or weights_hash(checkpoint)
        return cls(model, tokenizer, f"hf:{checkpoint}", found, passage_tokens=passage_tokens, device=where)

    @property
    def fingerprint(self) -> str:
        return f"{self.revision}/{self.model.dtype}/{self.passage_tokens}"

    def choose(self, prompts: Sequence[Message], labels: Sequence[str]) -> np.ndarray:
        self.usage["calls"] += len(prompts)
        heads, tails = self._parted(prompts)
        asked = [
            _Asked(row, tokens, scored)
            for row, tail in zip(heads.rows, tails, strict=True)
            for tokens, scored in (self._after(heads.texts[row], tail, label) for label in labels)
        ]
        if any(each.scored > 1 for each in asked):
            # A label's probability is that of all its tokens: the sum, not the mean.
            totals = self._answers(heads.texts, asked, self._mean_log_probs)
            scored = np.array([each.scored for each in asked])
            return (totals[:, 0] * scored).reshape(len(prompts), len(labels))
        # One pass for all labels: the same question without its last token, and the labels' tokens.
        wanted = {}
        for n in range(0, len(asked), len(labels)):
            question = _Asked(asked[n].head, asked[n].tokens[:-1], 0)
            wanted[question] = [each.tokens[-1] for each in asked[n : n + len(labels)]]
        distinct = list(wanted)
        table = self._answers(
            heads.texts,
            distinct,
            lambda logits, part: self._label_log_probs(logits, [wanted[each] for each in part]),
        )
        place = {question: n for n, question in enumerate(distinct)}
        return table[[place[_Asked(each.head, each.tokens[:-1], 0)] for each in asked[:: len(labels)]]]

    def likelihood(self, prompts: Sequence[Message], targets: Sequence[str]) -> np.ndarray:
        self.usage["calls"] += len(prompts)
        heads, tails = self._parted(prompts)
        asked = [
            _Asked(row, *self._after(heads.texts[row], tail, target))
            for row, tail, target in zip(heads.rows, tails, targets, strict=True)
        ]
        return self._answers(heads.texts, asked, self._mean_log_probs)[:, 0]

    def generate(self, prompts: Sequence[Message], **sampling: Any) -> list[Completion]:
        """Greedy unless `sampling` (max_new_tokens, temperature, ...) says otherwise."""
        import torch

        options = {"max_new_tokens": 64, "do_sample": "temperature" in sampling, **sampling}
        starts = self._prompt_ids([self._text(prompt) for prompt in prompts])
        done: list[Completion] = [Completion("", 0)] * len(starts)
        self.usage["calls"] += len(prompts)
        for batch in batches([len(ids) + options["max_new_tokens"] for ids in starts], self.budget):
            tokens, mask = self._left_padded([starts[row] for row in batch])
            with torch.inference_mode():
                out = self.model.generate(
                    input_ids=tokens, attention_mask=mask, pad_token_id=self._pad, **options
                )
            for row, said in zip(batch, out[:, tokens.shape[1] :].tolist(), strict=True):
                kept = [token for token in said if token != self._pad]
                done[row] = Completion(self.tokenizer.decode(kept, skip_special_tokens=True), len(kept))
                self.usage["generated_tokens"] += len(kept)
            self.usage["prompt_tokens"] += int(mask.sum())
        return done

    def _parted(self, prompts: Sequence[Message]) -> tuple[_Heads, list[str]]:
        """The distinct heads (each message up to the end of its last passage), and the messages' tails."""
        rows: dict[str, int] = {}
        placed: list[int] = []
        tails: list[str] = []
        for prompt in prompts:
            last = max(
                (i for i, part in enumerate(prompt) if isinstance(part, Passage)), default=len(prompt) - 1
            )
            placed.append(rows.setdefault(self._text(prompt[: last + 1]), len(rows)))
            tails.append(self._text(prompt[last + 1 :]))
        return _Heads(placed, list(rows)), tails

    def _text(self, prompt: Message) -> str:
        return "".join(self._cut(part.text) if isinstance(part, Passage) else part for part in prompt)

    def _cut(self, passage: str) -> str:
        # A token is at least one character, so short passages need no tokenizer.
        if len(passage) <= self.passage_tokens:
            return passage
        spans = self.tokenizer(passage, add_special_tokens=False, return_offsets_mapping=True)[
            "offset_mapping"
        ]
        return passage if len(spans) <= self.passage_tokens else passage[: spans[self.passage_tokens - 1][1]]

    def _prompt_ids(self, texts: Sequence[str]) -> list[list[int]]:
        ids: list[list[int]] = self.tokenizer(list(texts))["input_ids"]
        bos = self.tokenizer.bos_token_id
        # Some checkpoints' tokenizers do not add the BOS that the model was trained with; Gemma needs it.
        if bos is not None:
            ids = [row if row[:1] == [bos] else [bos, *row] for row in ids]
        if (longest := max(map(len, ids), default=0)) > self.context:
            raise InputError(
                f"{self.name}: a prompt of {longest} tokens exceeds the context of {self.context}; lower passage_tokens"
            )
        return ids

    def _after(self, head: str, tail: str, target: str) -> tuple[tuple[int, ...], int]:
        """The tokens of tail and target after the head, and how many are the target's."""
        before = self._seam(head[-SEAM:], tail)
        whole = self._seam(head[-SEAM:], tail + target)
        if (
            whole[: len(before)] != before
        ):  # tail and target merged at their seam: take the target's own tokens
            whole = before + self._seam("", target)
        if len(whole) == len(before):
            raise InputError(f"{self.name}: the target {target!r} has no tokens")
        return whole, len(whole) - len(before)

    @lru_cache(maxsize=1 << 16)  # noqa: B019 - a judge lives as long as its process
    def _seam(self, before: str, text: str) -> tuple[int, ...]:
        """The tokens that `text` adds after `before`, whatever the tokenizer does where they meet."""
        start = self.tokenizer(before, add_special_tokens=False)["input_ids"]
        both = self.tokenizer(before + text, add_special_tokens=False)["input_ids"]
        if both[: len(start)] != start:
            return tuple(self.tokenizer(text, add_special_tokens=False)["input_ids"])
        return tuple(both[len(start) :])

    def _answers(self, heads: Sequence[str], asked: Sequence[_Asked], read: _Read) -> np.ndarray:
        """What `read` makes of the logits at the scored positions of each question, float64 [n, values]."""
        starts = self._prompt_ids(heads)
        of_head: dict[int, list[int]] = {}
        for n, each in enumerate(asked):
            of_head.setdefault(each.head, []).append(n)
        results: dict[int, np.ndarray] = {}

        def forward(rows: Sequence[int]) -> np.ndarray:
            numbers = [n for row in rows for n in of_head[row]]
            values = self._on_heads({row: starts[row] for row in rows}, [asked[n] for n in numbers], read)
            results.update(zip(numbers, values, strict=True))
            self._answered += len(numbers)
            if self.progress is not None:
                self.progress(self._answered)
            return np.empty(len(rows))

        for batch in batches([len(ids) for ids in starts], self.budget):
            halving(forward, batch, [f"prompt {row}" for row in batch])
        return np.stack([results[n] for n in range(len(asked))])

    def _on_heads(self, starts: dict[int, list[int]], asked: Sequence[_Asked], read: _Read) -> np.ndarray:
        """The heads once, then all questions on their key-value caches."""
        import torch

        # The head's last token goes with the questions: its logits are needed there.
        place = {row: position for position, row in enumerate(starts)}
        tokens, mask = self._left_padded([ids[:-1] for ids in starts.values()])
        values: list[np.ndarray | None] = [None] * len(asked)
        with torch.inference_mode():
            cache = None
            if tokens.shape[1]:
                # base_model: without the language-model head.
                cache = self.model.base_model(
                    input_ids=tokens, attention_mask=mask, position_ids=_positions(mask), use_cache=True
                )[self._cache]
                self.usage["prompt_tokens"] += int(mask.sum())
            chunks = list(batches([len(each.tokens) + 1 for each in asked], self.budget // 4))
            for chunk in chunks:
                part = [asked[n] for n in chunk]
                rows = torch.tensor([place[each.head] for each in part], device=self.device)
                later, real = self._left_padded([[starts[each.head][-1], *each.tokens] for each in part])
                shared = {}
                if cache is not None:
                    mine = cache if len(chunks) == 1 else copy.deepcopy(cache)
                    mine.batch_select_indices(rows)
                    shared = {self._cache: mine}
                both = torch.cat([mask[rows], real], dim=1)
                logits = self.model(
                    input_ids=later,
                    attention_mask=both,
                    position_ids=_positions(both)[:, -later.shape[1] :],
                    use_cache=bool(shared),
                    logits_to_keep=max(each.scored for each in part) + 1,
                    **shared,
                ).logits
                self.usage["prompt_tokens"] += int(real.sum())
                for n, value in zip(chunk, read(logits, part), strict=True):
                    values[n] = value
        return np.stack([value for value in values if value is not None])

    def _mean_log_probs(self, logits: torch.Tensor, asked: Sequence[_Asked]) -> np.ndarray:
        """Mean log-probability of the scored tokens, [n, 1]; `logits` [n, scored + 1, vocabulary] end at the last."""
        import torch

        width = logits.shape[1] - 1
        targets, _ = self._left_padded([each.tokens[len(each.tokens) - each.scored :] for each in asked])
        real = torch.tensor(
            [[0] * (width - each.scored) + [1] * each.scored for each in asked], device=self.device
        )
        before = logits[:, :-1]
        chosen = before.gather(-1, targets[..., None])[..., 0].float() - _logsumexp(before)
        means: np.ndarray = ((chosen * real).sum(1) / real.sum(1)).double().cpu().numpy()
        return means[:, None]

    def _label_log_probs(self, logits: torch.Tensor, labels: Sequence[Sequence[int]]) -> np.ndarray:
        """Log-probabilities of one token a label after the last position, [n, labels]."""
        import torch

        last = logits[:, -1]
        chosen = last.gather(-1, torch.tensor(labels, device=self.device)).float()
        table: np.ndarray = (chosen - _logsumexp(last)[:, None]).double().cpu().numpy()
        return table

    @property
    def _pad(self) -> int:
        return int(self.tokenizer.pad_token_id or self.tokenizer.eos_token_id or 0)

    def _left_padded(self, rows: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor]:
        # On the left, so that every prompt's last token and the tokens after it stand in the same columns.
        import torch

        longest = max(map(len, rows))
        tokens = [[self._pad] * (longest - len(ids)) + list(ids) for ids in rows]
        mask = [[0] * (longest - len(ids)) + [1] * len(ids) for ids in rows]
        return torch.tensor(tokens, device=self.device), torch.tensor(mask, device=self.device)


def _positions(mask: torch.Tensor) -> torch.Tensor:
    return (mask.cumsum(-1) - 1).clamp(min=0)


def _logsumexp(logits: torch.Tensor) -> torch.Tensor:
    """Over the vocabulary, in float32, a few rows at a time: a float32 copy of all logits would not stay in cache."""
    import torch

    flat = logits.reshape(-1, logits.shape[-1])
    parts = [rows.float().logsumexp(-1) for rows in flat.split(16)]
    return torch.cat(parts).reshape(logits.shape[:-1])


class OfflineJudge:
    """`offline:gemma`: Gemma 3 270M (base) from a package, converted once; see `encoders/offline.py`."""

    @staticmethod
    def from_checkpoint(
        checkpoint: str,
        *,
        device: str = "auto",
        trust_remote_code: bool = False,
        dtype: Precision = "auto",
        passage_tokens: int = 384,
    ) -> HFJudge:
        """`InputError` listing the offline judges for an unknown one, or naming the package if it is missing."""
        from ..encoders import offline

        if checkpoint != "gemma":
            raise nearest(checkpoint, ("gemma",), "offline judge")
        where = str(offline.checkpoint(checkpoint))
        judge = HFJudge.from_checkpoint(where, device=device, dtype=dtype, passage_tokens=passage_tokens)
        judge.name = f"offline:{checkpoint}"
        return judge
