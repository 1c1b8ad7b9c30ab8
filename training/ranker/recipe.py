"""How a ranker is trained: what a recipe says beside what all recipes do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ...errors import InputError, check_at_least, check_known
from ..recipe import Recipe, check_above, check_weight
from .losses import LOSSES


@dataclass(frozen=True, kw_only=True)
class RankerRecipe(Recipe):
    """How a ranker is trained.

    `prompt` asks a base that is given without one. `method` is `supervised`, or `grpo` (Shao et al. 2024), in which
    rewards of its answers teach a generator. `loss` is one of `losses.LOSSES`, or `text` for the tokens of an answer
    (permutations, thoughts); `auto` is what goes with the prompt and the data: `kl` where all examples have a
    teacher's scores and else `softmax`, or `text`. `group` is how many documents of a query are shown, a positive
    among them; `teacher_temperature` divides the teacher's scores in `kl`. `thoughts` is a file of thoughts to
    learn, or `teacher` the SPEC of a judge that writes them, of whose `samples` a question the right ones are kept.
    `precision` is what is
    computed in where weights are float32; `checkpointing` computes states twice to save memory.

    With `grpo`, `samples` answers to a prompt are compared, each of at most `thinking` tokens, drawn at the
    temperature `sampling`; `divergence` weighs the KL to the base, `format_weight` and `rank_weight` the rewards.
    """

    batch: int = 16
    dropout: float = 0.0
    embeddings: bool = False
    prompt: str = ""
    method: Literal["supervised", "grpo"] = "supervised"
    loss: str = "auto"
    group: int = 8
    teacher_temperature: float = 1.0
    thoughts: str = ""
    teacher: str = ""
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    checkpointing: bool = False
    samples: int = 8
    thinking: int = 1024
    sampling: float = 1.0
    divergence: float = 0.001
    format_weight: float = 0.0
    rank_weight: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_known(self.loss, ("auto", "text", *LOSSES), "loss")
        check_at_least(2, group=self.group, samples=self.samples)
        check_at_least(1, thinking=self.thinking)
        check_above(0, teacher_temperature=self.teacher_temperature, sampling=self.sampling)
        check_weight(divergence=self.divergence, format_weight=self.format_weight, rank_weight=self.rank_weight)
        if not (self.format_weight or self.rank_weight):
            raise InputError("format_weight and rank_weight are both 0: there would be no reward")
        if self.thoughts and self.teacher:
            raise InputError("thoughts are in a file, or a teacher writes them: give thoughts or teacher")
