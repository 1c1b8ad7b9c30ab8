"""GRPO (Shao et al. 2024) through trl: a generator learns from the rewards of its own answers (Rank-R1)."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers

from ...checkpoints.devices import is_out_of_memory
from ...errors import InputError
from ...multilingual.judges.causal import CausalJudge
from ..attention import choose_attention
from ..data.examples import Example
from .lessons import draw_question
from .loop import KeepsTrained, Watch, plan_arguments, refuse_nan
from .opening import RankerBase
from .recipe import RankerRecipe
from .rewards import REWARDS, Asked, Reward


def make_grpo_trainer(
    base: RankerBase,
    adapters: Any,
    recipe: RankerRecipe,
    examples: Sequence[Example],
    folder: Path,
    total: int,
    watch: Watch,
    measure: Callable[[], float] | None = None,
) -> Any:
    """trl's trainer, set up: prompts as the judge writes and tokenises them, rewards as its answers are read.

    A step is `recipe.batch` prompts with `recipe.samples` answers each; `adapters` is LoRA's configuration, or None.
    Answers are written by vLLM where there is a GPU and vLLM is installed. `InputError` for a base that is no causal
    language model, and for a prompt whose answers are not generated.
    """
    import trl
    from datasets import Dataset

    if not isinstance(base.judge, CausalJudge):
        raise InputError(f"grpo trains causal language models, and {base.written} is none")
    if base.prompt.asks not in ("choose", "generate"):
        raise InputError(f"grpo rewards what is said, and the prompt {base.prompt.name} asks for a {base.prompt.asks}")
    if adapters is None and recipe.divergence and "+" in base.weights:
        raise InputError("grpo keeps the base as reference, and its adapter would be lost: take lora, or divergence 0")
    room = recipe.thinking if base.prompt.think else min(recipe.thinking, 16 + 6 * min(recipe.group, base.prompt.most))
    asked, texts, ids = word_questions(base, examples, recipe, room)
    choose_attention(base.judge.model, base.judge.device, max(map(len, ids)) + room)
    names = [name for name, weight in zip(REWARDS, (recipe.format_weight, recipe.rank_weight), strict=True) if weight]
    arguments = plan_arguments(recipe, folder, base.judge.device, total, False)
    vllm = base.judge.device.type == "cuda" and importlib.util.find_spec("vllm") is not None
    config = trl.GRPOConfig(**{
        **arguments,
        "max_steps": total,
        "per_device_train_batch_size": recipe.samples,
        "gradient_accumulation_steps": recipe.batch,
        "num_generations": recipe.samples,
        "max_completion_length": room,
        "temperature": recipe.sampling,
        "beta": recipe.divergence,
        "loss_type": "grpo",
        "reward_weights": [getattr(recipe, f"{name}_weight") for name in names],
        "gradient_checkpointing": recipe.checkpointing,
        "use_vllm": vllm,
        **({"vllm_mode": "colocate"} if vllm else {}),
    })  # fmt: skip
    callbacks: list[Any] = [watch]
    trainer = define_trainer()(
        prompts=dict(zip(texts, ids, strict=True)),
        model=base.judge.model,
        reward_funcs=[make_reward(name, asked) for name in names],
        args=config,
        train_dataset=Dataset.from_dict({"prompt": texts, "place": list(range(len(texts)))}),
        processing_class=base.judge.tokenizer,
        callbacks=callbacks,
        peft_config=adapters,
    )
    if measure is not None:
        trainer.add_callback(_Measure(trainer, measure))
    return trainer


def word_questions(
    base: RankerBase, examples: Sequence[Example], recipe: RankerRecipe, room: int
) -> tuple[list[Asked], list[str], list[list[int]]]:
    """A question of each example, as text and token ids that the judge is shown at inference; texts differ."""
    asked: list[Asked] = []
    texts: list[str] = []
    rows: list[list[int]] = []
    seen: set[str] = set()
    for place, example in enumerate(examples):
        worded, drawn = draw_question(base.prompt, example, recipe, place)
        message = worded.message(drawn.query, drawn.documents, base.judge.modalities)
        starts, written = base.judge.prepare_prompts([message], room)
        if written[0] in seen:
            continue
        seen.add(written[0])
        asked.append(Asked(worded, drawn))
        texts.append(written[0])
        rows.append(list(starts[0]))
    return asked, texts, rows


def make_reward(name: str, asked: Sequence[Asked]) -> Callable[..., list[float]]:
    """A reward as trl calls it, with the columns of the data set; `place` says which question was answered."""
    reward: Reward = REWARDS[name]

    def judge_answers(completions: Sequence[str], place: Sequence[int], **_: Any) -> list[float]:
        return [reward(asked[n], said) for n, said in zip(place, completions, strict=True)]

    judge_answers.__name__ = name
    return judge_answers


def define_trainer() -> type:
    """trl's trainer with our prompts and checkpoints; a function, for trl is imported where it is needed alone."""
    from trl import GRPOTrainer

    class RewardTrainer(KeepsTrained, GRPOTrainer):
        def __init__(self, *, prompts: dict[str, list[int]], **options: Any) -> None:
            super().__init__(**options)
            self.prompts = prompts

        def _tokenize_prompts(self, prompts: list[str]) -> tuple[list[list[int]], None, dict[str, Any]]:
            return [list(self.prompts[each]) for each in prompts], None, {}

        def training_step(self, *given: Any) -> torch.Tensor:
            try:
                loss: torch.Tensor = super().training_step(*given)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                raise InputError(
                    f"out of memory with {self.args.num_generations} answers to a prompt: lower samples, thinking or "
                    f"group, or take lora or checkpointing"
                ) from None
            if not torch.isfinite(loss):
                raise refuse_nan("the loss is", self.state.global_step + 1)
            return loss

        def create_model_card(self, *_: Any, **__: Any) -> None:
            """None: what is kept here is no result yet."""

    return RewardTrainer


class _Measure(transformers.TrainerCallback):
    """The dev collection's nDCG in the curve, with each checkpoint."""

    def __init__(self, trainer: Any, measure: Callable[[], float]) -> None:
        self.trainer, self.measure = trainer, measure

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.trainer.model.eval()
        found = self.measure()
        self.trainer.model.train()
        self.trainer.log({"eval_ndcg": found})
