"""Two towers in training: pictures are seen once where their tower is locked, and what is joined loads by itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from crosslens.encoders.base import encode_matrix
from crosslens.encoders.registry import load_encoder
from crosslens.errors import InputError
from crosslens.items import Item
from crosslens.training.data.examples import load_examples
from crosslens.training.encoder.batches import Batches, Material
from crosslens.training.encoder.pictures import TrainedClip
from crosslens.training.encoder.train import train_encoder
from crosslens.training.recipe import EncoderRecipe

Write = Callable[..., str]
QUICK = EncoderRecipe(batch=8, steps=10, learning_rate=3e-3, temperature=0.1, symmetric=True, lock_pictures=True)
COLOURED = Item("p", image=PIL.Image.new("RGB", (40, 20), (200, 40, 90)))


def test_a_locked_tower_stays_and_sees_each_picture_once(
    tiny_clip: Path, examples_file: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    seen: list[int] = []
    look = TrainedClip.look
    monkeypatch.setattr(TrainedClip, "look", lambda self, shown: seen.append(len(shown)) or look(self, shown))
    made = train_encoder(examples_file(pictured=True), f"clip:{tiny_clip}", tmp_path / "made", QUICK, device="cpu")
    assert sum(seen) == 20  # two epochs of 40 examples, two of a picture
    base, after = (load_encoder(f"{spec}?dtype=float32", device="cpu") for spec in (f"clip:{tiny_clip}", made.spec))
    assert np.allclose(*(encode_matrix(encoder, [COLOURED], "document") for encoder in (base, after)), atol=1e-6)
    assert float(after.model.logit_scale.exp()) == pytest.approx(10)  # what it was trained with


def test_a_learnt_temperature_and_bias_are_in_the_checkpoint(tiny_clip: Path, examples_file: Write, tmp_path: Path):
    recipe = replace(QUICK, loss="sigmoid", bias=-3.0, learn_scale=True)
    made = train_encoder(examples_file(pictured=True), f"clip:{tiny_clip}", tmp_path / "made", recipe, device="cpu")
    specs = (f"{each}?dtype=float32" for each in (made.spec, f"clip:{tiny_clip}"))
    model, base = (load_encoder(spec, device="cpu").model for spec in specs)
    assert 1e-4 < abs(float(model.logit_scale) - float(base.logit_scale)) < 0.1
    assert -3.1 < float(model.logit_bias) < -2.9
    assert float(model.logit_bias) != -3


def test_captions_of_one_picture_are_no_negatives(examples_file: Write, tmp_path: Path):
    material = Material(tmp_path)
    own = material.add(load_examples(examples_file(4, pictured=True)))
    batch = Batches(material, own, range(0), replace(QUICK, batch=4), 1)[0]
    assert len(batch.queries) == 4
    assert len(batch.documents) == 2
    assert batch.allowed.sum() == 8  # of each query its own picture, and the other


@pytest.mark.parametrize("broken", [False, True])
def test_examples_without_pictures_and_unreadable_ones_are_one_line(
    broken: bool, tiny_clip: Path, examples_file: Write, tmp_path: Path
):
    data = examples_file(4, pictured=broken)
    for path in tmp_path.glob("*.media/*/*"):
        path.write_bytes(b"no picture")
    said = r"item 'd\d' \(.*\.png\): " if broken else "no example has a picture, which clip:.* is to learn"
    with pytest.raises(InputError, match=said):
        train_encoder(data, f"clip:{tiny_clip}", tmp_path / "made", QUICK, device="cpu")


def test_an_encoder_of_text_refuses_pictures(tiny_encoder: Path, examples_file: Write, tmp_path: Path):
    recipe = replace(QUICK, lock_pictures=False)
    with pytest.raises(InputError, match="holds image, but hf:.* encodes text"):
        train_encoder(examples_file(pictured=True), f"hf:{tiny_encoder}", tmp_path / "made", recipe, device="cpu")
