"""OpenVINO as a backend: torch's vectors from an export of ours, and from what checkpoints publish."""

from __future__ import annotations

import gc
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from crosslens.checkpoints import openvino as backend
from crosslens.checkpoints.source import hash_files
from crosslens.commands.doctor import list_paces
from crosslens.encoders import backends
from crosslens.encoders.base import encode_matrix
from crosslens.encoders.registry import load_encoder
from crosslens.errors import InputError
from crosslens.training.encoder.trainable import find_family
from stand_ins.texts import ITEMS
from tiny.text import publish

pytest.importorskip("openvino", reason="pip install 'crosslens[fast]'")


def load(checkpoint: object, options: str):
    return load_encoder(f"hf:{checkpoint}?pooling=mean&{options}", device="cpu")


def lowest_cosine(ours, theirs) -> float:
    made = (encode_matrix(each, ITEMS, "document") for each in (ours, theirs))
    return float(np.multiply(*made).sum(1).min())


@pytest.fixture(scope="module")
def exported(tmp_path_factory, tiny_xlmr) -> Path:
    """A cache that holds the export of `tiny_xlmr`."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CROSSLENS_CACHE", str(folder))
        load(tiny_xlmr, "dtype=float32&backend=openvino")
    return folder


@pytest.fixture
def cache(tmp_path, exported, monkeypatch) -> Path:
    folder = Path(shutil.copytree(exported, tmp_path / "cache"))
    monkeypatch.setenv("CROSSLENS_CACHE", str(folder))
    return folder / "openvino"


def test_an_export_gives_torchs_vectors_in_every_thread_and_is_made_once(tiny_xlmr, cache, monkeypatch):
    monkeypatch.setattr(backend, "_export", lambda *_: pytest.fail("exported again"))
    plain = load(tiny_xlmr, "dtype=float32")
    made = load(tiny_xlmr, "dtype=float32&backend=openvino")
    assert lowest_cosine(made, plain) >= 0.9999
    assert made.spec.fingerprint == plain.spec.fingerprint
    half = load(tiny_xlmr, "dtype=bfloat16&backend=openvino")
    assert half.spec.dtype == "bfloat16"
    assert lowest_cosine(half, plain) >= 0.999  # float32 where bfloat16 is not multiplied
    alone = [encode_matrix(plain, [item], "query") for item in ITEMS]
    with ThreadPoolExecutor(4) as threads:
        beside = list(threads.map(lambda item: encode_matrix(made, [item], "query"), ITEMS * 20))
    np.testing.assert_allclose(np.concatenate(beside), np.concatenate(alone * 20), atol=1e-5)


def test_auto_takes_the_faster_once_and_torch_where_nothing_else_can_be(tiny_xlmr, cache, monkeypatch, caplog):
    seconds = {"torch": [1.0] * 5, "openvino": [0.95] * 5}
    monkeypatch.setattr(backends, "time_batches", lambda opened: {name: seconds[name] for name in opened})
    options = "dtype=float32&backend=auto"
    assert load(tiny_xlmr, options).opened.backend == "torch"  # a tenth must be saved
    shutil.rmtree(cache.parent / "pace")
    monkeypatch.setitem(seconds, "openvino", [0.5, 0.5, 9, 0.5, 9])
    made = load(tiny_xlmr, options)
    assert made.opened.backend == "openvino"
    assert "backend=auto: openvino (torch 512 tokens/s, openvino 1,024 tokens/s)" in list_paces()[0].found
    monkeypatch.setattr(backends, "time_batches", lambda _: pytest.fail("measured again"))
    assert load(tiny_xlmr, options).opened is made.opened
    assert load(tiny_xlmr, "dtype=int8&backend=auto").opened.backend == "torch"
    shutil.rmtree(cache)
    monkeypatch.setattr(backend, "_compare", lambda *_: (_ for _ in ()).throw(InputError("another model")))
    del made
    gc.collect()
    assert load(tiny_xlmr, options).opened.backend == "torch"
    assert "backend=auto takes torch: another model" in caplog.text


def test_batches_are_measured_in_turn(tiny_xlmr, cache):
    opened = {name: load(tiny_xlmr, f"dtype=float32&backend={name}").opened for name in ("torch", "openvino")}
    spent = backends.time_batches(opened)
    assert list(map(len, spent.values())) == [backends.ROUNDS] * 2
    assert min(spent["torch"] + spent["openvino"]) > 0


def test_a_damaged_export_is_made_again(cache, tiny_xlmr):
    (weights,) = cache.glob("*/model.bin")
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    load(tiny_xlmr, "dtype=float32&backend=openvino")
    assert weights.read_bytes() == whole
    assert [path.name for path in cache.iterdir()] == [weights.parent.name]


@pytest.mark.parametrize("kind", ["openvino", "onnx"])
def test_what_a_checkpoint_publishes_is_read(cache, tiny_xlmr, tmp_path, monkeypatch, kind):
    plain = load(tiny_xlmr, "dtype=float32")
    checkpoint = Path(shutil.copytree(tiny_xlmr, tmp_path / "published"))
    if kind == "onnx":
        save_onnx(plain.model, checkpoint / "onnx/model.onnx", monkeypatch)
        plain.model = Embeds(plain.model)
    else:
        (checkpoint / "openvino").mkdir()
        for path in cache.glob("*/model.*"):
            shutil.copy(path, checkpoint / f"openvino/openvino_{path.name}")
    for path in checkpoint.glob("*.safetensors"):
        path.unlink()
    made = load(checkpoint, f"dtype=float32&backend={kind}")
    assert lowest_cosine(made, plain) >= 0.9999
    assert made.spec.revision not in (plain.spec.revision, hash_files([checkpoint / "tokenizer.json"]))


def test_sentence_transformers_run_the_same_export_with_modules_of_their_own(tiny_xlmr, cache, tmp_path, monkeypatch):
    checkpoint = publish(Path(shutil.copytree(tiny_xlmr, tmp_path / "published")), "mean", (32, 24))
    spec = f"st:{checkpoint}?dtype=float32"
    plain = load_encoder(spec, device="cpu")
    made = load_encoder(f"{spec}&backend=openvino", device="cpu")
    assert isinstance(made.model[0].model, backend.CompiledStates)
    assert lowest_cosine(made, plain) >= 0.9999
    assert made.spec.fingerprint == plain.spec.fingerprint
    assert len(list(cache.iterdir())) == 2  # that of `tiny_xlmr`, and of the copy that has dense layers
    monkeypatch.setattr(backend, "_export", lambda *_: pytest.fail("exported again"))
    half = load_encoder(spec.replace("float32", "bfloat16") + "&backend=openvino", device="cpu")
    assert half.spec.dtype == "bfloat16"
    assert lowest_cosine(half, plain) >= 0.99
    with pytest.raises(InputError, match="has no onnx/model.onnx"):
        load_encoder(f"{spec}&backend=onnx", device="cpu")
    (checkpoint / "openvino").mkdir()
    for path in next(cache.iterdir()).glob("model.*"):
        shutil.copy(path, checkpoint / f"openvino/openvino_{path.name}")
    assert lowest_cosine(load_encoder(f"{spec}&backend=openvino", device="cpu"), plain) >= 0.9999
    monkeypatch.setattr(backend.CompiledStates, "run", lambda self, given: torch.rand(*given["input_ids"].shape, 32))
    with pytest.raises(InputError, match="backend=openvino gives other vectors"):
        load_encoder(f"{spec}&backend=openvino", device="cpu")


class Embeds(torch.nn.Module):
    """The embeddings of a model as its states, and segments among the inputs."""

    def __init__(self, model) -> None:
        super().__init__()
        self.table = model.embeddings.word_embeddings

    def forward(self, input_ids, attention_mask, token_type_ids=None):
        states = self.table(input_ids)
        if token_type_ids is not None:  # when it is exported
            return states + token_type_ids.unsqueeze(-1) + 0 * attention_mask.unsqueeze(-1)
        return SimpleNamespace(last_hidden_state=states)


def save_onnx(model, path: Path, monkeypatch) -> None:
    """As torch exports it; of the package onnx, which is not here, it needs only what adds functions: there are none."""
    from torch.onnx._internal.torchscript_exporter import onnx_proto_utils

    monkeypatch.setattr(onnx_proto_utils, "_add_onnxscript_fn", lambda model, _: model)
    path.parent.mkdir()
    shapes = {name: {0: "texts", 1: "tokens"} for name in (*backend.INPUTS, "last_hidden_state")}
    names = {"input_names": list(backend.INPUTS), "output_names": ["last_hidden_state"], "dynamic_axes": shapes}
    torch.onnx.export(Embeds(model), (torch.ones(2, 3, dtype=torch.long),) * 3, path, dynamo=False, **names)


def test_errors_say_what_to_do(tiny_xlmr, tiny_clip, cache, monkeypatch):
    with pytest.raises(InputError, match="has no onnx/model.onnx; write backend=openvino"):
        load(tiny_xlmr, "backend=onnx")
    with pytest.raises(InputError, match="float32 or bfloat16, not int8"):
        load(tiny_xlmr, "dtype=int8&backend=openvino")
    for text in (f"hf:{tiny_xlmr}?backend=openvino", f"clip:{tiny_clip}?backend=openvino"):
        with pytest.raises(InputError, match="takes no gradients"):
            find_family(text)
    with pytest.raises(InputError, match="float32 or bfloat16, not float16"):
        load_encoder(f"clip:{tiny_clip}?dtype=float16&backend=openvino", device="cpu")
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(InputError, match=r"pip install 'crosslens\[fast\]'"):
        load(tiny_xlmr, "backend=openvino")
