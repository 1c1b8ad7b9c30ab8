"""`crosslens train encoder`: one object of JSON, what was made can be searched with, and one line for a mistake."""

from __future__ import annotations

import json

import pytest
from crosslens.items import Item
from crosslens.training.data.examples import Example, write_examples


@pytest.fixture
def examples(tmp_path):
    made = [Example(Item(f"q{n}", f"{c} {c}"), (Item(f"d{n}", f"{c} {c} {c}"),)) for n, c in enumerate("abcdefgh")]
    write_examples(tmp_path / "examples.jsonl", made, {})
    return tmp_path / "examples.jsonl"


def test_one_object_and_a_checkpoint_to_index_with(crosslens, tiny_encoder, examples, tmp_path):
    recipe = tmp_path / "mine.toml"
    recipe.write_text("batch = 4\nepochs = 3\nlearning_rate = 1e-3\n")
    call = ("train", "encoder", examples, "--base", f"hf:{tiny_encoder}?pooling=mean", "-o", tmp_path / "made")
    status, out, err = crosslens(*call, "--recipe", recipe, "--steps", 3, "--device", "cpu", "--json")
    assert (status, err) == (0, "")
    made = json.loads(out)
    assert (made["steps"], made["recipe"]["batch"], made["recipe"]["epochs"]) == (3, 4, 3)
    status, out, _ = crosslens(*call, "--recipe", recipe, "--steps", 3, "--device", "cpu")
    assert status == 0
    assert f"load it as hf:{tmp_path / 'made'}" in out
    docs = tmp_path / "docs.jsonl"
    docs.write_text('{"id": "1", "text": "a a a"}\n{"id": "2", "text": "h h"}\n')
    assert crosslens("index", docs, tmp_path / "index", "--encoder", made["spec"])[0] == 0


def test_mistakes_are_one_line(crosslens, refused, tiny_encoder, examples, tmp_path):
    call = ("train", "encoder", examples, "--base", f"hf:{tiny_encoder}", "-o", tmp_path / "made")
    refused(*call, "--recipe", "e6", parts=("there is no recipe 'e6'", "repllama"))
    refused(*call, "--recipe", "monot5", parts=("recipe monot5: unknown key",))
    refused("train", "encoder", tmp_path / "none.jsonl", *call[3:], parts=("none.jsonl",))
    examples.rename(tmp_path / "test.jsonl")
    refused("train", "encoder", tmp_path / "test.jsonl", *call[3:], parts=("is a test set by its name",))
    quick = ("--batch", 4, "--steps", 1, "--device", "cpu")
    assert crosslens("train", "encoder", tmp_path / "test.jsonl", *call[3:], "--force", *quick)[0] == 0
