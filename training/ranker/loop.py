"""The training loop of rankers: transformers' `Trainer` around their lessons, in micro-batches that fit into memory."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers

from ...checkpoints.devices import choose_token_budget, name_dtype, resolve_dtype
from ...encoders.batching import plan_batches
from ...errors import InputError
from ..data.examples import Example
from ..loop import TrainingLoop, fit_memory, plan_arguments, refuse_infinite
from .lessons import Lesson, Task
from .recipe import RankerRecipe

Part = tuple[float, Callable[[], torch.Tensor]]  # of a step: its share, and what computes its loss


class TaskDataset(torch.utils.data.Dataset[Task]):
    """Examples as tasks, made when they are asked for; documents are drawn again in each epoch, by seed and place."""

    def __init__(self, examples: Sequence[Example], lesson: Lesson, seed: int) -> None:
        self.examples, self.lesson, self.seed = examples, lesson, seed
        self.epoch = 0

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, place: int) -> Task:
        return self.lesson.prepare(self.examples[place], random.Random(f"{self.seed}/{self.epoch}/{place}"))


class LessonModel(torch.nn.Module):
    """A judge's model as what is trained: of tasks it gives the loss."""

    def __init__(self, model: torch.nn.Module, lesson: Lesson) -> None:
        super().__init__()
        self.model = model
        self.lesson = lesson

    def forward(self, tasks: Sequence[Task]) -> torch.Tensor:
        """The mean loss of the tasks."""
        return self.lesson.compute(tasks)


class RankerLoop(TrainingLoop):
    """A loop whose steps are taken in parts of at most `budget` padded tokens; their number changes no gradient."""

    budget: int

    def add_up(self, model: Any, parts: Sequence[Part]) -> torch.Tensor:
        """The loss of a step, whose gradients are added to those of the weights; `InputError` if it is not finite."""
        total = torch.zeros((), device=self.args.device)
        for n, (share, compute) in enumerate(parts):
            # Processes add up their gradients once, with the last part.
            with self.accelerator.no_sync(model) if n + 1 < len(parts) else nullcontext():
                loss = compute() * share
                if not torch.isfinite(loss):
                    raise refuse_infinite("the loss is", self.state.global_step + 1)
                self.accelerator.backward(loss)
            total += loss.detach()
        return total


class RankerTrainer(RankerLoop, transformers.Trainer):
    """A step is a batch of queries, in parts of tasks of like length.

    Where memory runs out, parts are halved and the step is taken again. `InputError` where one query does not fit.
    """

    def __init__(self, *, budget: int, **options: Any) -> None:
        super().__init__(**options)
        self.budget = budget

    def training_step(self, model: Any, inputs: Sequence[Task], num_items_in_batch: Any = None) -> torch.Tensor:
        model.train()
        costs = [task.cost for task in inputs]

        def compute(tasks: Sequence[Task]) -> torch.Tensor:
            with self.compute_loss_context_manager():
                loss: torch.Tensor = model(tasks)
            return loss

        def take() -> torch.Tensor:
            parts = [[inputs[place] for place in places] for places in plan_batches(costs, self.budget)]
            return self.add_up(model, [(len(part) / len(inputs), partial(compute, part)) for part in parts])

        def halve() -> str:
            most = max(map(len, plan_batches(costs, self.budget)))
            if most == 1:
                raise InputError(
                    f"out of memory with one query of {max(costs)} tokens: lower group or passage_tokens, or take "
                    f"checkpointing, or lora"
                )
            model.zero_grad(set_to_none=True)
            self.budget = min(self.budget // 2, max(costs) * (most // 2))
            return f"{self.budget} tokens"

        return fit_memory(take, halve)


class EpochCallback(transformers.TrainerCallback):
    """Tells a data set which epoch it is, so that documents are drawn again."""

    def __init__(self, dataset: TaskDataset) -> None:
        self.dataset = dataset

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.dataset.epoch = int(state.epoch or 0)


def plan_ranker_arguments(
    recipe: RankerRecipe, folder: Path, device: torch.device, total: int, watched: bool, **more: Any
) -> dict[str, Any]:
    """As `plan_arguments`, with the batch of each process, and the precision in which is computed."""
    from accelerate import PartialState

    dtype = recipe.precision
    if dtype == "auto":
        dtype = name_dtype(resolve_dtype("auto", device))  # type: ignore[assignment]
    return plan_arguments(
        recipe, folder, device, total, watched,
        per_device_train_batch_size=max(1, recipe.batch // PartialState().num_processes),
        bf16=dtype == "bfloat16",
        fp16=dtype == "float16" and device.type == "cuda",
        dataloader_pin_memory=device.type == "cuda",
        **more,
    )  # fmt: skip


def choose_budget(tokens: int, device: torch.device) -> int:
    """Padded tokens of a part: as many as are given, else what keeps a device busy and fits with gradients."""
    if tokens:
        return tokens
    return 4096 if device.type == "cpu" else choose_token_budget(device) // 4
