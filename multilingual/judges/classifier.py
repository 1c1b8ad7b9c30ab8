"""Models with a relevance head: cross-encoders (bge-reranker, MiniLM, mMARCO, ...) and RankLLaMA's kind."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from ...encoders.pooling import collate
from ...errors import InputError
from .base import Ask
from .local import LocalJudge, run_batches
from .messages import Message, Seam


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
        _score_in_float32(self.model)

    def compute_scores(self, prompts: Sequence[Message]) -> np.ndarray:
        inputs = [self.encode(prompt) for prompt in prompts]
        cost = lambda each: len(each["input_ids"])  # noqa: E731
        return np.array(self._gather(run_batches(inputs, cost, self._forward, self.budget)))

    def encode(self, prompt: Message) -> dict[str, list[int]]:
        """As of other judges; for a message with a seam the two inputs of a pair, together."""
        if Seam.SEAM not in prompt.parts:
            return super().encode(prompt)
        whole = self.cut(prompt, self.context - self.tokenizer.num_special_tokens_to_add(pair=True))
        encoded = self.tokenizer(*_split_pair(whole, self.name), verbose=False)
        self.check_length(len(encoded["input_ids"]))
        return dict(encoded)

    def _forward(self, inputs: Sequence[dict[str, list[int]]]) -> list[float]:
        with torch.inference_mode():
            relevance: list[float] = self.predict(inputs).cpu().tolist()
        return relevance

    def predict(self, inputs: Sequence[dict[str, list[int]]]) -> torch.Tensor:
        """The scores of encoded inputs as one batch, float64 [n]; gradients flow through them where they are on."""
        # On the right whatever the tokenizer's side: there padding moves no position, and causal models never see it.
        fill = self._unused([each["input_ids"] for each in inputs])
        tensors = collate([each["input_ids"] for each in inputs], fill=fill, device=self.device)
        if "token_type_ids" in inputs[0]:
            types = [each["token_type_ids"] for each in inputs]
            padded = collate(types, fill=self.tokenizer.pad_token_type_id, device=self.device)
            tensors["token_type_ids"] = padded["input_ids"]
        config = self.model.config.get_text_config()
        own = config.pad_token_id
        config.pad_token_id = fill  # heads on causal models look for the last token that is not this one
        try:
            logits: torch.Tensor = self.model(**tensors).logits.double()
        finally:
            config.pad_token_id = own
        self.usage["prompt_tokens"] += int(tensors["attention_mask"].sum())
        if len(self.grades) > 2:
            logits = logits.softmax(dim=1)
        return logits @ torch.from_numpy(self.grades).to(logits.device)

    def _unused(self, rows: Sequence[Sequence[int]]) -> int:
        """The model's padding token; Llama has none, and takes one that none of the rows contains."""
        config = self.model.config.get_text_config()
        if config.pad_token_id is not None:
            return int(config.pad_token_id)
        used = {None, *itertools.chain(*rows)}
        own = (self.tokenizer.pad_token_id, self.tokenizer.unk_token_id)
        return next((int(each) for each in itertools.chain(own, range(config.vocab_size)) if each not in used), 0)


def _score_in_float32(model: Any) -> None:
    """Let the last layer, a few rows, compute in float32: in bfloat16 many scores of a list would be equal."""
    layers = [each for each in model.modules() if isinstance(each, torch.nn.Linear)]
    last = [each for each in layers if each.out_features == model.config.num_labels]
    if len(last) == 1:
        last[0].float().register_forward_pre_hook(lambda _, inputs: tuple(each.float() for each in inputs))


def _split_pair(message: Message, name: str) -> tuple[str, str]:
    """The message's two inputs; what its system says opens the first, its answer ends the second."""
    if (seams := message.parts.count(Seam.SEAM)) > 1:
        raise InputError(f"{name}: the prompt has {seams} seams, and a pair has one")
    seam = message.parts.index(Seam.SEAM)
    first, second = message.parts[:seam], message.parts[seam:]
    return replace(message, parts=first, answer="").plain(), replace(message, parts=second, system="").plain()


def _longest(model: Any, tokenizer: Any) -> int:
    """Tokens that the model takes: what its positions and its tokenizer allow."""
    positions = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    for name, module in model.named_modules():
        # RoBERTa and its kin keep the positions up to that of the padding for themselves.
        if name.endswith("position_embeddings") and (kept := getattr(module, "padding_idx", None)) is not None:
            positions = module.num_embeddings - kept - 1
    return int(min(limit for limit in (tokenizer.model_max_length, positions) if limit))


def _grades(config: Any, name: str) -> np.ndarray:
    """The weights of the labels, float64 [labels].

    With one or two labels they are those of the logits; with more, of the probabilities: the grades in their names.
    """
    if config.num_labels <= 2:
        return np.array([-1.0, 1.0][-config.num_labels :])
    names = [str(config.id2label.get(n, n)) for n in range(config.num_labels)]
    found = [re.findall(r"\d+", each) for each in names]
    grades = [float(numbers[0]) for numbers in found if len(numbers) == 1]
    if len(set(grades)) < len(names):
        raise InputError(
            f"{name} classifies as {', '.join(names)}: no relevance can be read from these labels; take a model "
            f"with one or two labels, or with grades as labels"
        )
    return np.array(grades)
