"""A causal language model through transformers: prefixes shared between questions are computed once."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ...encoders.batching import compute_in_parts, plan_batches
from .base import Ask, Completion
from .chats import target_begins, texts, token_ids
from .heads import CausalHead
from .local import LocalJudge
from .messages import Message
from .saying import completion, end_tokens, sampling
from .tokens import SEAM, chosen, tails

SHORTEST = 8  # tokens of a prefix below which sharing it is not worth a pass of its own


@dataclass(frozen=True, slots=True)
class _Question:
    """Tokens for the model, how many of the last ones are scored, and else the token ids of each label."""

    tokens: tuple[int, ...]
    scored: int = 0
    labels: tuple[tuple[int, ...], ...] = ()


class CausalJudge(LocalJudge):
    """A causal language model (RankGPT's, UPR's, setwise and pairwise prompting's) through transformers.

    Questions that begin with the same tokens share the computation of them (a passage under many queries, the
    instruction and query over many passages: whichever saves most), batches are sorted by length and kept within a
    token budget, and the language-model head sees only the positions that are asked for, and of it only the labels'
    rows where a label is chosen.
    """

    can: frozenset[Ask] = frozenset({"choose", "likelihood", "generate"})
    budgets = (2048, 32768)

    def __init__(self, *model: Any, **limits: Any) -> None:
        super().__init__(*model, **limits)
        # transformers renames the argument and the output in the course of 5.x.
        names = inspect.signature(self.model.forward).parameters
        self._cache = "cache" if "cache" in names else "past_key_values"
        self._head: CausalHead | None = None

    def choose(self, prompts: Sequence[Message], labels: Sequence[str]) -> np.ndarray:
        read = texts(self, prompts, max((self.tokens.count(f" {label}") for label in labels), default=0))
        asked = tails([self.tokens.labels(text[-SEAM:], tuple(labels)) for text in read])
        questions = [
            _Question((*start, *tail.tokens), tail.scored, tail.labels)
            for start, row in zip(token_ids(self, read, prompts), asked, strict=True)
            for tail in row
        ]
        self.usage["calls"] += len(prompts)
        return chosen(asked, self._answers(questions), len(labels))

    def likelihood(self, prompts: Sequence[Message], targets: Sequence[str]) -> np.ndarray:
        longest = max((self.tokens.count(target) for target in set(targets)), default=0)
        read = texts(self, prompts, longest)
        starts = token_ids(self, read, prompts)
        wholes = token_ids(self, [text + target for text, target in zip(read, targets, strict=True)], prompts)
        questions = []
        for start, whole, target in zip(starts, wholes, targets, strict=True):
            begins = target_begins(start, whole, self.name, target)
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
        starts = token_ids(self, texts(self, prompts, max_new_tokens), prompts)
        options = sampling(self.tokenizer, stop, temperature, seed)
        ends = end_tokens(self.model, self.tokenizer)
        done: list[Completion] = [Completion("", 0)] * len(starts)
        for batch in plan_batches([len(ids) + max_new_tokens for ids in starts], self.budget):
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
            for batch in plan_batches([costs[group] for group in part], self.budget):
                groups = [part[row] for row in batch]
                compute_in_parts(forward, groups, [f"prompt {shared[group][1][0]}" for group in groups])
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
            chunks = list(plan_batches([len(rest) for rest in rests], self.budget))
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
