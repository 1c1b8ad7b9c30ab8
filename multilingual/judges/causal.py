"""A causal language model through transformers: prefixes shared between questions are computed once."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator, Sequence
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
from transformers.cache_utils import DynamicCache, DynamicSlidingWindowLayer

from ...encoders.batching import plan_batches
from ...items import group_positions
from .base import Completion, Sampling
from .local import LocalJudge, run_batches
from .messages import Message
from .prefixes import SHORTEST, count_positions, group_prefixes
from .sampling import make_keys
from .tokenized import Continuation
from .writing import CausalWriter, is_plain


class CausalJudge(LocalJudge):
    """A causal language model (RankGPT's, UPR's, setwise and pairwise prompting's) through transformers.

    Questions that begin with the same tokens share the computation of them (a passage under many queries, the
    instruction and query over many passages: whichever saves most), batches are sorted by length and kept within a
    token budget, and the language-model head sees only the positions that are asked for, and of it only the labels'
    rows where a label is chosen. `shortest` is the number of tokens from which a shared beginning is worth a
    separate pass. Text is written by a `writer`.
    """

    shortest = SHORTEST
    budgets = (2048, 32768)

    def __init__(self, *model: Any, **limits: Any) -> None:
        super().__init__(*model, **limits)
        # transformers renames the argument and the output in the course of 5.x.
        names = inspect.signature(self.model.forward).parameters
        self._cache = "cache" if "cache" in names else "past_key_values"

    @cached_property
    def window(self) -> int | None:
        """The fewest columns that a layer of the model looks back; None where all look back to the beginning."""
        layers = DynamicCache(config=self.model.config).layers
        return min(
            (each.sliding_window for each in layers if isinstance(each, DynamicSlidingWindowLayer)), default=None
        )

    @cached_property
    def writer(self) -> CausalWriter | None:
        """What writes answers; None for a model that only its own `generate` can run."""
        if not is_plain(self.model):
            return None
        return CausalWriter(self.generator, self._cache, self.device, self.shortest)

    def write_answers(self, prompts: Sequence[Message], sampling: Sampling) -> Iterator[tuple[int, Completion]]:
        starts, _ = self.prepare_prompts(prompts, sampling.max_new_tokens)
        keys = make_keys(prompts, sampling)
        if self.writer is not None:
            return self.writer.write(starts, keys, sampling, self.budget)

        def write(rows: Sequence[tuple[tuple[int, ...], int]]) -> list[Completion]:
            inputs = self._pad([ids for ids, _ in rows], left=True)
            return self.generator.write(inputs, sampling, [key for _, key in rows])

        pieces = list(zip(starts, keys, strict=True))
        return run_batches(pieces, lambda piece: len(piece[0]) + sampling.max_new_tokens, write, self.budget)

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
        """The groups' prefixes once, then all their questions on the key-value cache of these: numbers and answers.

        Where a question would be longer than the model's window, each is computed by itself.
        """
        answers: list[list[tuple[int, np.ndarray]]] = [[] for _ in groups]
        members = [(place, n) for place, (_, numbers) in enumerate(groups) for n in numbers]
        rests = [questions[n].tokens[groups[place][0] :] for place, n in members]
        longest = max(length for length, _ in groups) + max(map(len, rests))
        shared = groups[0][0] > 0
        if shared and self.window is not None and longest > self.window:
            # A window counts columns: what is padded between a prefix and its rest would push tokens out of it.
            shared, rests = False, [questions[n].tokens for _, n in members]
        chunks = list(plan_batches([len(rest) for rest in rests], self.budget))
        with torch.inference_mode():
            cache, mask = None, torch.empty(len(groups), 0, dtype=torch.long, device=self.device)
            if shared:
                inputs = self._pad([questions[numbers[0]].tokens[:n] for n, numbers in groups], left=True)
                mask = inputs["attention_mask"]
                # base_model: without the language-model head.
                cache = self.model.base_model(**inputs, position_ids=count_positions(mask), use_cache=True)[self._cache]
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
                    position_ids=count_positions(both)[:, mask.shape[1] :],
                    use_cache=bool(given),
                    **given,
                )
                found = self.head.answer(states, [width - 1 - each.scored for each in part], part)
                for (place, n), answer in zip(some, found, strict=True):
                    answers[place].append((n, answer))
        return answers
