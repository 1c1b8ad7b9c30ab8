"""An encoder-decoder (T5, mT5, FLAN-T5, BART, ...) through transformers: equal encoder inputs are encoded once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
from transformers.modeling_outputs import BaseModelOutput

from ...checkpoints.options import UNBOUNDED
from ...encoders.batching import plan_batches
from ...errors import InputError
from ...items import group_positions
from .base import Completion, Sampling
from .local import Head, LocalJudge, run_batches
from .messages import Message
from .sampling import make_keys
from .tokenized import Continuation

Start = tuple[tuple[int, ...], tuple[int, ...]]  # what the encoder reads, and how the decoder begins


class Seq2SeqJudge(LocalJudge):
    """An encoder-decoder: monoT5 (Nogueira et al. 2020), mT5 on mMARCO (Bonifacio et al. 2021), UPR (Sachan et al.
    2022), setwise prompting of FLAN-T5 (Zhuang et al. 2024).

    The encoder reads the message, with the special tokens that its tokenizer adds (`</s>`), the decoder begins with
    its start token and the message's `answer`. Encoder inputs are sorted by length, kept within a token budget and
    each encoded once, however many targets or labels are asked about it; the language-model head sees only the
    positions asked for, and of it only the labels' rows where a label is chosen. Models with relative positions read
    prompts of any length (FLAN-T5 in setwise prompting reads more than the 512 tokens that its tokenizer names).
    """

    def __init__(self, *model: Any, **limits: Any) -> None:
        super().__init__(*model, **limits)
        self.context = _longest(self.model.config, "encoder")
        self.answers = _longest(self.model.config, "decoder")  # tokens that the decoder has positions for
        self._start = _start(self.model, self.name)

    @cached_property
    def head(self) -> Head:
        """The language-model head."""
        return _make_head(self.model, self._start)

    @property
    def longest_answer(self) -> int:
        return self.answers // 2  # the decoder's alone

    def encode(self, prompt: Message) -> dict[str, list[int]]:
        """As of other judges, for the encoder; the answer is the decoder's."""
        return super().encode(replace(prompt, answer=""))

    def _begin(self, prompts: Sequence[Message], answers: Sequence[tuple[int, ...]]) -> list[Start]:
        encoders = [tuple(self.encode(prompt)["input_ids"]) for prompt in prompts]
        return [(encoder, (*self._start, *answer)) for encoder, answer in zip(encoders, answers, strict=True)]

    def prepare_prompts(self, prompts: Sequence[Message], room: int) -> tuple[list[Start], list[str]]:
        texts = [prompt.answer for prompt in prompts]
        return self._begin(prompts, [self.tokens.ids(text) if text else () for text in texts]), texts

    def prepare_targets(
        self, prompts: Sequence[Message], targets: Sequence[str]
    ) -> tuple[list[Start], list[Continuation]]:
        starts = [self.tokens.ids(prompt.answer) for prompt in prompts]
        wholes = [self.tokens.ids(p.answer + target) for p, target in zip(prompts, targets, strict=True)]
        before, asked = self._split_targets(starts, wholes, targets)
        return self._begin(prompts, before), asked

    def write_answers(self, prompts: Sequence[Message], sampling: Sampling) -> Iterator[tuple[int, Completion]]:
        starts, _ = self.prepare_prompts(prompts, 0)
        lengths = [len(decoder) for _, decoder in starts]
        self._check_answer(max(lengths) + sampling.max_new_tokens)

        def write(some: Sequence[tuple[Start, int]]) -> list[Completion]:
            inputs = self._pad([encoder for (encoder, _), _ in some])
            begun = torch.tensor([decoder for (_, decoder), _ in some], device=self.device)
            self.usage["prompt_tokens"] += begun.numel()
            keys = [key for _, key in some]
            return self.generator.write(inputs, sampling, keys, begun.shape[1], decoder_input_ids=begun, num_beams=1)

        # Decoders that begin with as many tokens go together: then nothing has to be padded there.
        parts = group_positions(lengths).values()
        cost = lambda piece: sum(map(len, piece[0])) + sampling.max_new_tokens  # noqa: E731
        pieces = list(zip(starts, make_keys(prompts, sampling), strict=True))
        return run_batches(pieces, cost, write, self.budget, parts=parts)

    def compute_answers(
        self, starts: Sequence[Start], asked: Sequence[Sequence[Continuation]]
    ) -> Iterator[tuple[int, int, np.ndarray]]:
        places = [(row, column) for row, some in enumerate(asked) for column in range(len(some))]
        questions = [asked[row][column].after(starts[row][1]) for row, column in places]
        self._check_answer(max(len(each.shown) for each in questions))
        inputs = group_positions(starts[row][0] for row, _ in places)
        names = [f"prompt {places[numbers[0]][0]}" for numbers in inputs.values()]
        forward = partial(self._answer_inputs, questions=questions)
        for _, answers in run_batches(list(inputs.items()), lambda each: len(each[0]), forward, self.budget, names):
            for n, answer in answers:
                yield *places[n], answer

    def _answer_inputs(
        self, inputs: Sequence[tuple[tuple[int, ...], list[int]]], questions: Sequence[Continuation]
    ) -> list[list[tuple[int, np.ndarray]]]:
        """The inputs encoded once, then all questions about each of them: numbers and answers."""
        answers: list[list[tuple[int, np.ndarray]]] = [[] for _ in inputs]
        members = [(place, n) for place, (_, numbers) in enumerate(inputs) for n in numbers]
        costs = [len(inputs[place][0]) + len(questions[n].shown) for place, n in members]
        with torch.inference_mode():
            given = self._pad([ids for ids, _ in inputs])
            mask = given["attention_mask"]
            encoded = self.model.get_encoder()(**given)[0]
            self.usage["prompt_tokens"] += int(mask.sum())
            for chunk in plan_batches(costs, self.budget):
                some = [members[each] for each in chunk]
                part = [questions[n] for _, n in some]
                rows = torch.tensor([place for place, _ in some], device=self.device)
                decoder = self._pad([each.shown for each in part])["input_ids"]
                self.usage["prompt_tokens"] += sum(len(each.shown) for each in part)
                states = self.head.states(shown=decoder, encoded=encoded[rows], mask=mask[rows])
                found = self.head.answer(states, [len(each.tokens) - each.scored - 1 for each in part], part)
                for (place, n), answer in zip(some, found, strict=True):
                    answers[place].append((n, answer))
        return answers

    def _check_answer(self, length: int) -> None:
        if length > self.answers:
            raise InputError(
                f"{self.name}: an answer of {length} tokens exceeds the {self.answers} of its decoder; ask for less"
            )


