"""The training loop of encoders: transformers' `Trainer` over our batches, losses and micro-batches."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers
from torch.utils.data import DataLoader

from ...checkpoints.devices import choose_token_budget, resolve_dtype
from ...errors import InputError
from ..attention import choose_attention
from ..loop import TrainingLoop, fit_memory, list_trained, plan_arguments, refuse_infinite
from ..processes import find_rank, gather, sum_gradients
from ..recipe import EncoderRecipe
from .anchors import Anchor
from .batches import Batches, TrainingBatch
from .dev import Dev
from .gradients import TokenLimits, backpropagate
from .losses import compute_loss
from .trainable import Trainable

MICRO = 4  # times the tokens that encoding takes at once
RISE = 1 / 3  # of the training, in which what weights of terms cost rises by the square (Formal et al. 2021)
SHARE = {"cpu": 0.2, "cuda": 0.5, "mps": 0.3}  # of the memory that is free, for states that are kept


class EncoderTrainer(TrainingLoop, transformers.Trainer):
    """Trains the weights of a `Trainable`; several processes take the same steps as one would.

    Each has all batches, and represents its share of their texts (`backpropagate`); gradients are summed.
    """

    recipe: EncoderRecipe

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
        self.trainable, self.batches, self.dev, self.anchor = trainable, batches, dev, anchor
        self.where = device
        self.precision = resolve_dtype("auto", device)
        if self.precision == torch.float16:  # whose small gradients would be lost: nothing scales them here
            self.precision = torch.float32
        self.memory = choose_memory(trainable, recipe, device)
        arguments = plan_arguments(recipe, folder, device, len(batches), dev is not None)
        super().__init__(
            model=trainable.network,
            args=transformers.TrainingArguments(**arguments),
            train_dataset=batches,
            eval_dataset=[] if dev else None,
        )
        if number := find_rank()[0]:
            torch.manual_seed(recipe.seed + number)  # else all would drop the same states
        self.follow(recipe, self.measure_dev if dev else None)

    def create_accelerator_and_postprocess(self: Any) -> None:
        """As it is, but that no DistributedDataParallel is put around the model, whose own forward nobody calls."""
        super().create_accelerator_and_postprocess()
        self.accelerator.prepare_model = partial(self.accelerator.prepare_model, evaluation_mode=True)

    def get_train_dataloader(self) -> DataLoader[TrainingBatch]:
        """The batches in their order, in each process all of them."""
        return DataLoader(self.batches, batch_size=1, shuffle=False, collate_fn=lambda made: {"batch": made[0]})

    def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> torch.Tensor:
        """Gradients of one batch; with less memory where that runs out. `InputError` where its loss is not finite."""
        loss = self.learn(inputs["batch"])
        self.anchor.pull()
        if not math.isfinite(loss):
            raise refuse_infinite("the loss is", self.state.global_step + 1)
        return torch.tensor(loss, device=self.where)

    def learn(self, batch: TrainingBatch) -> float:
        """Set the gradients of one batch, and give its loss."""
        prepared = self.trainable.prepare(batch.queries, "query", self.recipe.query_tokens)
        count = len(prepared)
        prepared += self.trainable.prepare(batch.documents, "document", self.recipe.document_tokens)
        costs = [self.trainable.encoder.count_tokens(each) for each in prepared]
        there = move_batch(batch, self.where)
        risen = min(1.0, self.done(self.state.global_step) / RISE) ** 2

        def compute(rows: list[torch.Tensor]) -> torch.Tensor:
            ways = list(self.trainable.score(rows[:count], rows[count:]))
            scale = self.trainable.scale
            total = torch.stack([compute_loss(way, there, self.recipe, scale) for way in ways]).mean()
            return total + risen * self.trainable.penalise(rows[:count], rows[count:])

        def halve() -> str:
            if self.memory.micro < max(costs):
                raise InputError(
                    f"a single text of {max(costs)} tokens does not fit into memory: lower document_tokens, or train "
                    f"fewer weights (lora, freeze)"
                )
            self.memory.halve()
            self.trainable.network.zero_grad()
            return f"{self.memory.micro} tokens"

        loss = fit_memory(lambda: backpropagate(self.represent, prepared, costs, compute, self.memory), halve)
        sum_gradients(list(list_trained(self.trainable.network).values()))
        return loss

    def represent(self, inputs: Any) -> torch.Tensor:
        """`Trainable.represent` in the precision that the hardware is quick in; weights stay as they are."""
        with torch.autocast(self.where.type, self.precision, enabled=self.precision != torch.float32):
            return self.trainable.represent(inputs)

    def measure_dev(self) -> float:
        """The dev collection's measure of the model as it is."""
        assert self.dev is not None
        with torch.autocast(self.where.type, self.precision, enabled=self.precision != torch.float32):
            return self.dev.measure_encoder(self.trainable.encoder)


def move_batch(batch: TrainingBatch, device: torch.device) -> TrainingBatch:
    """The batch with its tensors on a device."""
    tensors: dict[str, Any] = {
        name: each.to(device) for name, each in vars(batch).items() if isinstance(each, torch.Tensor)
    }
    return replace(batch, **tensors)


def choose_memory(trainable: Trainable, recipe: EncoderRecipe, device: torch.device) -> TokenLimits:
    """How much goes through the model at once, in all processes the same, and how many tokens' states are kept."""
    micro = min(gather(recipe.micro_tokens or MICRO * choose_token_budget(device)))
    longest = recipe.document_tokens or trainable.encoder.spec.max_tokens
    more = choose_attention(trainable.encoder.model, device, max(longest, recipe.query_tokens or 0))
    if device.type == "cuda":
        free = torch.cuda.mem_get_info(device)[0]
    else:
        import psutil

        free = psutil.virtual_memory().available // find_rank()[1]
    return TokenLimits(micro, int(SHARE[device.type] * free / (trainable.state_bytes + more)))
