"""A causal language model through transformers: prefixes shared between questions are computed once."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch

from ...encoders.batching import plan_batches
from ...items import group_positions
from .base import Completion, Sampling
from .local import LocalJudge, run_batches
from .messages import Message
from .tokenized import Continuation, count_common

SHORTEST = 8


class CausalJudge(LocalJudge):
    """A causal language model (RankGPT's, UPR's, setwise and pairwise prompting's) through transformers.

    Questions that begin with the same tokens share the computation of them (a passage under many queries, the
    instruction and query over many passages: whichever saves most), batches are sorted by length and kept within a
    token budget, and the language-model head sees only the positions that are asked for, and of it only the labels'
    rows where a label is chosen. `shortest` is the number of tokens from which a shared beginning is worth a
    separate pass.
    """

    shortest = SHORTEST
    budgets = (2048, 32768)

    def __init__(self, *model: Any, **limits: Any) -> None:
        super().__init__(*model, **limits)
        # transformers renames the argument and the output in the course of 5.x.
        names = inspect.signature(self.model.forward).parameters
        self._cache = "cache" if "cache" in names else "past_key_values"

    def write_answers(self, prompts: Sequence[Message], sampling: Sampling) -> Iterator[tuple[int, Completion]]:
        def write(rows: Sequence[tuple[int, ...]]) -> list[Completion]:
            return self.generator.write(self._pad(rows, left=True), sampling)

        starts, _ = self.prepare_prompts(prompts, sampling.max_new_tokens)
        return run_batches(starts, lambda ids: len(ids) + sampling.max_new_tokens, write, self.budget)

    def compute_answers(
        self, starts: Sequence[tuple[int, ...]], asked: Sequence[Sequence[Continuation]]
    ) -> Iterator[tuple[int, int, np.ndarray]]:
        places = [(row, column) for row, some in enumerate(asked) for column in range(len(some))]
        questions = [asked[row][column].after(starts[row]) for row, column in places]
        # The last token before the scored ones is never part of a prefix: its own state is needed.
        heads = [each.tokens[: len(each.tokens) - each.scored - 1] for each in questions]
        groups = group_prefixes(heads, self.shortest)
        parts = group_positions(length > 0 for length, _ in groups).values()
        names = [f"prompt {places[numbers[0]][0]}" for _, numbers in groups]
        forward = partial(self._answer_groups, questions=questions)
        # Groups without a shared prefix cost what their questions cost.
        cost = lambda group: group[0] or max(len(questions[n].tokens) for n in group[1])  # noqa: E731
        for _, answers in run_batches(groups, cost, forward, self.budget, names, parts):
            for n, answer in answers:
                yield *places[n], answer

    def _answer_groups(
        self, groups: Sequence[tuple[int, list[int]]], questions: Sequence[Continuation]
    ) -> list[list[tuple[int, np.ndarray]]]:
        """The groups' prefixes once, then all their questions on the key-value cache of these: numbers and answers."""
        answers: list[list[tuple[int, np.ndarray]]] = [[] for _ in groups]
        members = [(place, n) for place, (_, numbers) in enumerate(groups) for n in numbers]
        rests = [questions[n].tokens[groups[place][0] :] for place, n in members]
        chunks = list(plan_batches([len(rest) for rest in rests], self.budget))
        with torch.inference_mode():
            cache, mask = None, torch.empty(len(groups), 0, dtype=torch.long, device=self.device)
            if groups[0][0]:
                inputs = self._pad([questions[numbers[0]].tokens[:n] for n, numbers in groups], left=True)
                mask = inputs["attention_mask"]
                # base_model: without the language-model head.
                cache = self.model.base_model(**inputs, position_ids=_positions(mask), use_cache=True)[self._cache]
                self.usage["prompt_tokens"] += int(mask.sum())
            for chunk in chunks:
                some = [members[each] for each in chunk]
                part = [questions[n] for _, n in some]
                rows = torch.tensor([place for place, _ in some], device=self.device)
                # On the left, so that every prompt's last token and the tokens after it stand in the same columns.
                later = self._pad([rests[each] for each in chunk], left=True)
                self.usage["prompt_tokens"] += int(later["attention_mask"].sum())
                both = torch.cat([mask[rows], later["attention_mask"]], dim=1)
                given: dict[str, Any] = {}
                if cache is not None:
                    given[self._cache] = cache if chunk is chunks[-1] else copy.deepcopy(cache)
                    given[self._cache].batch_select_indices(rows)
                width = max(each.scored for each in part) + 1
                states = self.head.states(
                    width=width,
                    input_ids=later["input_ids"],
                    attention_mask=both,
                    position_ids=_positions(both)[:, mask.shape[1] :],
                    use_cache=bool(given),
                    **given,
                )
                found = self.head.answer(states, [width - 1 - each.scored for each in part], part)
                for (place, n), answer in zip(some, found, strict=True):
                    answers[place].append((n, answer))
        return answers


def group_prefixes(rows: Sequence[tuple[int, ...]], shortest: int = SHORTEST) -> list[tuple[int, list[int]]]:
    """Which rows share a prefix of at least `shortest` tokens, as (its length, the rows' numbers); 0 for a row alone.

    A prefix is computed once for its group, so a group of m saves (m - 1) x length tokens. Rows are cut into groups
    so that most is saved: at each branching of their common beginnings, either all below it share what they have in
    common there, or the branches are dealt with each by itself.
    """
    order = sorted(range(len(rows)), key=rows.__getitem__)
    # The intervals of rows with a common beginning, innermost first: each is [length, first row, saved, groups].
    opened: list[tuple[int, int, int, list[tuple[int, list[int]]]]] = [(-1, 0, 0, [])]
    for n, row in enumerate(order):
        length = count_common(rows[row], rows[order[n + 1]]) if n + 1 < len(order) else -1
        first, saved, groups = n, 0, [(0, [row])]
        while opened[-1][0] > length:
            common, first, inner, parts = opened.pop()
            saved, groups = inner + saved, parts + groups
            together = (n - first) * common
            if common >= shortest and together > saved:
                saved, groups = together, [(common, order[first : n + 1])]
        if opened[-1][0] == length:
            length, first, inner, parts = opened.pop()
            saved, groups = inner + saved, parts + groups
        opened.append((length, first, saved, groups))
    return opened[-1][3]


def _positions(mask: torch.Tensor) -> torch.Tensor:
    return (mask.cumsum(-1) - 1).clamp(min=0)
