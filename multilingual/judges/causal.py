"""A causal language model through transformers: prefixes shared between questions are computed once."""

from __future__ import annotations

import copy
import inspect
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ...encoders.base import Precision
from ...encoders.batching import batches, halving
from ...errors import InputError
from ...items import Modality
from ..messages import Message, fitted
from . import Ask, Completion, refuse
from .chats import rendered, templated
from .heads import CausalHead
from .saying import completion, end_tokens, sampling
from .tokens import SEAM, Tokens

SHORTEST = 8  # tokens of a prefix below which sharing it is not worth a pass of its own


@dataclass(frozen=True, slots=True)
class _Question:
    """Tokens for the model, how many of the last ones are scored, and else the token ids of each label."""

    tokens: tuple[int, ...]
    scored: int = 0
    labels: tuple[tuple[int, ...], ...] = ()


class CausalJudge:
    """A causal language model (RankGPT's, UPR's, setwise and pairwise prompting's) through transformers.

    Questions that begin with the same tokens share the computation of them (a passage under many queries, the
    instruction and query over many passages: whichever saves most), batches are sorted by length and kept within a
    token budget, and the language-model head sees only the positions that are asked for, and of it only the labels'
    rows where a label is chosen.
    """

    modalities: frozenset[Modality] = frozenset({"text"})
    can: frozenset[Ask] = frozenset({"choose", "likelihood", "generate"})

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
        if passage_tokens < 1:
            raise InputError(f"passage_tokens must be at least 1, not {passage_tokens}")
        self.name = name
        self.revision = revision
        self.model = model.to(device).eval()
        self.tokenizer = tokenizer
        self.tokens = Tokens(tokenizer, name)
        self.device = device
        self.passage_tokens = passage_tokens
        self.usage: Counter[str] = Counter()
        self.progress: Callable[[int], None] | None = None  # told how many questions were answered in all
        self.chats = bool(getattr(tokenizer, "chat_template", None))
        self.budget = 2048 if device.type == "cpu" else 32768
        self.appetite = 1024 if device.type == "cpu" else 16384
        # transformers renames the argument and the output in the course of 5.x.
        self._cache = "cache" if "cache" in inspect.signature(model.forward).parameters else "past_key_values"
        self.context = int(getattr(model.config.get_text_config(), "max_position_embeddings", 0) or 1 << 20)
        self._head: CausalHead | None = None
        self._answered = 0

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
    ) -> CausalJudge:
        """Load from the hub or a directory, safetensors only; passages are cut to `passage_tokens`."""
        import transformers

        from ...encoders.devices import resolve_device, resolve_dtype
        from ...encoders.transformer import loaded, loaded_tokenizer, weights_hash

        where = resolve_device(device)
        precision = resolve_dtype(dtype, where)
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
        texts = self._texts(prompts, 8)
        plans = [self.tokens.labels(text[-SEAM:], tuple(labels)) for text in texts]
        starts = self._ids(texts, prompts)
        if all(plan.single for plan in plans):
            questions = [
                _Question((*start, *plan.lead), labels=plan.ids)
                for start, plan in zip(starts, plans, strict=True)
            ]
            table = np.stack(self._answers(questions)) if questions else np.empty((0, len(labels)))
        else:
            # A label's probability is that of all its tokens: the sum, not the mean.
            questions = [
                _Question((*start, *sequence), len(sequence))
                for start, plan in zip(starts, plans, strict=True)
                for sequence in plan.sequences
            ]
            sums = [row.sum() for row in self._answers(questions)]
            table = np.array(sums).reshape(len(prompts), len(labels))
        self.usage["calls"] += len(prompts)
        normalised: np.ndarray = table - np.logaddexp.reduce(table, axis=1, keepdims=True)
        return normalised

    def likelihood(self, prompts: Sequence[Message], targets: Sequence[str]) -> np.ndarray:
        longest = max((self.tokens.count(target) for target in set(targets)), default=0)
        texts = self._texts(prompts, longest)
        starts = self._ids(texts, prompts)
        wholes = self._ids([text + target for text, target in zip(texts, targets, strict=True)], prompts)
        questions = []
        for start, whole, target in zip(starts, wholes, targets, strict=True):
            # Where target and prompt merge into one token, that token is the target's.
            begins = next(
                (n for n, (a, b) in enumerate(zip(start, whole, strict=False)) if a != b), len(start)
            )
            if not 0 < begins < len(whole):
                raise InputError(f"{self.name}: the target {target!r} has no tokens")
            questions.append(_Question(whole, len(whole) - begins))
        self.usage["calls"] += len(prompts)
        return np.array([row.mean() for row in self._answers(questions)])

    def generate(
        self,
        prompts: Sequence[Message],
        *,
        max_new_tokens: int = 64,
        stop: Sequence[str] = (),
        temperature: float = 0.0,
        seed: int = 0,
    ) -> list[Completion]:
        """Greedy at temperature 0; ends at one of `stop`, which the text then ends with."""
        starts = self._ids(self._texts(prompts, max_new_tokens), prompts)
        options = sampling(self.tokenizer, stop, temperature, seed)
        ends = end_tokens(self.model, self.tokenizer)
        done: list[Completion] = [Completion("", 0)] * len(starts)
        for batch in batches([len(ids) + max_new_tokens for ids in starts], self.budget):
            tokens, mask = self._left_padded([starts[row] for row in batch])
            with torch.inference_mode():
                out = self.model.generate(
                    input_ids=tokens,
                    attention_mask=mask,
                    pad_token_id=self._pad,
                    max_new_tokens=max_new_tokens,
                    **options,
                )
            for row, said in zip(batch, out[:, tokens.shape[1] :].tolist(), strict=True):
                done[row] = completion(said, self.tokenizer, ends, self._pad, stop)
                self.usage["generated_tokens"] += done[row].tokens
            self.usage["prompt_tokens"] += int(mask.sum())
            self._tell(len(batch))
        self.usage["calls"] += len(prompts)
        return done

    def score(self, prompts: Sequence[Message]) -> np.ndarray:
        raise refuse(self, "score")

    def _texts(self, prompts: Sequence[Message], reserve: int) -> list[str]:
        """Each prompt as one text, its passages cut so that `reserve` tokens more still fit."""
        texts = []
        for prompt in prompts:
            chats = templated(self, prompt)
            frame = self.tokens.count(rendered(self.tokenizer, prompt, "", self.name)) if chats else 1
            fit, cut = fitted(
                prompt,
                self.tokens,
                passage_tokens=self.passage_tokens,
                room=self.context - reserve - frame,
                name=self.name,
            )
            self.usage["cut_passages"] += cut
            texts.append(
                rendered(self.tokenizer, fit, fit.user(), self.name) + fit.answer if chats else fit.plain()
            )
        return texts

    def _ids(self, texts: Sequence[str], prompts: Sequence[Message]) -> list[tuple[int, ...]]:
        if not texts:
            return []
        ids = self.tokenizer(list(texts), add_special_tokens=False)["input_ids"]
        bos = self.tokenizer.bos_token_id
        # Chat templates bring the BOS. Elsewhere some checkpoints' tokenizers do not add the one that the model was
        # trained with; Gemma needs it.
        rows = [
            tuple(row) if bos is None or row[:1] == [bos] or templated(self, prompt) else (bos, *row)
            for row, prompt in zip(ids, prompts, strict=True)
        ]
        if (longest := max(map(len, rows))) > self.context:
            raise InputError(
                f"{self.name}: a prompt of {longest} tokens exceeds the context of {self.context}; "
                f"shorten the query or the instruction"
            )
        return rows

    def _answers(self, questions: Sequence[_Question]) -> list[np.ndarray]:
        """The log-probabilities of each question's scored tokens, or the scores of its labels, float64."""
        results: dict[int, np.ndarray] = {}
        shared = prefixes([question.tokens[: self._free(question)] for question in questions])
        lengths = [length for length, _ in shared]

        def forward(groups: Sequence[int]) -> np.ndarray:
            results.update(self._on_heads([shared[group] for group in groups], questions))
            return np.empty(len(groups))

        # Groups without a shared prefix cost what their questions cost.
        costs = [length or max(len(questions[n].tokens) for n in members) for length, members in shared]
        alone = [group for group, length in enumerate(lengths) if not length]
        together = [group for group, length in enumerate(lengths) if length]
        for part in (alone, together):
            for batch in batches([costs[group] for group in part], self.budget):
                groups = [part[row] for row in batch]
                halving(forward, groups, [f"prompt {shared[group][1][0]}" for group in groups])
                self._tell(sum(len(shared[group][1]) for group in groups))
        return [results[n] for n in range(len(questions))]

    @staticmethod
    def _free(question: _Question) -> int:
        # The last token before the scored ones is never part of a prefix: its own state is needed.
        return len(question.tokens) - question.scored - 1

    def _on_heads(
        self, groups: Sequence[tuple[int, list[int]]], questions: Sequence[_Question]
    ) -> dict[int, np.ndarray]:
        """The groups' prefixes once, then all their questions on the key-value cache of these."""
        if self._head is None:
            self._head = CausalHead(self.model, self.device)
        results: dict[int, np.ndarray] = {}
        members = [(n, place) for place, (_, numbers) in enumerate(groups) for n in numbers]
        rests = [questions[n].tokens[groups[place][0] :] for n, place in members]
        with torch.inference_mode():
            cache, mask = None, None
            if groups[0][0]:
                heads = [questions[numbers[0]].tokens[:length] for length, numbers in groups]
                tokens, mask = self._left_padded(heads)
                # base_model: without the language-model head.
                cache = self.model.base_model(
                    input_ids=tokens, attention_mask=mask, position_ids=_positions(mask), use_cache=True
                )[self._cache]
                self.usage["prompt_tokens"] += int(mask.sum())
            chunks = list(batches([len(rest) for rest in rests], self.budget))
            for number, chunk in enumerate(chunks):
                part = [questions[members[row][0]] for row in chunk]
                later, real = self._left_padded([rests[row] for row in chunk])
                shared: dict[str, Any] = {}
                both = real
                if cache is not None and mask is not None:
                    rows = torch.tensor([members[row][1] for row in chunk], device=self.device)
                    mine = cache if number == len(chunks) - 1 else copy.deepcopy(cache)
                    mine.batch_select_indices(rows)
                    shared = {self._cache: mine}
                    both = torch.cat([mask[rows], real], dim=1)
                states = self._head.states(
                    width=max(question.scored for question in part) + 1,
                    input_ids=later,
                    attention_mask=both,
                    position_ids=_positions(both)[:, -later.shape[1] :],
                    use_cache=bool(shared),
                    **shared,
                )
                self.usage["prompt_tokens"] += int(real.sum())
                read = self._labels if part[0].labels else self._log_probs
                for row, value in zip(chunk, read(states, part), strict=True):
                    results[members[row][0]] = value
        return results

    def _log_probs(self, states: torch.Tensor, questions: Sequence[_Question]) -> list[np.ndarray]:
        """Log-probabilities of the scored tokens; `states` [n, scored + 1, ...] end at the last token."""
        assert self._head is not None
        width = states.shape[1] - 1
        rows = [n for n, question in enumerate(questions) for _ in range(question.scored)]
        places = [width - question.scored + at for question in questions for at in range(question.scored)]
        targets = torch.tensor(
            [
                token
                for question in questions
                for token in question.tokens[len(question.tokens) - question.scored :]
            ],
            device=self.device,
        )
        flat = states[rows, places]
        values = self._head.log_probs(flat, targets).cpu().numpy()
        return np.split(
            values.astype(np.float64), np.cumsum([question.scored for question in questions])[:-1]
        )

    def _labels(self, states: torch.Tensor, questions: Sequence[_Question]) -> list[np.ndarray]:
        """The score of each label after the last token: the log of the sum of what its token ids have."""
        assert self._head is not None
        return self._head.said(states[:, -1], [question.labels for question in questions])

    def _tell(self, answered: int) -> None:
        self._answered += answered
        if self.progress is not None:
            self.progress(self._answered)

    @property
    def _pad(self) -> int:
        return int(self.tokenizer.pad_token_id or self.tokenizer.eos_token_id or 0)

    def _left_padded(self, rows: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor]:
        # On the left, so that every prompt's last token and the tokens after it stand in the same columns.
        longest = max(map(len, rows))
        tokens = [[self._pad] * (longest - len(ids)) + list(ids) for ids in rows]
        mask = [[0] * (longest - len(ids)) + [1] * len(ids) for ids in rows]
        return torch.tensor(tokens, device=self.device), torch.tensor(mask, device=self.device)