def _make_head(model: Any, start: tuple[int, ...]) -> Head:
    """The language-model head on what the decoder makes of tokens `shown` and of `encoded` inputs with their mask."""

    def hide(shown: torch.Tensor, encoded: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        # The decoder is causal and padded on the right: it needs no mask of its own.
        states: torch.Tensor = model.get_decoder()(
            input_ids=shown, encoder_hidden_states=encoded, encoder_attention_mask=mask, use_cache=False
        )[0]
        return states

    def predict(shown: torch.Tensor, encoded: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        outputs = BaseModelOutput(last_hidden_state=encoded)
        logits: torch.Tensor = model(
            encoder_outputs=outputs, attention_mask=mask, decoder_input_ids=shown, use_cache=False
        ).logits
        return logits

    tokens = torch.arange(1, 6, device=model.device)[None]
    mask = torch.ones_like(tokens)
    with torch.inference_mode():
        encoded = model.get_encoder()(input_ids=tokens, attention_mask=mask)[0]
    shown = torch.tensor([start], device=model.device)
    return Head(model, hide, predict, shown=shown, encoded=encoded, mask=mask)


def _longest(config: Any, side: str) -> int:
    """How many positions the encoder or decoder has, where these are absolute."""
    own = getattr(config, side, None)  # the configuration of one side, where each has its own
    named = getattr(config, f"max_{side}_position_embeddings", None)
    found = (named, *(getattr(each, "max_position_embeddings", None) for each in (config, own)))
    return next((length for length in found if isinstance(length, int)), UNBOUNDED)


def _start(model: Any, name: str) -> tuple[int, ...]:
    """The tokens that every answer begins with: the start token, and BART's `<s>` after it."""
    places = (model.generation_config, model.config)

    def find(key: str) -> int | None:
        return next((token for each in places if (token := getattr(each, key, None)) is not None), None)

    start, forced = find("decoder_start_token_id"), find("forced_bos_token_id")
    if start is None:
        raise InputError(f"{name} does not say what its decoder starts with (no decoder_start_token_id)")
    return (start,) if forced is None else (start, forced)
