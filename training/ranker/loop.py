"""The loop: transformers' trainer (accelerate, optimizers, schedules, resumption) around a ranker's lessons."""

from __future__ import annotations

import math
import random
import shutil
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers.trainer_utils import get_last_checkpoint

from ...checkpoints.devices import choose_token_budget, is_out_of_memory, name_dtype, resolve_dtype
from ...encoders.batching import plan_batches
from ...errors import InputError
from ..data.examples import Example
from .lessons import Lesson, Task
from .recipe import RankerRecipe

WEIGHTS = "trained.safetensors"  # of a checkpoint: what is trained, and nothing else
COMPLETE = "complete"  # a checkpoint has it once all of it is written


class TaskDataset(torch.utils.data.Dataset[Task]):
    """Examples as tasks, made when they are asked for; documents are drawn anew in each epoch, by seed and place."""

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


class KeepsTrained:
    """Checkpoints of a trainer that hold what is trained alone, are complete or are not there, and are finite.

    `model` is the trainer's module; of it the parameters that take gradients are kept.
    """

    model: Any
    state: Any
    args: Any

    def _save(self, output_dir: str | None = None, state_dict: Mapping[str, Any] | None = None) -> None:
        folder = Path(output_dir or self.args.output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        held = {name: each.detach().cpu().contiguous() for name, each in list_trained(self.model).items()}
        if broken := next((name for name, each in held.items() if not torch.isfinite(each).all()), None):
            raise refuse_nan(f"the weights {broken} are", self.state.global_step)
        save_file(held, folder / WEIGHTS)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        load_trained(self.model, Path(resume_from_checkpoint))

    def _load_best_model(self) -> None:
        if self.state.best_model_checkpoint:
            load_trained(self.model, Path(self.state.best_model_checkpoint))


class RankerTrainer(KeepsTrained, transformers.Trainer):
    """A step is a batch of queries, in micro-batches of tasks of like length; their number changes no gradient.

    Where memory runs out, micro-batches are halved and the step is taken again. `InputError` where the loss is not a
    number, and where one query does not fit. `measure` gives the dev collection's nDCG.
    """

    def __init__(self, *, budget: int, measure: Callable[[], float] | None, **options: Any) -> None:
        super().__init__(**options)
        self.budget = budget
        self.measure = measure

    def training_step(self, model: Any, inputs: Sequence[Task], num_items_in_batch: Any = None) -> torch.Tensor:
        model.train()
        while True:
            try:
                return self._step(model, inputs)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
            # Outside of the except block, whose frames hold what filled the memory.
            model.zero_grad(set_to_none=True)
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            costs = [task.cost for task in inputs]
            most = max(map(len, plan_batches(costs, self.budget)))
            if most == 1:
                raise InputError(
                    f"out of memory with one query of {max(costs)} tokens: lower group or passage_tokens, or take "
                    f"checkpointing, or lora"
                )
            self.budget = min(self.budget // 2, max(costs) * (most // 2))

    def _step(self, model: Any, tasks: Sequence[Task]) -> torch.Tensor:
        parts = list(plan_batches([task.cost for task in tasks], self.budget))
        total = torch.zeros((), device=self.args.device)
        for n, part in enumerate(parts):
            # Processes add up their gradients once, with the last micro-batch.
            quiet = self.accelerator.no_sync(model) if n + 1 < len(parts) else nullcontext()
            with quiet:
                with self.compute_loss_context_manager():
                    loss = model([tasks[place] for place in part]) * (len(part) / len(tasks))
                if not torch.isfinite(loss):
                    raise refuse_nan("the loss is", self.state.global_step + 1)
                self.accelerator.backward(loss)
            total += loss.detach()
        return total

    def evaluate(self, *_: Any, metric_key_prefix: str = "eval", **__: Any) -> dict[str, float]:
        """nDCG of the dev collection, ranked by the code of inference."""
        assert self.measure is not None
        self.model.eval()
        found = {f"{metric_key_prefix}_ndcg": self.measure()}
        self.model.train()
        self.log(found)
        self.callback_handler.on_evaluate(self.args, self.state, self.control, found)
        return found


@contextmanager
def keep_quiet() -> Iterator[None]:
    """Without bars and warnings of transformers, which are not for who trains."""
    level, bars = transformers.logging.get_verbosity(), transformers.logging.is_progress_bar_enabled()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        transformers.logging.set_verbosity(level)
        if bars:
            transformers.logging.enable_progress_bar()


class Watch(transformers.TrainerCallback):
    """What happens between steps: progress, the time that is left, draws of an epoch, marks of whole checkpoints.

    `spent` is how many seconds earlier sessions have trained.
    """

    def __init__(
        self, minutes: float | None, spent: float, show: Callable[[int], None], dataset: TaskDataset | None = None
    ) -> None:
        self.show, self.dataset = show, dataset
        self.began = time.monotonic() - spent
        self.ends = None if minutes is None else self.began + 60 * minutes

    @property
    def seconds(self) -> float:
        """How long all sessions have trained."""
        return time.monotonic() - self.began

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self.dataset is not None:
            self.dataset.epoch = int(state.epoch or 0)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.show(state.global_step)
        if self.ends is not None and time.monotonic() >= self.ends:
            control.should_training_stop = True

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.is_world_process_zero:
            Path(args.output_dir, f"checkpoint-{state.global_step}", COMPLETE).write_text(f"{self.seconds:.1f}\n")


def list_trained(model: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    """The parameters that take gradients, each once."""
    return {name: each for name, each in model.named_parameters() if each.requires_grad}


def load_trained(model: torch.nn.Module, checkpoint: Path) -> None:
    """Put what a checkpoint holds into a model; `InputError` where it is of another one."""
    held, own = load_file(checkpoint / WEIGHTS), list_trained(model)
    if held.keys() != own.keys():
        raise InputError(f"{checkpoint} is of another model or other settings: remove it, to begin anew")
    with torch.no_grad():
        for name, each in own.items():
            each.copy_(held[name])


def find_checkpoint(folder: Path) -> str | None:
    """The last whole checkpoint; what a kill left half-written is removed."""
    while found := get_last_checkpoint(str(folder)) if folder.is_dir() else None:
        if Path(found, COMPLETE).exists():
            return str(found)
        shutil.rmtree(found)
    return None


def refuse_nan(what: str, step: int) -> InputError:
    """The error of training that has lost its numbers."""
    return InputError(
        f"{what} not finite at step {step}: training stops, and the last checkpoint is kept; lower the rate, or take "
        f"precision float32"
    )


def plan_arguments(
    recipe: RankerRecipe, folder: Path, device: torch.device, total: int, evaluates: bool
) -> dict[str, Any]:
    """What transformers' trainers share of their settings, for so many steps in `total`."""
    from accelerate import PartialState

    dtype = recipe.precision
    if dtype == "auto":
        dtype = name_dtype(resolve_dtype("auto", device))  # type: ignore[assignment]
    check = recipe.check or max(1, total // 10)
    more: dict[str, Any] = {}
    if evaluates:
        more = {
            "eval_strategy": "steps", "eval_steps": check, "load_best_model_at_end": True,
            "metric_for_best_model": "eval_ndcg", "greater_is_better": True,
        }  # fmt: skip
    return {
        "output_dir": str(folder),
        "per_device_train_batch_size": max(1, recipe.batch // PartialState().num_processes),
        "num_train_epochs": recipe.epochs,
        "max_steps": recipe.steps or -1,
        "learning_rate": recipe.learning_rate,
        "lr_scheduler_type": {"constant": "constant_with_warmup"}.get(recipe.schedule, recipe.schedule),
        "warmup_steps": recipe.warmup,
        "weight_decay": recipe.weight_decay,
        "max_grad_norm": recipe.clip,
        "logging_steps": max(1, min(check, total // 100)),
        "logging_first_step": True,
        "logging_nan_inf_filter": False,
        "save_strategy": "steps",
        "save_steps": check,
        "save_total_limit": 2,
        "seed": recipe.seed,
        "data_seed": recipe.seed,
        "bf16": dtype == "bfloat16",
        "fp16": dtype == "float16" and device.type == "cuda",
        "use_cpu": device.type == "cpu",
        "report_to": "none",
        "disable_tqdm": True,
        "remove_unused_columns": False,
        "dataloader_pin_memory": device.type == "cuda",
        **more,
    }


def choose_budget(tokens: int, device: torch.device) -> int:
    """Padded tokens of a micro-batch: as many as are given, else what keeps a device busy and fits with gradients."""
    if tokens:
        return tokens
    return 4096 if device.type == "cpu" else choose_token_budget(device) // 4


def summarize_curve(history: Sequence[Mapping[str, Any]]) -> list[dict[str, float]]:
    """Of a trainer's history the points of the curve: step, loss, and what else was measured there."""
    kept = ("loss", "learning_rate", "grad_norm", "eval_ndcg", "reward", "reward_std", "kl")
    points: dict[int, dict[str, float]] = {}
    for each in history:
        values = {key: float(value) for key, value in each.items() if key in kept or key.startswith("rewards/")}
        if values:
            points.setdefault(int(each["step"]), {"step": float(each["step"])}).update(values)
    return [{key: value for key, value in point.items() if math.isfinite(value)} for _, point in sorted(points.items())]
