"""GRPO (Shao et al. 2024) through trl: a generator learns from the rewards of its own answers (Rank-R1)."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import torch

from ...errors import InputError
from ...multilingual.judges.causal import CausalJudge
from ..attention import choose_attention
from ..data.examples import Example
from ..data.stored import DigestTable
from ..loop import fit_memory
from .lessons import draw_question
from .loop import RankerLoop, choose_budget, plan_ranker_arguments
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
    watched: bool,
) -> RankerLoop:
    """trl's trainer, set up: prompts as the judge writes and tokenises them, rewards as its answers are read.

    A step is `recipe.batch` prompts with `recipe.samples` answers each; `adapters` is LoRA's configuration, or None.
    Answers are written by vLLM where there is a GPU and vLLM is installed. `InputError` for a base that is no causal
    language model, for a prompt whose answers are not generated, and for too few questions.
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
    questions = Questions(base, examples, recipe, room)
    if len(questions) < recipe.batch:
        raise InputError(f"there are {len(questions)} different questions, and a batch has {recipe.batch}: lower batch")
    longest = questions.longest + room
    choose_attention(base.judge.model, base.judge.device, longest)
    names = [name for name, weight in zip(REWARDS, (recipe.format_weight, recipe.rank_weight), strict=True) if weight]
    arguments = plan_ranker_arguments(recipe, folder, base.judge.device, total, watched)
    answers = recipe.samples * arguments["per_device_train_batch_size"]
    config = trl.GRPOConfig(**{
        **arguments,
        # All answers of a step at once: they are learnt from in parts here.
        "per_device_train_batch_size": answers,
        "per_device_eval_batch_size": answers,
        "num_generations": recipe.samples,
        "max_completion_length": room,
        "temperature": recipe.sampling,
        "beta": recipe.divergence,
        "loss_type": "grpo",
        "reward_weights": [getattr(recipe, f"{name}_weight") for name in names],
        "gradient_checkpointing": recipe.checkpointing,
        **plan_rollouts(base.judge.device, longest),
    })  # fmt: skip
    places = list(range(len(questions)))
    dataset = Dataset.from_dict({"prompt": list(map(str, places)), "place": places})  # numbers stand for prompts
    return define_trainer()(
        questions=questions,
        budget=choose_budget(recipe.micro_tokens, base.judge.device),
        model=base.judge.model,
        reward_funcs=[make_reward(name, questions) for name in names],
        args=config,
        train_dataset=dataset,
        eval_dataset=dataset if watched else None,  # it asks for one; what measures has its own
        processing_class=base.judge.tokenizer,
        peft_config=adapters,
    )


def plan_rollouts(device: torch.device, longest: int) -> dict[str, Any]:
    """What trl is told of how answers are written, with prompts and answers of at most `longest` tokens together.

    By vLLM in the same process where there is a GPU and it is installed: it has 30% of the memory then, and room for
    no longer texts than these, for all that a model knows may not fit. By transformers elsewhere.
    """
    from trl.import_utils import is_vllm_available

    if device.type != "cuda" or not is_vllm_available():
        return {"use_vllm": False}
    return {"use_vllm": True, "vllm_mode": "colocate", "vllm_max_model_length": longest}


class Questions:
    """A question of each example, those whose text is another's left out; written when they are asked for."""

    def __init__(self, base: RankerBase, examples: Sequence[Example], recipe: RankerRecipe, room: int) -> None:
        self.base, self.examples, self.recipe, self.room = base, examples, recipe, room
        self.longest = 0  # in tokens
        self.places = array("I")
        seen = DigestTable()
        for place in range(len(examples)):
            tokens, text = self._write(self._draw(place))
            if seen.setdefault(text, place) == place:
                self.places.append(place)
                self.longest = max(self.longest, len(tokens))
        # A question is written, and judged, once for each of its answers.
        self._recent = lru_cache(maxsize=256)(self._draw)

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, number: int) -> Asked:
        return self._recent(self.places[number])

    def tokenize(self, number: int) -> list[int]:
        """The token ids of a question that the judge is shown at inference."""
        return self._write(self[number])[0]

    def _draw(self, place: int) -> Asked:
        return Asked(*draw_question(self.base.prompt, self.examples[place], self.recipe, place))

    def _write(self, asked: Asked) -> tuple[list[int], str]:
        message = asked.prompt.message(asked.drawn.query, asked.drawn.documents, self.base.judge.modalities)
        starts, written = self.base.judge.prepare_prompts([message], self.room)
        return list(starts[0]), written[0]


def make_reward(name: str, asked: Questions) -> Callable[..., list[float]]:
    """A reward as trl calls it, with the columns of the data set; `place` says which question was answered."""
    reward: Reward = REWARDS[name]

    def judge_answers(completions: Sequence[str], place: Sequence[int], **_: Any) -> list[float]:
        return [reward(asked[n], said) for n, said in zip(place, completions, strict=True)]

    judge_answers.__name__ = name
    return judge_answers


