"""An encoder-decoder (T5, mT5, FLAN-T5, BART, ...) through transformers: equal encoder inputs are encoded once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers.modeling_outputs import BaseModelOutput

from ...encoders.batching import compute_in_parts, plan_batches
from ...errors import InputError
from .base import Ask, Completion
from .chats import check_length, fit, rendered, target_begins, templated
from .heads import Head
from .local import UNBOUNDED, LocalJudge
from .messages import Message
from .saying import completion, end_tokens, sampling
from .tokens import SEAM, Tail, chosen, tails


@dataclass(frozen=True, slots=True)
class _Question:
    """What the encoder reads, how the decoder begins, and what is asked about after it."""

    encoder: tuple[int, ...]
    decoder: tuple[int, ...]
    tail: Tail

    @property
    def shown(self) -> tuple[int, ...]:
        """What the decoder reads; the last scored token only has to be predicted."""
        whole = (*self.decoder, *self.tail.tokens)
        return whole[:-1] if self.tail.scored else whole


class Seq2SeqJudge(LocalJudge):
    """An encoder-decoder: monoT5 (Nogueira et al. 2020), mT5 on mMARCO (Bonifacio et al. 2021), UPR (Sachan et al.
    2022), setwise prompting of FLAN-T5 (Zhuang et al. 2024).

    The encoder reads the message, with the special tokens that its tokenizer adds (`</s>`), the decoder begins with
    its start token and the message's `answer`. Encoder inputs are sorted by length, kept within a token budget and
    each encoded once, however many targets or labels are asked about it; the language-model head sees only the
    positions asked for, and of it only the labels' rows where a label is chosen. Models with relative positions read
    prompts of any length (FLAN-T5 in setwise prompting reads more than the 512 tokens that its tokenizer names).
    """

    can: frozenset[Ask] = frozenset({"choose", "likelihood", "generate"})

    def __init__(self, *model: Any, **limits: Any) -> None:
        super().__init__(*model, **limits)
        self.context = _longest(self.model.config, "encoder")
        self.answers = _longest(self.model.config, "decoder")  # tokens that the decoder has positions for
        self._start = _start(self.model, self.name)
        self._head: Head | None = None

    def choose(self, prompts: Sequence[Message], labels: Sequence[str]) -> np.ndarray:
        encoders = self._read(prompts)
        asked = tails([self.tokens.labels(each.answer[-SEAM:], tuple(labels)) for each in prompts])
        questions = [
            _Question(encoder, self._begun(prompt), tail)
            for encoder, prompt, row in zip(encoders, prompts, asked, strict=True)
            for tail in row
        ]
        self.usage["calls"] += len(prompts)
        return chosen(asked, self._answers(questions, len(prompts)), len(labels))

    def likelihood(self, prompts: Sequence[Message], targets: Sequence[str]) -> np.ndarray:
        questions = []
        for encoder, prompt, target in zip(self._read(prompts), prompts, targets, strict=True):
            start = self.tokens.ids(prompt.answer)
            whole = self.tokens.ids(prompt.answer + target)
            begins = target_begins(start, whole, self.name, target)
            tail = Tail(whole[begins:], len(whole) - begins)
            questions.append(_Question(encoder, (*self._start, *whole[:begins]), tail))
        self.usage["calls"] += len(prompts)
        return np.array([row.mean() for row in self._answers(questions, len(prompts))])

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
        encoders = self._read(prompts)
        begun = [self._begun(prompt) for prompt in prompts]
        for start in set(begun):
            self._check(len(start) + max_new_tokens)
        options = sampling(self.tokenizer, stop, temperature, seed)
        ends = end_tokens(self.model, self.tokenizer)
        done: dict[int, Completion] = {}

        def forward(rows: Sequence[int]) -> np.ndarray:
            tokens, mask = self._padded([encoders[row] for row in rows])
            starts = torch.tensor([begun[row] for row in rows], device=self.device)
            with torch.inference_mode():
                out = self.model.generate(
                    input_ids=tokens,
                    attention_mask=mask,
                    decoder_input_ids=starts,
                    pad_token_id=self._pad,
                    max_new_tokens=max_new_tokens,
                    num_beams=1,
                    **options,
                )
            for row, said in zip(rows, out[:, starts.shape[1] :].tolist(), strict=True):
                done[row] = completion(said, self.tokenizer, ends, self._pad, stop)
                self.usage["generated_tokens"] += done[row].tokens
            self.usage["prompt_tokens"] += int(mask.sum()) + starts.numel()
            return np.empty(len(rows))

        # Decoders that begin with as many tokens go together: then nothing has to be padded there.
        for length in sorted({len(start) for start in begun}):
            part = [row for row, start in enumerate(begun) if len(start) == length]
            costs = [len(encoders[row]) + length + max_new_tokens for row in part]
            for batch in plan_batches(costs, self.budget):
                rows = [part[place] for place in batch]
                compute_in_parts(forward, rows, [f"prompt {row}" for row in rows])
                self._tell(len(rows))
        self.usage["calls"] += len(prompts)
        return [done[row] for row in range(len(prompts))]

    def _read(self, prompts: Sequence[Message]) -> list[tuple[int, ...]]:
        """Each message as the encoder reads it, its passages cut so that it fits."""
        rows = []
        special = self.tokenizer.num_special_tokens_to_add()
        for prompt in prompts:
            chats = templated(self, prompt)
            frame = self.tokens.count(rendered(self.tokenizer, prompt, "", self.name)) if chats else special
            bare = Message(prompt.parts, prompt.system)  # the answer is the decoder's
            whole = fit(self, bare, self.context - frame)
            if chats:
                text = rendered(self.tokenizer, prompt, whole.user(), self.name)
            else:
                text = whole.plain()
            ids = self.tokenizer(text, add_special_tokens=not chats, verbose=False)["input_ids"]
            check_length(self, len(ids))
            rows.append(tuple(ids))
        return rows

    def _begun(self, prompt: Message) -> tuple[int, ...]:
        """How the decoder begins."""
        return (*self._start, *self.tokens.ids(prompt.answer)) if prompt.answer else self._start

    def _check(self, length: int) -> None:
        if length > self.answers:
            raise InputError(
                f"{self.name}: an answer of {length} tokens exceeds the {self.answers} of its decoder; ask for less"
            )

    def _answers(self, questions: Sequence[_Question], calls: int) -> list[np.ndarray]:
        """The log-probabilities of each question's scored tokens, or the scores of its labels, float64."""
        if not questions:
            return []
        self._check(max(len(question.shown) for question in questions))
        if self._head is None:
            self._head = self._found_head()
        asked: dict[tuple[int, ...], list[int]] = {}
        for n, question in enumerate(questions):
            asked.setdefault(question.encoder, []).append(n)
        inputs = list(asked)
        results: dict[int, np.ndarray] = {}
        before = self._answered

        def forward(rows: Sequence[int]) -> np.ndarray:
            some = [inputs[row] for row in rows]
            results.update(self._decoded(some, [asked[each] for each in some], questions))
            return np.empty(len(rows))

        for batch in plan_batches([len(each) for each in inputs], self.budget):
            compute_in_parts(forward, batch, [f"prompt {asked[inputs[row]][0]}" for row in batch])
            # Labels of many tokens are several questions of one call.
            self._tell(before + len(results) * calls // len(questions) - self._answered)
        return [results[n] for n in range(len(questions))]

    def _decoded(
        self,
        inputs: Sequence[tuple[int, ...]],
        members: Sequence[Sequence[int]],
        questions: Sequence[_Question],
    ) -> dict[int, np.ndarray]:
        """The inputs encoded once, and all questions about each of them answered."""
        results: dict[int, np.ndarray] = {}
        with torch.inference_mode():
            tokens, mask = self._padded(inputs)
            encoded = self.model.get_encoder()(input_ids=tokens, attention_mask=mask)[0]
            self.usage["prompt_tokens"] += int(mask.sum())
            pairs = [(place, n) for place, numbers in enumerate(members) for n in numbers]
            costs = [len(inputs[place]) + len(questions[n].shown) for place, n in pairs]
            for chunk in plan_batches(costs, self.budget):
                rows = torch.tensor([pairs[each][0] for each in chunk], device=self.device)
                part = [questions[pairs[each][1]] for each in chunk]
                shown, _ = self._padded([question.shown for question in part])
                states = self._states(shown, encoded[rows], mask[rows])
                self.usage["prompt_tokens"] += sum(len(question.shown) for question in part)
                for each, value in zip(chunk, self._values(states, part), strict=True):
                    results[pairs[each][1]] = value
        return results

    def _states(self, shown: torch.Tensor, encoded: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """What the head is applied to, [n, decoder tokens, ...]; the logits where that cannot be told apart."""
        # The decoder is causal and padded on the right: it needs no mask of its own.
        assert self._head is not None
        if self._head.plain:
            states: torch.Tensor = self._decoder_states(shown, encoded, mask)
            return states
        outputs = BaseModelOutput(last_hidden_state=encoded)
        logits: torch.Tensor = self.model(
            encoder_outputs=outputs, attention_mask=mask, decoder_input_ids=shown, use_cache=False
        ).logits
        return logits

    def _decoder_states(self, shown: torch.Tensor, encoded: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        states: torch.Tensor = self.model.get_decoder()(
            input_ids=shown, encoder_hidden_states=encoded, encoder_attention_mask=mask, use_cache=False
        )[0]
        return states

    def _found_head(self) -> Head:
        with torch.inference_mode():
            tokens = torch.arange(1, 6, device=self.device)[None]
            mask = torch.ones_like(tokens)
            shown = torch.tensor([self._start], device=self.device)
            encoded = self.model.get_encoder()(input_ids=tokens, attention_mask=mask)[0]
            whole = self.model(input_ids=tokens, attention_mask=mask, decoder_input_ids=shown).logits[0, -1]
            return Head(self.model, self._decoder_states(shown, encoded, mask)[0, -1], whole)

    def _values(self, states: torch.Tensor, questions: Sequence[_Question]) -> list[np.ndarray]:
        assert self._head is not None
        if questions[0].tail.labels:
            last = [len(question.shown) - 1 for question in questions]
            return self._head.said(states[range(len(last)), last], [q.tail.labels for q in questions])
        spans = [(len(question.shown) - question.tail.scored, question.tail.scored) for question in questions]
        rows = [n for n, (_, count) in enumerate(spans) for _ in range(count)]
        places = [first + at for first, count in spans for at in range(count)]
        targets = [token for q in questions for token in q.tail.tokens[-q.tail.scored :]]
        wanted = torch.tensor(targets, device=self.device)
        values = self._head.log_probs(states[rows, places], wanted).double().cpu().numpy()
        return np.split(values, np.cumsum([count for _, count in spans])[:-1])

    def _padded(self, rows: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor]:
        longest = max(map(len, rows))
        tokens = [list(ids) + [self._pad] * (longest - len(ids)) for ids in rows]
        mask = [[1] * len(ids) + [0] * (longest - len(ids)) for ids in rows]
        return torch.tensor(tokens, device=self.device), torch.tensor(mask, device=self.device)


def _longest(config: Any, side: str) -> int:
    """How many positions the encoder or decoder has, where these are absolute."""
    own = getattr(config, side, None)  # the configuration of one side, where each has its own
    for where, name in (
        (config, f"max_{side}_position_embeddings"),
        (config, "max_position_embeddings"),
        (own, "max_position_embeddings"),
    ):
        if isinstance(length := getattr(where, name, None), int):
            return length
    return UNBOUNDED


def _start(model: Any, name: str) -> tuple[int, ...]:
    """The tokens that every answer begins with: the start token, and BART's `<s>` after it."""
    places = (model.generation_config, model.config)
    start = next(
        (s for each in places if (s := getattr(each, "decoder_start_token_id", None)) is not None), None
    )
    if start is None:
        raise InputError(f"{name} does not say what its decoder starts with (no decoder_start_token_id)")
    forced = next(
        (f for each in places if (f := getattr(each, "forced_bos_token_id", None)) is not None), None
    )
    return (start,) if forced is None else (start, forced)
