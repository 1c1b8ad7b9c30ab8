"""A training that is watched: the measure is that of a search, the best weights are kept, and it stops in time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from crosslens.encoders.base import encode_matrix
from crosslens.encoders.registry import load_encoder
from crosslens.errors import InputError
from crosslens.evaluation.evaluate import evaluate
from crosslens.indexes.registry import create_index
from crosslens.items import Item
from crosslens.multilingual.collections.registry import load_collection
from crosslens.training.encoder.dev import Dev
from crosslens.training.encoder.train import train_encoder
from crosslens.training.recipe import EncoderRecipe

from .conftest import make_examples

Write = Callable[..., str]
QUICK = EncoderRecipe(batch=8, steps=10, learning_rate=3e-3, check=2, patience=2)


@pytest.mark.parametrize(
    ("base", "spec", "kind"),
    [
        ("tiny_encoder", "hf:{}?pooling=mean&dtype=float32", "flat"),
        ("tiny_colbert", "late:{}?dtype=float32", "late"),
        ("tiny_splade", "splade:{}?dtype=float32", "sparse"),
    ],
)
def test_the_measure_is_that_of_an_exact_search(
    base: str, spec: str, kind: str, judged_folder: Path, request: pytest.FixtureRequest
):
    collection = load_collection(judged_folder)
    encoder = load_encoder(spec.format(request.getfixturevalue(base)), device="cpu")
    index = create_index("memory://", kind=kind, lexical=False)
    index.add(collection.docs(), encoder)
    run = index.search(collection.queries(), 100, correct=False)
    expected = evaluate({"run": run}, collection.qrels(), ["nDCG@5"]).means["run", "nDCG@5", "all"]
    assert 0 < expected < 1
    dev = Dev.read(collection, "nDCG@5", 10**6, 0)
    assert dev.measure_encoder(encoder) == pytest.approx(expected, abs=1e-6)
    with torch.autocast("cpu", torch.bfloat16):  # as in a training
        assert dev.measure_encoder(encoder) == pytest.approx(expected, abs=0.1)
    few = Dev.read(collection, "nDCG@5", 30, 0)
    assert len(few.documents) == 30
    assert {item.id for item in few.documents} >= {f"d{n}" for n in range(20)}
    assert few.measure_encoder(encoder) > expected


def test_the_best_weights_are_kept_and_it_stops_in_time(
    tiny_encoder: Path, judged_folder: Path, examples_file: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    values, seen = iter([0.1, 0.3, 0.5, 0.4, 0.4]), []

    def measure(self, encoder):
        seen.append(encode_matrix(encoder, [Item("a", "aaa b")], "query"))
        return next(values)

    monkeypatch.setattr(Dev, "measure_encoder", measure)
    made = train_encoder(
        examples_file(), f"hf:{tiny_encoder}?pooling=mean", tmp_path / "made", QUICK, dev=load_collection(judged_folder),
        device="cpu",
    )  # fmt: skip
    assert (made.card["steps"], made.card["planned"]) == (8, 10)
    dev = made.card["dev"]
    assert (dev["base"], dev["best"], dev["best_step"]) == (0.1, 0.5, 4)
    assert [each["step"] for each in dev["checks"]] == [2, 4, 6, 8]
    vector = encode_matrix(load_encoder(f"{made.spec}?dtype=bfloat16"), [Item("a", "aaa b")], "query")
    distances = [float(np.abs(each - vector).max()) for each in seen]
    assert np.argmin(distances) == 2
    assert made.notes == []
    page = (made.output / "training.html").read_text()
    assert page.count("<svg") == 3
    assert "nDCG@20 on judged" in page
    assert "0.1000 before, 0.5000 after step 4" in page
    assert "step 6: 0.4000" in page


def test_killed_after_it_had_stopped_it_does_not_go_on_and_keeps_the_best_weights(
    tiny_encoder: Path, judged_folder: Path, examples_file: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    data, base, dev = examples_file(), f"hf:{tiny_encoder}?pooling=mean", load_collection(judged_folder)
    made = []
    for killed in (False, True):
        values = iter([0.1, 0.3, 0.5, 0.4, 0.4])
        monkeypatch.setattr(Dev, "measure_encoder", lambda *_, values=values: next(values))
        output = tmp_path / f"{killed}" / "made"
        if killed:
            (tmp_path / "first").mkdir()
            with monkeypatch.context() as patch:
                patch.setattr("crosslens.training.encoder.train.Training.write", interrupt)
                with pytest.raises(KeyboardInterrupt):
                    train_encoder(data, base, tmp_path / "first" / "made", QUICK, dev=dev, device="cpu")
            (tmp_path / "first").rename(output.parent)
        made.append(train_encoder(data, base, output, QUICK, dev=dev, device="cpu"))
    whole, resumed = (each.card for each in made)
    assert (resumed["steps"], resumed["curve"], resumed["dev"]) == (8, whole["curve"], whole["dev"])
    assert distance(*(each.output for each in made)) == 0


def test_a_training_that_did_not_help_says_so(
    tiny_encoder: Path, judged_folder: Path, examples_file: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    values = iter([0.5, 0.4])
    monkeypatch.setattr(Dev, "measure_encoder", lambda *_: next(values))
    made = train_encoder(
        examples_file(), f"hf:{tiny_encoder}?pooling=mean", tmp_path / "made", replace(QUICK, steps=2),
        dev=load_collection(judged_folder), device="cpu",
    )  # fmt: skip
    assert made.notes == [f"no step was better than the base on {judged_folder.name}"]


def test_time_that_is_up_ends_it_with_a_check(
    tiny_encoder: Path, judged_folder: Path, examples_file: Write, tmp_path: Path
):
    recipe = replace(QUICK, minutes=1e-6)
    base, dev = f"hf:{tiny_encoder}?pooling=mean", load_collection(judged_folder)
    made = train_encoder(examples_file(), base, tmp_path / "made", recipe, dev=dev, device="cpu")
    assert made.card["steps"] == 1
    assert [each["step"] for each in made.card["dev"]["checks"]] == [1]


def test_a_collection_without_judgements_cannot_watch(judged_folder: Path):
    (judged_folder / "qrels.txt").write_text("q0 0 d0 0\n")
    with pytest.raises(InputError, match="no topic with a relevant document"):
        Dev.read(load_collection(judged_folder), "nDCG@20", 100, 0)


def distance(one: Path | str, other: Path | str) -> float:
    items = [example.query for example in make_examples(8)]
    vectors = [
        encode_matrix(load_encoder(f"hf:{path}?dtype=float32&pooling=mean"), items, "query") for path in (one, other)
    ]
    return float(np.linalg.norm(vectors[0] - vectors[1]))


@pytest.mark.parametrize(
    "more",
    [
        {"anchor": "l2-sp", "anchor_strength": 1000.0},
        {"anchor": "ewc", "anchor_strength": 1000.0},
        {"interpolate": 0.7},
    ],
)
def test_what_holds_weights_near_the_base(more: dict, tiny_encoder: Path, examples_file: Write, tmp_path: Path):
    data, base = examples_file(), f"hf:{tiny_encoder}?pooling=mean"
    if more.get("anchor") == "ewc":
        more = {**more, "replay": data}
    recipe = replace(QUICK, steps=6, clip=1e6)
    free = train_encoder(data, base, tmp_path / "free", recipe, device="cpu")
    held = train_encoder(data, base, tmp_path / "held", replace(recipe, **more), device="cpu")
    assert 0 < distance(held.output, tiny_encoder) < 0.8 * distance(free.output, tiny_encoder)