def define_trainer() -> type:
    """trl's trainer with our prompts, parts and checkpoints; a function, for trl is imported where it is needed alone.

    Where memory runs out, fewer answers are written at once, or learnt from at once; neither changes what is learnt.
    """
    import trl.trainer.utils
    from trl import GRPOTrainer

    # Without Triton, trl computes probabilities over the vocabulary at each token of the prompts too: 60% of a step
    # on a CPU. That suits devices that compile for each shape, of which there are none here.
    trl.trainer.utils._use_triton = lambda device: True  # noqa: SLF001

    class RewardTrainer(RankerLoop, GRPOTrainer):
        def __init__(self, *, questions: Questions, budget: int, **options: Any) -> None:
            super().__init__(**options)
            self.questions, self.budget = questions, budget
            self.written = int(self.args.per_device_train_batch_size)  # answers that are written at once

        def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> torch.Tensor:
            model.train()
            answers = self._prepare_inputs(inputs)
            shape = self._find_shape(answers["prompt_ids"], answers["completion_ids"])

            def compute(part: dict[str, Any]) -> torch.Tensor:
                with self.compute_loss_context_manager():
                    loss: torch.Tensor = self.compute_loss(model, part)
                return loss

            def take() -> torch.Tensor:
                parts = share_out(answers, self._count_rows(shape))
                return self.add_up(model, [(share, partial(compute, part)) for share, part in parts])

            return fit_memory(take, partial(self._halve, shape))

        def _get_per_token_logps_and_entropies(self, *given: Any, batch_size: int | None = None, **more: Any) -> Any:
            work = super()._get_per_token_logps_and_entropies
            if batch_size is None:  # of a part that is learnt from
                return work(*given, **more)
            shape = self._find_shape(given[1])
            take = lambda: work(*given, batch_size=self._count_rows(shape), **more)  # noqa: E731
            return fit_memory(take, partial(self._halve, shape))

        def _generate_single_turn(self, prompt_ids: list[list[int]], *given: Any, **more: Any) -> Any:
            work = super()._generate_single_turn
            if self.use_vllm:  # it minds its memory itself
                return work(prompt_ids, *given, **more)

            def take() -> tuple[list[list[int]], None]:
                firsts = range(0, len(prompt_ids), self.written)
                said = [work(prompt_ids[first : first + self.written], *given, **more)[0] for first in firsts]
                return [each for some in said for each in some], None

            def halve() -> str:
                if self.written == 1:
                    raise InputError("out of memory while one answer is written: lower thinking or group")
                self.written = (self.written + 1) // 2
                return f"{self.written} answers"

            return fit_memory(take, halve)

        def _tokenize_prompts(self, prompts: list[str]) -> tuple[list[list[int]], None, dict[str, Any]]:
            return [self.questions.tokenize(int(each)) for each in prompts], None, {}

        def _find_shape(self, *tokens: torch.Tensor) -> tuple[int, int]:
            """How many answers there are, and how wide they are with their prompts; the same in all processes."""
            width = torch.tensor([sum(each.shape[1] for each in tokens)], device=self.args.device)
            return len(tokens[0]), int(self.accelerator.gather(width).max())

        def _count_rows(self, shape: tuple[int, int]) -> int:
            """How many answers go through the model at once."""
            return max(1, min(shape[0], self.budget // shape[1]))

        def _halve(self, shape: tuple[int, int]) -> str:
            rows = self._count_rows(shape)
            # Processes learn from as many parts each.
            if rows == 1 or self.accelerator.num_processes > 1:
                raise InputError(
                    f"out of memory with {rows} answers of {shape[1]} tokens at once: lower micro_tokens, thinking or "
                    f"group, or take lora or checkpointing"
                )
            self.model.zero_grad(set_to_none=True)
            self.budget = min(self.budget // 2, shape[1] * (rows // 2))
            return f"{self.budget} tokens"

        def create_model_card(self, *_: Any, **__: Any) -> None:
            """None: what is kept here is no result yet."""

        def _send_telemetry(self) -> None:
            """None: what is trained here is nobody else's business."""

    return RewardTrainer


def share_out(answers: Mapping[str, Any], rows: int) -> list[tuple[float, dict[str, Any]]]:
    """Tensors [answers, ...] in parts of so many rows, with the share of all that each part is."""
    count = len(answers["completion_ids"])
    parts = []
    for first in range(0, count, rows):
        chosen = slice(first, first + rows)
        part = {key: each[chosen] if torch.is_tensor(each) and each.dim() else each for key, each in answers.items()}
        parts.append((len(part["completion_ids"]) / count, part))
    return parts
