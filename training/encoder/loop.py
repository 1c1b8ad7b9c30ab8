"""The training loop: transformers' `Trainer` over our batches, losses and micro-batches."""

from __future__ import annotations

import logging
import math
import shutil
import time
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_file, save_file
from torch.utils.data import DataLoader
from transformers.trainer_callback import ExportableState, PrinterCallback

from ...checkpoints.devices import choose_token_budget, is_out_of_memory, resolve_dtype
from ...errors import InputError, note_kept
from ...files import read_json
from ...pipeline import Progress, Watcher
from ..attention import choose_attention
from ..recipe import EncoderRecipe
from .anchors import Anchor
from .batches import Batches, TrainingBatch
from .dev import Dev
from .gradients import TokenLimits, backpropagate
from .losses import compute_loss
from .trainable import Trainable

log = logging.getLogger("crosslens")
WEIGHTS = "weights.safetensors"
STATE = "trainer_state.json"
LOGGED = 1000  # points of the curve that are kept
MICRO = 4  # times the tokens that encoding takes at once
STATES = 68  # bytes that a layer keeps of a token for each component of its state (Korthikanti et al. 2022, doubled)
SHARE = {"cpu": 0.2, "cuda": 0.5, "mps": 0.3}  # of the memory that is free, for states that are kept


