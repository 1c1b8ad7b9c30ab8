"""Towers of ConSE's parts: before any step what they find is what ConSE finds, and what is saved loads as it is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from crosslens.encoders.base import EncoderSpec, encode_matrix, unit
from crosslens.encoders.ensemble import Ensemble
from crosslens.encoders.registry import load_encoder
from crosslens.items import Dense, Item, Role
from crosslens.multimodal.conse import ConSE
from crosslens.multimodal.towers import Pixels
from crosslens.specs import Spec
from crosslens.training.encoder import clip_files
from crosslens.training.encoder.pictures import TrainablePictures
from crosslens.training.encoder.train import check_saved
from crosslens.training.recipe import EncoderRecipe
from safetensors.torch import save_file

SIDE, CLASSES, SHOWN = 64, 80, 8
random = np.random.default_rng(0)
PICTURES = [
    Item(f"p{n}", image=PIL.Image.fromarray(random.integers(0, 256, (4, 4, 3), np.uint8)).resize((SIDE, SIDE)))
    for n in range(SHOWN)
]
NAMES = [Item(f"n{n}", " ".join(random.choice(list("abcdefghijklmnop"), 6)), lang="eng") for n in range(CLASSES)]


@pytest.fixture
def conse(tiny_encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ConSE:
    """ConSE of a tiny encoder and a tiny tower, which sees in picture n the class n, and less of n + 1."""
    timm = pytest.importorskip("timm")
    from torchvision.transforms import Compose, Normalize, Resize, ToTensor

    monkeypatch.setitem(clip_files.VISION, "timm_model_name", "test_efficientnet")
    monkeypatch.setattr(clip_files, "SIDE", SIDE)
    text = load_encoder(f"hf:{tiny_encoder}?pooling=mean&query_prompt=query:&dtype=float32", device="cpu")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        tower = timm.create_model("test_efficientnet", pretrained=False, num_classes=CLASSES).eval()
    pixels = Pixels(Compose([Resize(SIDE), ToTensor(), Normalize([0.5] * 3, [0.5] * 3)]))
    logits = torch.full((SHOWN, CLASSES), -20.0)
    for n in range(SHOWN):
        logits[n, n], logits[n, n + 1] = 4.4, 3.4
    with torch.no_grad():
        seen = tower.forward_features(pixels.batch([pixels.one(item.image) for item in PICTURES], torch.device("cpu")))
        features = tower.forward_head(seen, pre_logits=True)
        tower.classifier.weight.copy_((torch.linalg.pinv(features) @ logits).T)
        tower.classifier.bias.zero_()
    save_file(tower.state_dict(), tmp_path / "tower.safetensors")
    how = {"top": 20, "sharpness": 0.5, "text_weight": 0.5, "view": "whole", "blank": 0.0, "shares": [1.0]}
    spec = replace(text.spec, name="offline:conse", modalities=("text", "image"), max_pixels=SIDE**2, extra=how)
    names = unit(encode_matrix(text, NAMES, "query"))
    made = ConSE(weights=tmp_path / "tower.safetensors", text=text, names=names, spec=spec, device=torch.device("cpu"))
    made._tower = (tower, pixels)  # noqa: SLF001 - its own is the one that the package brings
    return made


def score(encoder: Any) -> np.ndarray:
    """How well each name fits each picture, [classes, pictures]."""
    return encode_matrix(encoder, NAMES, "query") @ encode_matrix(encoder, PICTURES, "document").T


def join(conse: ConSE) -> TrainablePictures:
    return TrainablePictures.from_encoder(conse, Spec.parse("offline:conse"), EncoderRecipe(lock_pictures=True))


def test_before_a_step_it_ranks_as_conse_does(conse: ConSE, monkeypatch: pytest.MonkeyPatch):
    """But for whitening, by which other directions of texts count: without it the ranks are nearly the same."""
    theirs, joined = score(conse), score(join(conse).encoder)
    assert joined.argmax(0).tolist() == list(range(SHOWN))  # each picture's class fits it best
    assert correlate(theirs, joined) > 0.6
    monkeypatch.setattr(clip_files, "RIDGE", 1e6)  # a direction then counts as any other
    straight = score(join(conse).encoder)
    assert correlate(theirs, straight) > 0.97
    ranks = [scores.argsort(1).argsort(1) for scores in (theirs, straight)]  # of the pictures for each name
    assert np.mean([correlate(*pair) for pair in zip(*ranks, strict=True)]) > 0.9


def correlate(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.corrcoef(one.ravel(), other.ravel())[0, 1])


class Letters:
    """Texts by their letters, without gradients."""

    spec = EncoderSpec("letters", "1", ("text",), 16)

    def encode(self, items: Iterable[Item], role: Role) -> Iterator[Dense]:
        for item in items:
            counts = np.array([[float((item.text or "").count(letter)) for letter in "abcdefghijklmnop"]])
            yield Dense([item.id], unit(counts))


def test_of_two_text_encoders_the_one_with_gradients_is_taken(conse: ConSE):
    both = Ensemble([Letters(), conse.text])
    spec = replace(conse.spec, dim=both.spec.dim, extra={**conse.spec.extra, "shares": [2.0, 1.0]})
    names = encode_matrix(both, NAMES, "query")
    pair = ConSE(weights=conse.weights, text=both, names=names, spec=spec, device=conse.device)
    np.testing.assert_allclose(score(join(pair).encoder), score(join(conse).encoder), atol=1e-4)


def test_what_is_joined_loads_as_it_was_saved(conse: ConSE, tmp_path: Path):
    made, folder = join(conse), tmp_path / "joined"
    folder.mkdir()
    options = made.save(folder)
    check_saved(made.encoder, "clip", folder, options)
    loaded = load_encoder(str(Spec("clip", str(folder), options)), device="cpu")
    for items, role in ((NAMES, "query"), (NAMES, "document"), (PICTURES, "document")):
        wanted = encode_matrix(made.encoder, items, role)
        assert np.allclose(encode_matrix(loaded, items, role), wanted, atol=1e-6)
        assert (wanted @ wanted.T).min() < 0.5  # they differ, so that equal rows are a finding
    again = TrainablePictures.from_encoder(loaded, Spec("clip", str(folder), options), EncoderRecipe())
    assert again.options == options == {"dtype": "float32"}  # trained on, its SPEC still says so
