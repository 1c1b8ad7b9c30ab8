"""`backend=auto`: whether torch or OpenVINO computes a text encoder's states sooner here, measured once and kept."""

from __future__ import annotations

import logging
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from time import perf_counter

import torch

from ..checkpoints.device_names import name_processor
from ..checkpoints.devices import TextPrecision, name_dtype, resolve_dtype
from ..checkpoints.open import OpenModel, open_text_model
from ..checkpoints.openvino import HINTS
from ..checkpoints.source import Source
from ..errors import InputError
from .measured import Measured, describe_run

log = logging.getLogger("crosslens")

TEXTS, TOKENS = 8, 64  # of the batch that is measured
ROUNDS = 5  # after one that warms them up
GAIN = 0.9  # of torch's time: for less OpenVINO is not taken


@dataclass(frozen=True, kw_only=True)
class FasterBackend(Measured):
    """What was found: the name of the backend that is taken, and the tokens a second of each."""

    backend: str
    tokens_per_second: Mapping[str, int]

    def check(self) -> None:
        if self.tokens_per_second[self.backend] <= 0:
            raise ValueError

    def __str__(self) -> str:
        rates = ", ".join(f"{name} {rate:,} tokens/s" for name, rate in self.tokens_per_second.items())
        return f"{self.about['encoder']} in {self.about['dtype']}, backend=auto: {self.backend} ({rates})"


def open_fastest(source: Source, precision: TextPrecision, device: torch.device) -> OpenModel:
    """A text encoder by the backend that is the fastest here; by torch where OpenVINO is not there, or cannot be taken.

    The first time that a checkpoint is loaded on a machine both are loaded and compute a few batches in turn.
    `InputError` as `open_text_model` has it.
    """
    dtype = resolve_dtype(precision, device)
    if device.type != "cpu" or dtype not in HINTS or find_spec("openvino") is None:
        return open_text_model(source, precision, device)
    name = Path(source.checkpoint).name if source.is_local else source.checkpoint
    model = {"encoder": name, "weights": source.identify_weights(source.load_config()), "dtype": name_dtype(dtype)}
    about = describe_run(name_processor(), torch.get_num_threads(), **model, backend="auto")
    kept = FasterBackend.read(about)
    if kept and kept.backend == "torch":
        return open_text_model(source, precision, device)
    try:
        other = open_text_model(source, precision, device, "openvino")
    except InputError as error:
        log.warning("%s: backend=auto takes torch: %s", source, error)
        return open_text_model(source, precision, device)
    if kept:
        return other
    opened = {"torch": open_text_model(source, precision, device), "openvino": other}
    spent = time_batches(opened)
    faster = statistics.median(ours / torchs for ours, torchs in zip(*reversed(spent.values()), strict=True)) <= GAIN
    rates = {name: round(TEXTS * TOKENS / statistics.median(each)) for name, each in spent.items()}
    choice = FasterBackend(about=about, backend="openvino" if faster else "torch", tokens_per_second=rates)
    choice.keep()
    log.info("%s", choice)
    return opened[choice.backend]


@torch.inference_mode()
def time_batches(opened: Mapping[str, OpenModel]) -> dict[str, list[float]]:
    """The seconds that each took for the same batch, in turn."""
    spent: dict[str, list[float]] = {name: [] for name in opened}
    for number in range(ROUNDS + 1):
        for name, each in opened.items():
            tokens = min(TOKENS, each.find_longest_input())
            ids = (torch.arange(TEXTS * tokens).view(TEXTS, tokens) + 7) % each.config.vocab_size
            started = perf_counter()
            each.model(input_ids=ids, attention_mask=torch.ones_like(ids))
            if number:
                spent[name].append(perf_counter() - started)
    return spent
