"""How long a training takes to open its examples, how much memory that takes, and how long batches take then."""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from crosslens.items import Item
from crosslens.training.data.examples import Example, load_examples, write_examples
from crosslens.training.data.stored import StoredExamples
from crosslens.training.encoder.batches import Batches, Material
from crosslens.training.recipe import EncoderRecipe
from crosslens.training.session import measure_memory
from measurements import Table, save

KINDS = ("encoder", "ranker")
QUERY, DOCUMENT, NEGATIVES = 50, 600, 3  # characters, and documents beside the positive
BATCHES = 200  # that are timed


def measure_opening(options: argparse.Namespace) -> dict[str, Any]:
    """Made-up examples opened as both trainings do, each in a process of its own; what `--json` prints."""
    program = str(Path(__file__).with_name("training.py"))
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder, "examples.jsonl")
        write_examples(data, make_examples(options.examples, options.documents), {"made": "training_memory.py"})
        for kind in KINDS:
            command = [
                sys.executable,
                program,
                "memory",
                f"--open={kind}",
                f"--data={data}",
                f"--batch={options.batch}",
            ]
            done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
            found[kind] = dict(json.loads(done.stdout.splitlines()[-1]))
    rows = [
        [
            kind, f"{each['seconds']:.0f}", f"{each['cpu_seconds']:.0f}", f"{each['rise'] / 1e6:.0f}",
            f"{each['rise'] / options.examples:.0f}", f"{each['batch_seconds'] * 1e3:.1f}",
        ]
        for kind, each in found.items()
    ]  # fmt: skip
    columns = ["training", "seconds to open", "CPU seconds", "MB at the peak", "bytes an example", "ms a batch"]
    table = Table(columns, rows)
    print(table.markdown(), file=sys.stderr)
    note = (
        f"{options.examples:,} examples of a query of {QUERY} characters and {1 + NEGATIVES} of {options.documents:,} "
        f"documents of {DOCUMENT}; memory is what came to that of the modules, CPU time that of a batch of "
        f"{options.batch} examples, their texts read from the file."
    )
    figures = {"settings": {key: getattr(options, key) for key in ("examples", "documents", "batch")}, "opened": found}
    save(options.save, figures, [table], [note])
    return figures


def open_examples(options: argparse.Namespace) -> dict[str, Any]:
    """One kind of training opens a file, and draws batches."""
    cpu, before = torch.device("cpu"), measure_memory(torch.device("cpu"))
    began, spent = time.monotonic(), time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        examples, recipe = load_examples(options.data), EncoderRecipe(batch=options.batch, negatives=NEGATIVES)
        if options.open == "encoder":
            material = Material(Path(folder))
            own = material.add(examples)
            material.finish()
            draw = Batches(material, own, range(0), recipe, BATCHES + 1).__getitem__
        else:
            stored = StoredExamples(examples, Path(folder))
            order = np.random.default_rng(0).integers(len(stored), size=(BATCHES + 1, options.batch)).tolist()
            draw = lambda step: [stored[each] for each in order[step]]  # noqa: E731
        draw(0)  # the order of an epoch is drawn with its first batch
        opened, opened_cpu = time.monotonic() - began, time.process_time() - spent
        spent = time.process_time()
        for step in range(BATCHES):
            draw(step + 1)
        spent = time.process_time() - spent
    return {
        "seconds": opened,
        "cpu_seconds": opened_cpu,
        "rise": measure_memory(cpu) - before,
        "batch_seconds": spent / BATCHES,
    }


def make_examples(count: int, documents: int) -> Iterator[Example]:
    """Examples of texts that are different, drawn by lot, and the same each time."""
    lots = np.random.default_rng(0)
    for number in range(count):
        drawn = dict.fromkeys(lots.integers(documents, size=1 + NEGATIVES).tolist())
        answer, *others = (Item(f"d{each}", write_text(f"d{each}", DOCUMENT), lang="eng") for each in drawn)
        yield Example(Item(f"q{number}", write_text(f"q{number}", QUERY), lang="eng"), (answer,), tuple(others))


def write_text(name: str, characters: int) -> str:
    return hashlib.shake_256(name.encode()).hexdigest(characters // 2)
