"""Two processes that train an encoder together, with what torchrun tells them, make what one makes."""

from __future__ import annotations

import os
import pickle
import socket
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from crosslens.training.card import Trained
from crosslens.training.data.examples import write_examples
from crosslens.training.encoder.gradients import deal_out
from crosslens.training.recipe import EncoderRecipe
from safetensors.torch import load_file
from stand_ins.children import Child

from .conftest import make_examples

TRAIN = """
import os, pickle, sys
from contextlib import contextmanager
from pathlib import Path
import torch
from crosslens.multilingual.collections.registry import load_collection
from crosslens.training.encoder import dense, loop
from crosslens.training.encoder.train import train_encoder

calls, many, number = Path(sys.argv[1]), sys.argv[2], os.environ.get("RANK", "0")
loop.resolve_dtype = lambda *_: torch.float32
represent, learn = dense.TrainableDense.represent, loop.EncoderTrainer.learn
norms = {}

def fail(self, inputs):
    if max(map(len, inputs)) * len(inputs) > 40:
        raise RuntimeError("CUDA out of memory. Tried to allocate")
    return represent(self, inputs)

def note(self, batch):
    loss, found = learn(self, batch), norms.setdefault(name, [])
    found.append([float(each.grad.norm()) for each in self.trainable.network.parameters() if each.grad is not None])
    return loss

@contextmanager
def interrupt(what, total=None):
    def count(done):
        if done > 4:
            raise KeyboardInterrupt
    yield count

loop.EncoderTrainer.learn = note
for name, data, base, recipe, dev in pickle.loads(calls.read_bytes())[: None if many == "two" else -1]:
    dense.TrainableDense.represent = fail if name == "resumed" and number == "1" else represent
    watched = load_collection(dev) if dev else None
    def train(of, **how):
        return train_encoder(data, base, calls.with_name(f"{name}-{of}"), recipe, dev=watched, device="cpu", **how)
    if name == "resumed" and many == "one":
        try:
            train("two", progress=interrupt)
        except KeyboardInterrupt:
            assert calls.with_name(f".{name}-two.partial").joinpath("checkpoint-4").is_dir()
    assert not train(many).before
    assert train(many).before
calls.with_name(f"{many}-{number}").write_bytes(pickle.dumps(norms))
"""
# name -> the fixture of the base, its SPEC, and what more a recipe says.
CALLS = {
    "dense": ("tiny_encoder", "hf:{}?pooling=mean", {"interpolate": 0.1}),
    "late": ("tiny_colbert", "late:{}", {"temperature": 1.0, "anchor": "ewc", "anchor_strength": 0.1}),
    "scaled": ("tiny_multilingual_clip", "clip:{}", {"loss": "sigmoid", "bias": -2.0, "learn_scale": True}),
    # By two after one had begun; and the second has less memory than it takes.
    "resumed": ("tiny_encoder", "hf:{}?pooling=cls", {"lora": 4}),
}
RECIPE = EncoderRecipe(batch=7, steps=6, learning_rate=1e-3, check=2)
TIMED = {"minutes": 0.01, "steps": 10_000, "check": 10_000}


def test_two_processes_make_what_one_makes(request: pytest.FixtureRequest, judged_folder: Path, tmp_path: Path):
    data = {kind: str(tmp_path / f"{kind}.jsonl") for kind in ("pictures", "texts")}
    for kind, path in data.items():
        write_examples(Path(path), make_examples(pictured=kind == "pictures"), {})
    calls = []
    for name, (fixture, spec, more) in CALLS.items():
        base, examples = spec.format(request.getfixturevalue(fixture)), data["pictures" if "clip" in spec else "texts"]
        recipe = replace(RECIPE, **more, replay=examples if name == "late" else "")
        calls.append((name, examples, base, recipe, str(judged_folder) if name == "dense" else None))
    # The last is for two alone: the end of its time is another each time.
    calls.append(("timed", data["texts"], base, replace(RECIPE, **TIMED), None))
    (tmp_path / "calls").write_bytes(pickle.dumps(calls))
    (tmp_path / "train.py").write_text(TRAIN)
    alone = Child(tmp_path / "train.py", tmp_path / "calls", "one")
    assert alone.wait() == 0, alone.stderr.read()
    for child in start_together(2, tmp_path / "train.py", tmp_path / "calls", "two"):
        assert child.wait() == 0, child.stderr.read()
    wanted, main, other = (pickle.loads((tmp_path / name).read_bytes()) for name in ("one-0", "two-0", "two-1"))
    assert main == other
    for name in CALLS:
        # Of a training that goes on, the last two steps; of a learnt importance of weights, its batches as well.
        for norms, theirs in zip(main[name], wanted[name][-len(main[name]) :], strict=True):
            assert norms == pytest.approx(theirs, rel=1e-3, abs=1e-6), name
        one, two = (Trained.read(tmp_path / f"{name}-{many}") for many in ("one", "two"))
        curves = [[point["loss"] for point in made.card["curve"]] for made in (one, two)]
        assert len(curves[0]) == RECIPE.steps
        assert curves[1] == pytest.approx(curves[0], rel=1e-4), name
        assert two.card["dev"] == one.card["dev"]
        assert (two.card["micro_tokens"] <= 40) == (name == "resumed")
        check_weights(two.output, one.output)
        assert not (tmp_path / f".{name}-two.partial").exists()
    assert 0 < Trained.read(tmp_path / "timed-two").card["steps"] < TIMED["steps"]


def start_together(count: int, *what: object) -> list[Child]:
    """Forks in the place of torchrun's processes, which would take most of the time for their imports."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    size = {"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count), **meeting}
    ranks = [{"RANK": str(number), "LOCAL_RANK": str(number)} for number in range(count)]
    return [Child(*what, env={**os.environ, **size, **rank}) for rank in ranks]


def check_weights(folder: Path, wanted: Path) -> None:
    """All are near those that are wanted, but for biases of keys: a softmax leaves noise alone in their gradients."""
    files = sorted(path.relative_to(wanted) for path in wanted.rglob("*.safetensors"))
    assert files
    for file in files:
        held = load_file(folder / file)
        for name, each in load_file(wanted / file).items():
            if not name.endswith(("key.bias", "in_proj_bias")):
                assert np.allclose(held[name], each, rtol=1e-4, atol=1e-5), (folder, name)


@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_texts_are_shared_out_evenly(count: int):
    costs = [5, 90, 7, 30, 31, 6, 88, 29]
    shares = deal_out(costs, count)
    assert sorted(place for share in shares for place in share) == list(range(8))
    assert {len(share) for share in shares} <= {8 // count, -(-8 // count)}
    if count == 1:
        assert shares == [list(range(8))]  # which is planned as it always was
    if count == 2:
        assert [sum(costs[place] for place in share) for share in shares] == [90 + 30 + 29 + 5, 88 + 31 + 7 + 6]
