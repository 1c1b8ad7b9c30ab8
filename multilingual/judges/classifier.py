"""Models with a relevance head: cross-encoders (bge-reranker, MiniLM, mMARCO, ...) and RankLLaMA's kind."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from ...encoders.batching import compute_in_parts, plan_batches
from ...errors import InputError
from .base import Ask
from .chats import check_length, fit, rendered, templated
from .local import LocalJudge
from .messages import Message, Part, Seam


class ClassifierJudge(LocalJudge):
    """A sequence classifier as cross-encoder (Nogueira and Cho 2019) or RankLLaMA (Ma et al. 2023).

    The message is parted by its seam into the two inputs of a pair, put together by the model's own tokenizer with
    its special tokens and token types; a message without a seam is one input, in the chat template where it wants
    one. Only passages are cut, never the query. The score is the logit of a head with one label, the log-odds
    logit[1] - logit[0] of one with two, and the expected grade of one with more whose names hold their grades
    (`LABEL_0`, `3`, `2 stars`).
    """

    can: frozenset[Ask] = frozenset({"score"})
    budgets = (4096, 65536)

    def __init__(self, *model: Any, **limits: Any) -> None:
        super().__init__(*model, **limits)
        self.context = _longest(self.model, self.tokenizer)
        self.grades = _grades(self.model.config, self.name)

    def score(self, prompts: Sequence[Message]) -> np.ndarray:
        inputs = [self._encoded(prompt) for prompt in prompts]
        scores = np.empty(len(inputs))

        def forward(rows: Sequence[int]) -> np.ndarray:
            return self._scored([inputs[row] for row in rows])

        for batch in plan_batches([len(each["input_ids"]) for each in inputs], self.budget):
            scores[batch] = compute_in_parts(forward, batch, [f"prompt {row}" for row in batch])
            self._tell(len(batch))
        self.usage["calls"] += len(prompts)
        return scores

    def _encoded(self, prompt: Message) -> dict[str, list[int]]:
        """The tokenizer's output for one message, cut to fit."""
        paired = Seam.SEAM in prompt.parts
        chats = not paired and templated(self, prompt)
        if chats:
            special = self.tokens.count(rendered(self.tokenizer, prompt, "", self.name))
        else:
            special = self.tokenizer.num_special_tokens_to_add(pair=paired)
        whole = fit(self, prompt, self.context - special)
        if chats:
            text = rendered(self.tokenizer, whole, whole.user(), self.name) + whole.answer
            encoded = self.tokenizer(text, add_special_tokens=False, verbose=False)
        else:
            encoded = self.tokenizer(*_inputs(whole, self.name), verbose=False)
        check_length(self, len(encoded["input_ids"]))
        return dict(encoded)

    def _scored(self, inputs: Sequence[dict[str, list[int]]]) -> np.ndarray:
        # On the right whatever the tokenizer's side: there padding moves no position, and causal models never see it.
        pad = self._unused([each["input_ids"] for each in inputs])
        longest = max(len(each["input_ids"]) for each in inputs)
        fill = {"input_ids": pad, "attention_mask": 0, "token_type_ids": self.tokenizer.pad_token_type_id}
        tensors = {
            key: torch.tensor(
                [each[key] + [fill.get(key, 0)] * (longest - len(each[key])) for each in inputs],
                device=self.device,
            )
            for key in inputs[0]
        }
        config = self.model.config.get_text_config()
        own = config.pad_token_id
        config.pad_token_id = pad  # heads on causal models look for the last token that is not this one
        try:
            with torch.inference_mode():
                logits = self.model(**tensors).logits.double().cpu().numpy()
        finally:
            config.pad_token_id = own
        self.usage["prompt_tokens"] += sum(len(each["input_ids"]) for each in inputs)
        return self._relevance(logits)

    def _relevance(self, logits: np.ndarray) -> np.ndarray:
        """float64 [n] of the head's logits [n, labels]."""
        labels = logits.shape[1]
        if labels == 1:
            one: np.ndarray = logits[:, 0]
            return one
        if labels == 2:
            odds: np.ndarray = logits[:, 1] - logits[:, 0]
            return odds
        shares = np.exp(logits - np.logaddexp.reduce(logits, axis=1, keepdims=True))
        expected: np.ndarray = shares @ self.grades
        return expected

    def _unused(self, rows: Sequence[Sequence[int]]) -> int:
        """The model's padding token; Llama has none, and takes one that none of the rows contains."""
        config = self.model.config.get_text_config()
        if config.pad_token_id is not None:
            return int(config.pad_token_id)
        used = set(itertools.chain(*rows))
        own = (self.tokenizer.pad_token_id, self.tokenizer.unk_token_id)
        choices = itertools.chain(own, range(config.vocab_size))
        return next((int(each) for each in choices if each is not None and each not in used), 0)


def _inputs(message: Message, name: str) -> tuple[str, ...]:
    """The message's one or two inputs; what its system says opens the first, its answer ends the last."""
    opening = f"{message.system}\n\n" if message.system else ""
    sides: list[list[Part]] = [[opening]]
    for part in message.parts:
        if part is Seam.SEAM:
            sides.append([])
        else:
            sides[-1].append(part)
    if len(sides) > 2:
        raise InputError(f"{name}: the prompt has {len(sides) - 1} seams, and a pair has one")
    sides[-1].append(message.answer)
    return tuple(replace(message, parts=tuple(side), system="", answer="").plain() for side in sides)


def _longest(model: Any, tokenizer: Any) -> int:
    """Tokens that the model takes: what its positions and its tokenizer allow."""
    positions = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    for name, module in model.named_modules():
        # RoBERTa and its kin keep the positions up to that of the padding for themselves.
        if (
            name.endswith("position_embeddings")
            and (kept := getattr(module, "padding_idx", None)) is not None
        ):
            positions = module.num_embeddings - kept - 1
    return int(min(limit for limit in (tokenizer.model_max_length, positions) if limit))


def _grades(config: Any, name: str) -> np.ndarray:
    """What each label is worth, float64 [labels]: of more than two, the number in its name."""
    if config.num_labels <= 2:
        return np.arange(config.num_labels, dtype=np.float64)
    names = [str(config.id2label.get(n, n)) for n in range(config.num_labels)]
    found = [re.findall(r"\d+", each) for each in names]
    grades = [float(numbers[0]) for numbers in found if len(numbers) == 1]
    if len(set(grades)) < len(names):
        raise InputError(
            f"{name} classifies as {', '.join(names)}: no relevance can be read from these labels; take a model "
            f"with one or two labels, or with grades as labels"
        )
    return np.array(grades)
