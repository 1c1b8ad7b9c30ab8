"""Examples that can be learned: a word of a query stands in its document, in two languages."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import PIL.Image
import pytest
from crosslens.items import Item
from crosslens.training.data.examples import Example, write_examples
from safetensors.torch import load_file, save_file

LETTERS = "abcdefghijklmnopqrst"


def make_examples(count: int = 40, negatives: int = 1, scored: bool = False, pictured: bool = False) -> list[Example]:
    """Each of an own pair of letters; every second query and document is German.

    Documents that are `pictured` have colours for letters, and two queries in two languages have one picture.
    """
    made = []
    for number in range(count):
        lang = ("eng", "deu")[number % 2]
        word = LETTERS[number % 20] * 3 + " " + LETTERS[number // 20 + 3]
        other = LETTERS[(number + 7) % 20] * 3 + " " + LETTERS[number // 20 + 5]
        documents = tuple(Item(f"n{number}-{n}", f"{other} {'x ' * n}", lang=lang) for n in range(negatives))
        positive = Item(f"d{number}", f"{word} {'z ' * (number % 9)}", lang=lang)
        if pictured:
            shade = number // 2 * 12
            picture = PIL.Image.new("RGB", (20, 30), (shade, 250 - shade, shade * 7 % 250))
            positive, documents = Item(f"d{number // 2}", image=picture), ()
        scores = (2.0, *(float(-n) for n in range(negatives))) if scored else ()
        made.append(Example(Item(f"q{number}", word, lang=lang), (positive,), documents, scores))
    return made


@pytest.fixture
def tabled_splade(tiny_splade: Path, tmp_path: Path) -> Path:
    """`tiny_splade` with weights for queries, as opensearch's."""
    where = Path(shutil.copytree(tiny_splade, tmp_path / "tabled"))
    (where / "idf.json").write_text('{"a": 1.0}')
    return where


@pytest.fixture
def old_mlm(tiny_splade: Path, tmp_path: Path) -> Path:
    """A masked language model whose weights have the names of TensorFlow, as multilingual BERT's own do."""
    where = Path(shutil.copytree(tiny_splade, tmp_path / "old"))
    names = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
    weights = load_file(where / "model.safetensors")
    for new, old in names.items():
        weights = {key.replace(new, old): tensor for key, tensor in weights.items()}
    save_file(weights, where / "model.safetensors", {"format": "pt"})
    return where


@pytest.fixture
def examples_file(tmp_path: Path) -> Callable[..., str]:
    """A file of `make_examples`."""

    def write(*how: int, **more: object) -> str:
        path = tmp_path / "examples.jsonl"
        write_examples(path, make_examples(*how, **more), {})
        return str(path)

    return write


@pytest.fixture
def judged_folder(tmp_path: Path) -> Path:
    """The documents and queries of `make_examples` as a collection, with judgements."""
    folder = tmp_path / "judged"
    folder.mkdir()
    examples = make_examples()
    files = {
        "docs.jsonl": [{"id": each.id, "text": each.text, "lang": each.lang} for e in examples for each in e.documents],
        "topics.jsonl": [{"id": e.query.id, "text": e.query.text, "lang": e.query.lang} for e in examples[:20]],
    }
    for name, lines in files.items():
        (folder / name).write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "qrels.txt").write_text("".join(f"{e.query.id} 0 {e.positives[0].id} 1\n" for e in examples[:20]))
    return folder
