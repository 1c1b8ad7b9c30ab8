"""How many examples a second `train encoder` learns from, against sentence-transformers' trainer; and attention's part."""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import fmean, median
from typing import Any

import numpy as np
from crosslens.errors import InputError
from crosslens.training.data.examples import Example, load_examples, write_examples
from crosslens.training.encoder.train import train_encoder
from crosslens.training.recipe import EncoderRecipe
from measurements import Table, save, show_settings

PEER = "sentence-transformers"
RATE = 2e-5
DROPOUT = 0.1  # as in the checkpoint, which sentence-transformers leaves on


def measure_speed(options: argparse.Namespace) -> dict[str, Any]:
    """The ways in turn, each in a process of its own and with a seed for each round; what `--json` prints."""
    found: dict[str, list[dict[str, Any]]] = {way: [] for way in WAYS}
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder, "pairs.jsonl")
        write_pairs(options, data)
        for turn in range(options.rounds):
            for way in list(WAYS)[:: 1 if turn % 2 == 0 else -1]:
                print(f"round {turn + 1}, {way}", file=sys.stderr, flush=True)
                found[way].append(run_apart(way, data, turn, options))
    report = {way: sum_up(rounds) for way, rounds in found.items()}
    plain = report[PEER]["examples_per_second"]
    rows = [
        [
            way, f"{each['examples_per_second']:.2f}", f"{each['examples_per_second'] / plain:.2f}",
            f"{each['cpu_per_example']:.2f}", f"{each['peak_gib']:.1f}", *each["losses"],
        ]
        for way, each in report.items()
    ]  # fmt: skip
    speed = ["trainer", "examples a second", "times", "CPU s an example", "GiB"]
    table = Table([*speed, "loss, first quarter of the steps", "second", "third", "last"], rows)
    print(table.markdown(), file=sys.stderr)
    note = (
        f"{options.base}, {options.steps} steps of {options.batch} pairs, {options.rounds} rounds in turn; losses are means "
        "over the rounds, with the least and the most of a round."
    )
    figures = {"settings": show_settings(options), "ways": report, "rounds": found}
    save(options.save, figures, [table], [note])
    if options.plot:
        plot_losses(found, options.plot)
    return figures