class Clock(transformers.TrainerCallback, ExportableState):
    """The seconds that training has taken over all sessions; stops it when they are spent."""

    def __init__(self, minutes: float | None = None, spent: float = 0.0) -> None:
        self.minutes, self.spent = minutes, spent
        self._seen = time.monotonic()

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps of it."""
        return {"args": {"minutes": self.minutes, "spent": self.spent}, "attributes": {}}

    @property
    def share(self) -> float:
        """How much of the time is over, from 0; 0 where there is no bound."""
        return self.spent / (60 * self.minutes) if self.minutes else 0.0

    def on_train_begin(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        self._seen = time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, **more: Any) -> Any:
        now = time.monotonic()
        self.spent, self._seen = self.spent + now - self._seen, now
        if self.share >= 1 and not control.should_training_stop:
            control.should_training_stop = control.should_save = True
            control.should_evaluate = args.eval_strategy != "no"
        return control


class EncoderTrainer(transformers.Trainer):
    """Trains the weights of a `Trainable`; a checkpoint holds those alone that are trained."""

    lr_scheduler: Any
    control: Any

    def __init__(
        self,
        trainable: Trainable,
        batches: Batches,
        recipe: EncoderRecipe,
        folder: Path,
        *,
        device: torch.device,
        dev: Dev | None,
        anchor: Anchor,
    ) -> None:
        self.trainable, self.batches, self.recipe, self.dev, self.anchor = trainable, batches, recipe, dev, anchor
        self.where = device
        self.precision = resolve_dtype("auto", device)
        self.memory = choose_memory(trainable, recipe, device)
        self.tokens = self.seen = 0
        check = recipe.check or max(len(batches) // 10, 1)
        watched = {"eval_strategy": "steps", "eval_steps": check, "load_best_model_at_end": True} if dev else {}
        args = transformers.TrainingArguments(
            output_dir=str(folder),
            max_steps=len(batches),
            per_device_train_batch_size=recipe.batch,
            learning_rate=recipe.learning_rate,
            weight_decay=recipe.weight_decay,
            max_grad_norm=recipe.clip,
            logging_steps=max(len(batches) // LOGGED, 1),
            logging_nan_inf_filter=False,
            save_strategy="steps",
            save_steps=check,
            save_total_limit=2,
            metric_for_best_model="eval_measure" if dev else None,
            greater_is_better=True,
            restore_callback_states_from_checkpoint=True,
            seed=recipe.seed,
            use_cpu=device.type == "cpu",
            report_to="none",
            disable_tqdm=True,
            remove_unused_columns=False,
            **watched,
        )
        super().__init__(model=trainable.network, args=args, train_dataset=batches, eval_dataset=[] if dev else None)
        if self.accelerator.num_processes > 1:
            raise InputError("an encoder is trained by one process on one device: start it without torchrun")
        self.remove_callback(PrinterCallback)
        self.add_callback(Clock(recipe.minutes))
        if dev:
            self.add_callback(transformers.EarlyStoppingCallback(recipe.patience))
        if find_spec("tensorboard"):
            from torch.utils.tensorboard import SummaryWriter
            from transformers.integrations import TensorBoardCallback

            self.add_callback(TensorBoardCallback(SummaryWriter(str(folder / "events"))))

    def get_train_dataloader(self) -> DataLoader[TrainingBatch]:
        """The batches in their order."""
        return DataLoader(self.batches, batch_size=1, shuffle=False, collate_fn=lambda made: {"batch": made[0]})

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """The rate rises and falls with the steps, or with the time where that is over earlier."""
        if self.lr_scheduler is None:
            most, recipe = num_training_steps, self.recipe

            def scale(step: int) -> float:
                return scale_rate(max((step + 1) / (most + 1), self.clock.share), recipe)

            self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer or self.optimizer, scale)
            self._created_lr_scheduler = True
        return self.lr_scheduler

    def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> torch.Tensor:
        """Gradients of one batch; with less memory where that runs out. `InputError` where they are not finite."""
        batch: TrainingBatch = inputs["batch"]
        loss = self.learn(batch)
        self.anchor.pull()
        where = f"step {self.state.global_step + 1}"
        if not math.isfinite(loss):
            raise InputError(f"the loss is not finite at {where}: lower the learning_rate, or raise the temperature")
        for name, weights in self.trainable.network.named_parameters():
            if weights.grad is not None and not torch.isfinite(weights.grad.sum()):
                raise InputError(f"the gradient of {name} is not finite at {where}: lower the learning_rate")
        return torch.tensor(loss, device=self.where)

    def learn(self, batch: TrainingBatch) -> float:
        """Add the gradients of one batch, and give its loss."""
        prepared = self.trainable.prepare(batch.queries, "query", self.recipe.query_tokens)
        count = len(prepared)
        prepared += self.trainable.prepare(batch.documents, "document", self.recipe.document_tokens)
        costs = [self.trainable.encoder.count_tokens(each) for each in prepared]
        there = move_batch(batch, self.where)

        def compute(rows: list[torch.Tensor]) -> torch.Tensor:
            ways = list(self.trainable.score(rows[:count], rows[count:]))
            total = torch.stack([compute_loss(way, there, self.recipe) for way in ways]).mean()
            return total + self.trainable.penalise(rows[:count], rows[count:])

        while True:
            try:
                loss = backpropagate(self.represent, prepared, costs, compute, self.memory)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                if self.memory.micro < max(costs):
                    raise InputError(
                        f"a single text of {max(costs)} tokens does not fit into memory: lower document_tokens, or "
                        f"train fewer weights (lora, freeze)"
                    ) from None
            else:
                self.tokens += sum(costs)
                self.seen += len(batch.asked)
                return loss
            self.memory.halve()
            self.trainable.network.zero_grad()
            log.warning("out of memory: going on with %d tokens at once, and the same batch", self.memory.micro)

    def represent(self, inputs: Any) -> torch.Tensor:
        """`Trainable.represent` in the precision that the hardware is quick in; weights stay as they are."""
        with torch.autocast(self.where.type, self.precision, enabled=self.precision != torch.float32):
            return self.trainable.represent(inputs)

    def measure(self) -> float:
        """The dev collection's measure of the model as it is."""
        assert self.dev is not None
        with torch.autocast(self.where.type, self.precision, enabled=self.precision != torch.float32):
            self.trainable.network.eval()
            try:
                return self.dev.measure_encoder(self.trainable.encoder)
            finally:
                self.trainable.network.train(self.recipe.dropout > 0)

    def evaluate(self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval") -> Any:
        """The measure as transformers' loop has it."""
        metrics = {f"{metric_key_prefix}_measure": self.measure()}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        folder = Path(output_dir or self.args.output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        save_file({name: each.detach().contiguous() for name, each in self._trained()}, folder / WEIGHTS)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        saved = load_file(Path(resume_from_checkpoint, WEIGHTS))
        with torch.no_grad():
            for name, weights in self._trained():
                weights.copy_(saved[name])

    def _load_best_model(self) -> None:
        self._load_from_checkpoint(str(self.state.best_model_checkpoint))

    def _trained(self) -> list[tuple[str, torch.nn.Parameter]]:
        return [(name, each) for name, each in self.trainable.network.named_parameters() if each.requires_grad]

    def _load_callback_state(self) -> None:
        super()._load_callback_state()
        self.clock.minutes = self.recipe.minutes  # which this call may have given anew

    @property
    def clock(self) -> Clock:
        """The clock of this training; the loop puts another in its place when it goes on."""
        return next(each for each in self.callback_handler.callbacks if isinstance(each, Clock))

    def run(self, progress: Progress) -> None:
        """Train, from the last checkpoint where there is one; progress counts steps.

        What stops it says in a note what is kept.
        """
        folder = Path(self.args.output_dir)
        begun = find_last_checkpoint(folder)
        with progress("training", len(self.batches)) as watcher:
            self.add_callback(Steps(watcher))
            try:
                self.train(resume_from_checkpoint=str(begun) if begun else None)
            except BaseException as error:
                if last := find_last_checkpoint(folder):
                    note_kept(error, f"the weights of step {count_steps(last)}, in {folder}")
                raise


class Steps(transformers.TrainerCallback):
    """Tells a watcher how many steps are done."""

    def __init__(self, watcher: Watcher) -> None:
        self.watcher = watcher

    def on_step_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        self.watcher(state.global_step)


def find_last_checkpoint(folder: Path) -> Path | None:
    """The last checkpoint that is whole; those that a kill left unfinished are removed."""
    for path in sorted(folder.glob("checkpoint-*"), key=count_steps, reverse=True):
        try:
            # The state is what a checkpoint gets last.
            if read_json(path / STATE)["global_step"] == count_steps(path):
                return path
        except (InputError, KeyError, TypeError):
            shutil.rmtree(path, ignore_errors=True)
    return None


def count_steps(checkpoint: Path) -> int:
    """The number of steps that a checkpoint is of."""
    return int(checkpoint.name.rpartition("-")[2])


def move_batch(batch: TrainingBatch, device: torch.device) -> TrainingBatch:
    """The batch with its tensors on a device."""
    tensors: dict[str, Any] = {
        name: each.to(device) for name, each in vars(batch).items() if isinstance(each, torch.Tensor)
    }
    return replace(batch, **tensors)


def choose_memory(trainable: Trainable, recipe: EncoderRecipe, device: torch.device) -> TokenLimits:
    """How much goes through the model at once, and how many tokens' states are kept."""
    micro = recipe.micro_tokens or MICRO * choose_token_budget(device)
    opened = trainable.encoder.opened
    longest = recipe.document_tokens or trainable.encoder.spec.max_tokens
    more = choose_attention(opened.model, device, max(longest, recipe.query_tokens or 0))
    size = opened.config.num_hidden_layers * opened.config.hidden_size * STATES + trainable.state_bytes + more
    if device.type == "cuda":
        free = torch.cuda.mem_get_info(device)[0]
    else:
        import psutil

        free = psutil.virtual_memory().available
    return TokenLimits(micro, int(SHARE[device.type] * free / size))


def scale_rate(share: float, recipe: EncoderRecipe) -> float:
    """The factor of the learning rate when this share of the training is over."""
    if share < recipe.warmup:
        return share / recipe.warmup
    left = max(1 - share, 0.0) / (1 - recipe.warmup)
    if recipe.schedule == "cosine":
        return (1 - math.cos(math.pi * left)) / 2
    return left if recipe.schedule == "linear" else 1.0
