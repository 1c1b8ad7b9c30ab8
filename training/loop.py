"""What all training loops share: checkpoints that a kill leaves whole, the rate, the time, and memory that runs out."""

from __future__ import annotations

import logging
import math
import shutil
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from pickle import PickleError
from typing import Any, TypeVar

import torch
import transformers
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers.trainer_callback import PrinterCallback

from ..checkpoints.devices import is_out_of_memory
from ..errors import InputError, first_line, note_kept
from ..files import read_json, write_json
from ..pipeline import Progress, Watcher, show_nothing
from .processes import agree, wait_for_all
from .recipe import Recipe

T = TypeVar("T")
log = logging.getLogger("crosslens")
WEIGHTS = "trained.safetensors"  # of a checkpoint: what is trained, and nothing else
STATE = "trainer_state.json"
STEPPED = ("optimizer.pt", "scheduler.pt")
COMPLETE = "complete.json"  # a checkpoint has it once all else of it is written
BEFORE = "before.json"  # what the dev data said of the base
EVENTS = "events"
LOGGED = 1000  # points of the curve that are kept, at least
MEASURE = "eval_measure"
# What is kept of each point of the curve, and its name there.
CURVE = {"loss": "loss", "learning_rate": "rate", "reward": "reward", "reward_std": "spread", "kl": "kl"}


@dataclass(frozen=True)
class Checkpoint:
    """A whole checkpoint: where it is, of which step, and after how many seconds of training."""

    path: Path
    step: int
    seconds: float