def prefixes(rows: Sequence[tuple[int, ...]]) -> list[tuple[int, list[int]]]:
    """Which rows share a prefix, as (its length, the rows' numbers); length 0 with one row where none is shared.

    A prefix is computed once for its group, so a group of m saves (m - 1) x length tokens. Rows are cut into groups
    so that most is saved: at each branching of their common beginnings, either all below it share what they have in
    common there, or the branches are dealt with each by itself.
    """
    order = sorted(range(len(rows)), key=rows.__getitem__)
    # The intervals of rows with a common beginning, innermost first: each is [length, first row, saved, groups].
    opened: list[tuple[int, int, int, list[tuple[int, list[int]]]]] = [(-1, 0, 0, [])]
    for n, row in enumerate(order):
        length = _shared(rows[row], rows[order[n + 1]]) if n + 1 < len(order) else -1
        first, saved, groups = n, 0, [(0, [row])]
        while opened[-1][0] > length:
            common, first, inner, parts = opened.pop()
            saved, groups = inner + saved, parts + groups
            together = (n - first) * common
            if common >= SHORTEST and together > saved:
                saved, groups = together, [(common, order[first : n + 1])]
        if opened[-1][0] == length:
            length, first, inner, parts = opened.pop()
            saved, groups = inner + saved, parts + groups
        opened.append((length, first, saved, groups))
    return opened[-1][3]


def _shared(one: Sequence[int], other: Sequence[int]) -> int:
    return next(
        (n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other))
    )


def _positions(mask: torch.Tensor) -> torch.Tensor:
    return (mask.cumsum(-1) - 1).clamp(min=0)