def measure_attention(options: argparse.Namespace) -> dict[str, Any]:
    """Tokens a second, there and back, by PyTorch's fused attention and by whole matrices, for texts of each length."""
    import torch
    from crosslens.training.encoder.trainable import open_base

    report: dict[str, dict[str, float]] = {}
    for length in options.lengths:
        ids = [[5] * length] * max(1, options.tokens // length)
        for way in ("fused", "matrices"):
            trainable = open_base(options.base, EncoderRecipe(), device="cpu").trainable
            trainable.encoder.model.set_attn_implementation("eager" if way == "matrices" else "sdpa")
            seconds = []
            for _ in range(options.rounds + 1):  # the first is to warm up
                began = time.monotonic()
                with torch.autocast("cpu", torch.bfloat16):
                    rows = trainable.represent(ids)
                rows.float().sum().backward()
                seconds.append(time.monotonic() - began)
            report.setdefault(str(length), {})[way] = len(ids) * length / min(seconds[1:])
    rows = [
        [length, f"{found['fused']:.0f}", f"{found['matrices']:.0f}", f"{found['matrices'] / found['fused']:.2f}"]
        for length, found in report.items()
    ]
    table = Table(["tokens a text", "fused, tokens a second", "matrices", "times"], rows)
    print(table.markdown(), file=sys.stderr)
    figures = {"settings": show_settings(options), "tokens_per_second": report}
    save(
        options.save, figures, [table], [f"{options.base}, forward and backward in bfloat16, best of {options.rounds}."]
    )
    return figures


def write_pairs(options: argparse.Namespace, path: Path) -> None:
    """As many pairs as the steps take, each text in one of them alone: no pair is a false negative of another."""
    wanted, seen = options.steps * options.batch, set[str]()
    pairs = []
    for example in load_examples(options.data):
        texts = {example.query.text or "", example.positives[0].text or ""}
        if not texts & seen:
            seen |= texts
            pairs.append(Example(example.query, example.positives[:1]))
        if len(pairs) == wanted:
            write_examples(path, pairs, {"of": str(options.data)})
            return
    raise InputError(f"{options.data} has {len(pairs)} pairs of different texts, and {wanted} are needed")


def run_apart(way: str, data: Path, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    settings = [
        f"--{key}={getattr(options, key)}" for key in ("base", "batch", "steps", "temperature", "device", "lora")
    ]
    program = str(Path(__file__).with_name("training.py"))
    done = subprocess.run(
        [sys.executable, program, "speed", str(data), f"--way={way}", f"--seed={seed}", *settings], stdout=subprocess.PIPE, check=True,
        text=True,
    )  # fmt: skip
    return dict(json.loads(done.stdout.splitlines()[-1]))


def sum_up(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """The medians of the rounds, and the losses of each quarter of the steps as the table shows them."""
    quarters = [[fmean(part) for part in np.array_split(each["losses"], 4)] for each in rounds]
    return {
        **{key: median(each[key] for each in rounds) for key in ("examples_per_second", "cpu_per_example", "peak_gib")},
        "losses": [f"{fmean(of):.3f} ({min(of):.3f} to {max(of):.3f})" for of in zip(*quarters, strict=True)],
    }


def plot_losses(found: dict[str, list[dict[str, Any]]], path: Path) -> None:
    """The loss of each step, the mean over the rounds and over the last four steps."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 3.2), layout="constrained")
    for way, rounds in found.items():
        losses = np.mean([each["losses"] for each in rounds], axis=0)
        smooth = np.convolve(losses, np.ones(4) / 4, "valid")
        axes.plot(np.arange(4, len(losses) + 1), smooth, label=way, linestyle="--" if PEER in way else "-")
    axes.set(xlabel="step", ylabel="loss")
    axes.legend(frameon=False)
    figure.savefig(path, dpi=150)


def run_ours(options: argparse.Namespace, dropout: float = 0.0) -> dict[str, Any]:
    recipe = EncoderRecipe(
        batch=options.batch, steps=options.steps, learning_rate=RATE, temperature=options.temperature,
        check=options.steps, weight_decay=0.0, dropout=dropout, seed=options.seed, lora=options.lora,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        spent = time.process_time()
        made = train_encoder(options.data, options.base, Path(folder, "made"), recipe, device=options.device)
        spent = time.process_time() - spent
    losses = [each["loss"] for each in made.card["curve"]]
    return describe(made.card["seconds"], spent, losses, options)


def run_plain(options: argparse.Namespace, dropout: float | None = None) -> dict[str, Any]:
    import torch
    from crosslens.checkpoints.offline.packages import make_checkpoint
    from crosslens.encoders.registry import load_encoder
    from crosslens.specs import Spec
    from datasets import Dataset
    from sentence_transformers import (
        SentenceTransformer,
        SentenceTransformerTrainer,
        SentenceTransformerTrainingArguments,
    )
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

    spec = Spec.parse(options.base)
    folder = str(make_checkpoint(spec.checkpoint)) if spec.family == "offline" else spec.checkpoint
    model = SentenceTransformer(folder, device=options.device, model_kwargs={"dtype": torch.float32})
    if options.lora:
        from peft import LoraConfig, inject_adapter_in_model

        adapters = LoraConfig(r=options.lora, lora_alpha=32, lora_dropout=0.0, target_modules="all-linear")
        inject_adapter_in_model(adapters, model.transformers_model)
    for module in model.modules():
        if dropout is not None and isinstance(module, torch.nn.Dropout):
            module.p = dropout
    prompts = load_encoder(options.base, device="cpu").spec
    pairs = list(load_examples(options.data))
    text = lambda item: item.text or ""  # noqa: E731
    data = Dataset.from_dict(
        {"anchor": [text(each.query) for each in pairs], "positive": [text(each.positives[0]) for each in pairs]}
    )
    with tempfile.TemporaryDirectory() as folder:
        arguments = SentenceTransformerTrainingArguments(
            output_dir=folder, per_device_train_batch_size=options.batch, max_steps=options.steps, learning_rate=RATE,
            warmup_steps=0.1, logging_steps=1, save_strategy="no", report_to=[], use_cpu=options.device == "cpu",
            bf16=options.device != "cpu", disable_tqdm=True, seed=options.seed,
            prompts={"anchor": prompts.query_prompt, "positive": prompts.document_prompt},
        )  # fmt: skip
        loss = MultipleNegativesRankingLoss(model, scale=1 / options.temperature)
        trainer = SentenceTransformerTrainer(model=model, args=arguments, train_dataset=data, loss=loss)
        spent = time.process_time()
        done = trainer.train()
        spent = time.process_time() - spent
    losses = [each["loss"] for each in trainer.state.log_history if "loss" in each]
    return describe(done.metrics["train_runtime"], spent, losses, options)


def describe(seconds: float, spent: float, losses: list[float], options: argparse.Namespace) -> dict[str, Any]:
    examples = options.steps * options.batch
    return {
        "examples_per_second": examples / seconds,
        "cpu_per_example": spent / examples,
        "peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        "losses": losses,
        "threads": os.environ.get("OMP_NUM_THREADS"),
    }


WAYS: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    PEER: run_plain,
    "ours": run_ours,
    f"{PEER}, no dropout": partial(run_plain, dropout=0.0),
    "ours, dropout": partial(run_ours, dropout=DROPOUT),
}
