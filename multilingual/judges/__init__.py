"""Judges: models behind a backend that answer batches of questions. `Judge` is the contract, one file a backend."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Literal, Protocol

import numpy as np

from ...errors import InputError, check_known
from ...items import Modality
from .messages import Message

# family -> module and factory: `factory(checkpoint, *, device, trust_remote_code, OPTIONS) -> Judge`; its
# keyword-only parameters are the options that a SPEC may set.
JUDGES = {
    "hf": "hf:load",
    "openai": "openai:load",
    "vllm": "vllm:load",
    "offline": "offline:load",
}

Ask = Literal["choose", "likelihood", "generate", "score"]


@dataclass(frozen=True, slots=True)
class Completion:
    """Generated text, how many tokens it took, and whether it ended by itself (False: cut at the limit)."""

    text: str
    tokens: int
    ended: bool = True


class Judge(Protocol):
    """A model behind a backend.

    `usage` counts calls (questions answered), prompt_tokens (those computed), generated_tokens, cut_passages, and
    whatever went wrong by kind (`unreadable`, `retries`, ...); it only grows. `can` holds the questions that the model
    answers; asked another, it raises `InputError`. `chats` tells whether it has a chat template. `appetite` is how many
    questions it likes to be handed at once: more gains nothing, and loses more when interrupted. `progress` is told
    how many questions were answered in all.
    """

    name: str
    revision: str
    modalities: frozenset[Modality]
    can: frozenset[Ask]
    chats: bool
    appetite: int
    usage: Counter[str]
    progress: Callable[[int], None] | None

    @property
    def fingerprint(self) -> str:
        """Everything that changes the answers: model, revision, precision, limits."""
        ...

    def choose(self, prompts: Sequence[Message], labels: Sequence[str]) -> np.ndarray:
        """Log-probabilities float64 [n, labels] of each label as the next thing said, normalised over the labels."""
        ...

    def likelihood(self, prompts: Sequence[Message], targets: Sequence[str]) -> np.ndarray:
        """Mean log-probability per token, float64 [n], of each target after its prompt."""
        ...

    def generate(
        self,
        prompts: Sequence[Message],
        *,
        max_new_tokens: int = 64,
        stop: Sequence[str] = (),
        temperature: float = 0.0,
        seed: int = 0,
    ) -> list[Completion]:
        """What the model says after each prompt: greedy at temperature 0, ending at one of `stop`."""
        ...

    def score(self, prompts: Sequence[Message]) -> np.ndarray:
        """What a relevance head (cross-encoder, RankLLaMA) says of each prompt, float64 [n], higher is better."""
        ...


def factory(family: str) -> Callable[..., Judge]:
    """The loader of a family; `InputError` lists the known ones."""
    check_known(family, JUDGES, "judge family")
    module, _, name = JUDGES[family].partition(":")
    loader: Callable[..., Judge] = getattr(import_module(f".{module}", __name__), name)
    return loader


def refuse(judge: Judge, ask: Ask) -> InputError:
    """The error of a judge that is asked what it cannot answer."""
    able = ", ".join(sorted(judge.can))
    return InputError(f"{judge.name} cannot answer `{ask}` questions (it can: {able}); take another prompt")
