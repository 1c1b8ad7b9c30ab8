"""`crosslens train ranker`: one object of JSON, one line for a mistake, ready recipes, and a kill that costs little."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

import pytest
from crosslens.items import Item
from crosslens.training.data.examples import Example, write_examples
from crosslens.training.ranker.recipe import RankerRecipe
from crosslens.training.recipe import read_recipe
from stand_ins.children import COMMAND, Child


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    documents = [Item(f"d{n}", f"The {name} sleeps.", lang="eng") for n, name in enumerate(("cat", "dog", "owl"))]
    path = tmp_path_factory.mktemp("examples") / "examples.jsonl"
    made = [
        Example(Item(f"q{n}", f"Who sleeps, {n}?", lang="eng"), (documents[n % 3],), (documents[(n + 1) % 3],))
        for n in range(8)
    ]
    write_examples(path, made, {"made": "here"})
    return path


def test_a_ranker_is_trained_and_reranks(crosslens, tiny_encoder, data, tmp_path):
    out = tmp_path / "out"
    arguments = ("train", "ranker", data, "--base", f"cross@hf:{tiny_encoder}", "-o", out, "--batch", 4, "--steps", 2)
    status, shown, err = crosslens(*arguments, "--json")
    assert (status, err) == (0, "")
    made = json.loads(shown)
    assert made["spec"] == f"cross@hf:{out}"
    assert made["steps"] == 2
    from crosslens import rank

    assert len(rank("Who sleeps?", ["The cat sleeps.", "The dog."], made["spec"])) == 2
    status, shown, _ = crosslens(*arguments)  # the same call finds what is there; another does not
    assert (status, f"rerank with {made['spec']}" in shown) == (0, True)
    status, _, err = crosslens(*arguments, "--seed", 5)
    assert status == 2
    assert "is there already" in err


def test_a_mistake_is_one_line(crosslens, tiny_encoder, data, tmp_path):
    base = ("--base", f"cross@hf:{tiny_encoder}", "-o", tmp_path / "out")
    for more, says in (
        (("--recipe", "no-such"), "there is no recipe"),
        (("--batch", "0"), "batch must be at least 1"),
        (("--batch", "99"), "has 8 examples, and 99 are needed"),
        (("--batch", "4", "--dev", data), "is what is trained on"),
    ):
        status, shown, err = crosslens("train", "ranker", data, *base, *more)
        assert (status, shown, err.count("\n")) == (2, "", 1), err
        assert says in err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["rankllama", "rankzephyr", "rank-r1", "monot5", "yesno-lora"])
def test_ready_recipes_are_read(name):
    made = read_recipe(RankerRecipe, name)
    assert made.prompt
    assert made != RankerRecipe()


def test_what_was_killed_goes_on(crosslens, tiny_encoder, data, tmp_path):
    """kill -9 while it trains: the same command ends with the same number of steps and a curve of all of them."""
    out, work = tmp_path / "out", tmp_path / ".out.partial"
    recipe = tmp_path / "recipe.toml"
    recipe.write_text('check = 5\nprecision = "float32"\nbatch = 2\nsteps = 40\n')
    arguments = ["train", "ranker", data, "--base", f"cross@hf:{tiny_encoder}", "-o", out, "--recipe", recipe, "--json"]
    child = Child(COMMAND, *arguments)
    ends = time.monotonic() + 300  # a busy machine is no fault of a test
    while not list(work.glob("checkpoint-*/complete.json")):
        assert child.poll() is None, child.communicate()
        assert time.monotonic() < ends
        time.sleep(0.005)
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert work.exists()
    assert not out.exists()
    status, shown, err = crosslens(*arguments)
    assert (status, err) == (0, "")
    made = json.loads(shown)
    assert made["steps"] == 40
    assert [point["step"] for point in made["curve"] if "loss" in point] == list(range(1, 41))
    assert not work.exists()