class TrainingLoop:
    """What a trainer of transformers does here, whatever it trains; to be put before its class.

    Checkpoints hold those weights of `model` alone that take gradients, and are finite. The rate rises and falls with
    the steps, or with the time where that is over earlier. `measure`, where there is one, gives a number of the model
    as it is, by which the best checkpoint is chosen. `InputError` where a gradient or weight is not finite.
    """

    model: Any
    args: Any
    state: Any
    control: Any
    optimizer: Any
    lr_scheduler: Any
    accelerator: Any
    callback_handler: Any
    recipe: Recipe
    clock: Clock
    weights: int  # that are trained
    measure: Callable[[], float] | None = None

    def follow(self: Any, recipe: Recipe, measure: Callable[[], float] | None) -> None:
        """Take what the recipe says, once the trainer is made; curves go to TensorBoard where it is installed."""
        if self.args.n_gpu > 1:  # between which its trainer would split each batch; training takes the first
            self.args._n_gpu = 1  # noqa: SLF001 - as transformers' own trainer does where a model is spread
            self._train_batch_size = self.args.train_batch_size
        self.recipe, self.measure = recipe, measure
        self.clock = Clock(recipe.minutes)
        self.weights = sum(each.numel() for each in list_trained(self.model).values())
        self.remove_callback(PrinterCallback)  # which prints on stdout
        self.add_callback(self.clock)
        if measure is not None:
            self.add_callback(transformers.EarlyStoppingCallback(recipe.patience))
        if find_spec("tensorboard") and self.is_world_process_zero():
            from torch.utils.tensorboard import SummaryWriter
            from transformers.integrations import TensorBoardCallback

            self.add_callback(TensorBoardCallback(SummaryWriter(str(Path(self.args.output_dir, EVENTS)))))

    def run(self: Any, progress: Progress) -> None:
        """Train, from the last checkpoint where there is one; progress counts steps.

        With a `measure` the weights are then the best ones that were seen. What stops it says in a note what is kept.
        """
        folder, last = Path(self.args.output_dir), self.args.max_steps
        begun = find_checkpoint(folder)
        shown = progress if self.is_world_process_zero() else show_nothing
        with keep_quiet(), shown("training", last) as watcher:
            try:
                if self.measure is not None and agree(not (folder / BEFORE).exists()):
                    before = self.measure_now()
                    if self.is_world_process_zero():
                        write_json(folder / BEFORE, before)
                self.clock.start(begun.seconds if begun else 0.0, watcher)
                if begun is None:
                    self.train()
                    return
                self.state = read_state(begun.path)
                if begun.step < last and self.clock.share < 1 and not has_lost_patience(self.state, self.recipe):
                    self.train(resume_from_checkpoint=str(begun.path))
                    return
                self.clock.stop()
                load_trained(self.model, begun.path)
                if self.measure is not None:
                    self._load_best_model()
            except BaseException as error:
                if kept := find_checkpoint(folder):
                    note_kept(error, f"the weights of step {kept.step}, in {folder}")
                raise

    def done(self, step: int) -> float:
        """The share of the training that is over at a step, by steps or by time, above 0."""
        return max((step + 1) / (self.args.max_steps + 1), self.clock.share)

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """The rate by the recipe."""
        if self.lr_scheduler is None:

            def scale(step: int) -> float:
                return scale_rate(self.done(step), self.recipe)

            self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer or self.optimizer, scale)
            self._created_lr_scheduler = True
        return self.lr_scheduler

    def measure_now(self: Any) -> float:
        """The measure of the model as it is, without dropout; the main process's is the one that counts."""
        training = self.model.training
        self.model.eval()
        try:
            return agree(float(self.measure()))
        finally:
            self.model.train(training)

    def evaluate(self: Any, *_: Any, **__: Any) -> dict[str, float]:
        """The measure, as transformers' loop has it."""
        found = {MEASURE: self.measure_now()}
        self.log(dict(found))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, found)
        return found

    def describe(self) -> dict[str, Any]:
        """How the training went, for its card."""
        steps, seconds = int(self.state.global_step), self.clock.seconds
        return {
            "steps": steps,
            "planned": self.args.max_steps,
            "trained_weights": self.weights,
            "seconds": round(seconds, 3),
            "examples_per_second": round(steps * self.recipe.batch / max(seconds, 1e-9), 3),
            "curve": read_curve(self.state.log_history),
        }

    def describe_checks(self) -> dict[str, Any]:
        """What the dev data said: of the base, and of each checkpoint; the first of the best is the result."""
        checks = [{"step": each["step"], "value": each[MEASURE]} for each in self.state.log_history if MEASURE in each]
        best = max(checks, key=lambda each: (each["value"], -each["step"]))
        before = read_json(Path(self.args.output_dir, BEFORE))
        return {"base": before, "best": best["value"], "best_step": best["step"], "checks": checks}

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        folder = Path(output_dir or self.args.output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        held = {name: each.detach().cpu().contiguous() for name, each in list_trained(self.model).items()}
        if broken := next((name for name, each in held.items() if not torch.isfinite(each).all()), None):
            raise refuse_infinite(f"the weights {broken} are", self.state.global_step)
        save_file(held, folder / WEIGHTS)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        load_trained(self.model, Path(resume_from_checkpoint))

    def _load_optimizer_and_scheduler(self: Any, checkpoint: str | None) -> None:
        with refuse_damaged(Path(checkpoint or "")):
            if checkpoint:  # transformers begins these again where they are not there
                _ = [Path(checkpoint, name).stat() for name in STEPPED]
            super()._load_optimizer_and_scheduler(checkpoint)  # type: ignore[misc]

    def _load_rng_state(self: Any, checkpoint: str | None) -> None:
        with refuse_damaged(Path(checkpoint or "")):
            super()._load_rng_state(checkpoint)  # type: ignore[misc]

    def _load_best_model(self) -> None:
        if self.state.best_model_checkpoint:
            load_trained(self.model, Path(self.state.best_model_checkpoint))


class Clock(transformers.TrainerCallback):
    """What happens between steps: progress, the end of the time, and marks of checkpoints that are whole.

    `seconds` are those of all sessions. `share` is how much of the time is over, from 0, as the main process saw it
    after the last step; 0 where there is no bound. `InputError` before a step whose gradients are not finite is taken.
    """

    def __init__(self, minutes: float | None) -> None:
        self.minutes = minutes
        self.start(0.0, lambda done: None)

    def start(self, spent: float, watcher: Watcher) -> None:
        """Go on from so many seconds, and tell the watcher from now on how many steps are done."""
        self.began, self.watcher = time.monotonic() - spent, watcher
        self.stopped: float | None = None
        self.share = self._find_share(spent)

    def stop(self) -> None:
        """Count no more seconds."""
        self.stopped = time.monotonic()

    @property
    def seconds(self) -> float:
        """How long all sessions have trained."""
        return (time.monotonic() if self.stopped is None else self.stopped) - self.began

    def _find_share(self, seconds: float) -> float:
        return seconds / (60 * self.minutes) if self.minutes else 0.0

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        if args.fp16:
            return  # its scaler leaves such steps out
        sums = [each.grad.sum().float() for each in more["model"].parameters() if each.grad is not None]
        if sums and not torch.isfinite(torch.stack(sums)).all():
            raise refuse_infinite("a gradient is", state.global_step + 1)

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        if self.minutes:
            self.share = agree(self._find_share(self.seconds))

    def on_step_end(self, args: Any, state: Any, control: Any, **more: Any) -> Any:
        self.watcher(state.global_step)
        if self.share >= 1 or state.global_step >= args.max_steps:
            control.should_training_stop = control.should_save = True
            control.should_evaluate = args.eval_strategy != "no"
        return control

    def on_save(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        wait_for_all()  # each has a part of a checkpoint to write
        if state.is_world_process_zero:
            write_json(Path(args.output_dir, f"checkpoint-{state.global_step}", COMPLETE), {"seconds": self.seconds})

    def on_train_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        self.stop()


def plan_arguments(
    recipe: Recipe, folder: Path, device: torch.device, total: int, watched: bool, **more: Any
) -> dict[str, Any]:
    """What transformers' trainers are told, for `total` steps; `watched` where there is a measure; `more` wins."""
    check = recipe.check or max(total // 10, 1)
    watching = {
        "eval_strategy": "steps", "eval_steps": check, "load_best_model_at_end": True,
        "metric_for_best_model": MEASURE, "greater_is_better": True,
    }  # fmt: skip
    return {
        "output_dir": str(folder),
        "max_steps": total,
        "learning_rate": recipe.learning_rate,
        "weight_decay": recipe.weight_decay,
        "max_grad_norm": recipe.clip,
        "logging_steps": max(total // LOGGED, 1),
        "logging_first_step": True,
        "logging_nan_inf_filter": False,
        "save_strategy": "steps",
        "save_steps": check,
        "save_total_limit": 2,
        "restore_callback_states_from_checkpoint": True,
        "seed": recipe.seed,
        "data_seed": recipe.seed,
        "use_cpu": device.type == "cpu",
        "report_to": "none",
        "disable_tqdm": True,
        "remove_unused_columns": False,
        **(watching if watched else {}),
        **more,
    }


def scale_rate(share: float, recipe: Recipe) -> float:
    """The factor of the learning rate when this share of the training is over."""
    if share < recipe.warmup:
        return share / recipe.warmup
    left = max(1 - share, 0.0) / (1 - recipe.warmup)
    if recipe.schedule == "cosine":
        return (1 - math.cos(math.pi * left)) / 2
    return left if recipe.schedule == "linear" else 1.0


def fit_memory(work: Callable[[], T], halve: Callable[[], str]) -> T:
    """What `work` gives; where memory runs out it is begun again, after `halve` has seen to it that it takes less.

    `halve` says how much goes through the model at once from then on, and raises where it cannot be less.
    """
    while True:
        try:
            return work()
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        # Outside of the except block, whose frames hold what filled the memory.
        left = halve()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        log.warning("out of memory: going on with %s at once, and the same batch", left)


def list_trained(model: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    """The parameters that take gradients, each once."""
    return {name: each for name, each in model.named_parameters() if each.requires_grad}


def load_trained(model: torch.nn.Module, checkpoint: Path) -> None:
    """Put what a checkpoint holds into a model; `InputError` where it is of another one."""
    with refuse_damaged(checkpoint):
        held = load_file(checkpoint / WEIGHTS)
    own = list_trained(model)
    if held.keys() != own.keys():
        raise InputError(f"{checkpoint} is of another model or other settings: remove it, to begin again")
    with torch.no_grad():
        for name, each in own.items():
            each.copy_(held[name])


def find_checkpoint(folder: Path) -> Checkpoint | None:
    """The last checkpoint that is whole; those that a kill left unfinished are removed."""
    found = [(path.name.removeprefix("checkpoint-"), path) for path in folder.glob("checkpoint-*")]
    paths = {int(step): path for step, path in found if step.isdecimal()}
    for step, path in sorted(paths.items(), reverse=True):
        try:
            return Checkpoint(path, step, float(read_json(path / COMPLETE)["seconds"]))
        except (InputError, KeyError, TypeError, ValueError):
            shutil.rmtree(path, ignore_errors=True)
    return None


@contextmanager
def refuse_damaged(checkpoint: Path) -> Iterator[None]:
    """`InputError` for what libraries raise where a file of a checkpoint is not what was written."""
    try:
        yield
    except InputError:
        raise
    except (SafetensorError, OSError, EOFError, ValueError, LookupError, TypeError, RuntimeError, PickleError) as error:
        if is_out_of_memory(error):
            raise
        raise InputError(
            f"{checkpoint} is damaged ({first_line(error, 100)}): remove it, and the same call goes on from the one "
            f"before"
        ) from None


def read_state(checkpoint: Path) -> transformers.TrainerState:
    """What a trainer noted in a checkpoint; the best one is beside it, wherever that was when it was written."""
    with refuse_damaged(checkpoint):
        state = transformers.TrainerState.load_from_json(str(checkpoint / STATE))
        if state.best_model_checkpoint:
            best = str(checkpoint.with_name(Path(state.best_model_checkpoint).name))
            if best != state.best_model_checkpoint:
                state.best_model_checkpoint = best
                write_json(checkpoint / STATE, {**read_json(checkpoint / STATE), "best_model_checkpoint": best})
    return state


def has_lost_patience(state: transformers.TrainerState, recipe: Recipe) -> bool:
    """Whether training had been stopped because the measure rose no more."""
    kept = state.stateful_callbacks.get(transformers.EarlyStoppingCallback.__name__)
    held = kept[0] if isinstance(kept, list) else kept
    return held is not None and held["attributes"]["early_stopping_patience_counter"] >= recipe.patience


def refuse_infinite(what: str, step: int) -> InputError:
    """The error of a training that has lost its numbers."""
    return InputError(f"{what} not finite at step {step}: lower the learning_rate")


def read_curve(history: Sequence[Mapping[str, Any]]) -> list[dict[str, float]]:
    """Of a trainer's history the points of the curve: the step, and what is known of it that is finite."""
    points: dict[int, dict[str, float]] = {}
    for each in history:
        values = {name: each[key] for key, name in CURVE.items() if isinstance(each.get(key), int | float)}
        values |= {key: value for key, value in each.items() if key.startswith("rewards/")}
        if "loss" in values:
            points[int(each["step"])] = {"step": each["step"], **values}
    return [
        {key: value for key, value in point.items() if isinstance(value, int | float) and math.isfinite(value)}
        for _, point in sorted(points.items())
    ]


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
