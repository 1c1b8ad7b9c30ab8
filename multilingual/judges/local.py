"""What the judges share that run a model of transformers in this process."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from ...errors import InputError
from ...items import Modality
from ...pipeline import advance
from .base import Ask, Completion, refuse
from .messages import Message
from .tokens import Tokens

UNBOUNDED = 1 << 20  # tokens that models without a limit of their own read


class LocalJudge:
    """A model on its device, with its tokenizer and its limits; a subclass answers what it `can`.

    `budget` is how many tokens a batch may have, on the CPU and on an accelerator. `InputError` for `passage_tokens`
    below 1.
    """

    modalities: frozenset[Modality] = frozenset({"text"})
    can: frozenset[Ask] = frozenset()
    budgets = (4096, 32768)
    appetites = (1024, 16384)

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
        self.chats = bool(getattr(tokenizer, "chat_template", None))
        self.budget = self.budgets[device.type != "cpu"]
        self.appetite = self.appetites[device.type != "cpu"]
        positions = getattr(model.config.get_text_config(), "max_position_embeddings", 0)
        self.context = int(positions or UNBOUNDED)
        self._answered = 0

    @property
    def fingerprint(self) -> str:
        return f"{self.revision}/{self.model.dtype}/{self.passage_tokens}"

    def choose(self, prompts: Sequence[Message], labels: Sequence[str]) -> np.ndarray:
        raise refuse(self, "choose")

    def likelihood(self, prompts: Sequence[Message], targets: Sequence[str]) -> np.ndarray:
        raise refuse(self, "likelihood")

    def generate(
        self,
        prompts: Sequence[Message],
        *,
        max_new_tokens: int = 64,
        stop: Sequence[str] = (),
        temperature: float = 0.0,
        seed: int = 0,
    ) -> list[Completion]:
        raise refuse(self, "generate")

    def score(self, prompts: Sequence[Message]) -> np.ndarray:
        raise refuse(self, "score")

    def _tell(self, answered: int) -> None:
        """So many questions more were answered."""
        self._answered += answered
        advance(answered)

    @property
    def _pad(self) -> int:
        return int(self.tokenizer.pad_token_id or self.tokenizer.eos_token_id or 0)
