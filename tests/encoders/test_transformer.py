"""The hf: encoder: pooling, prompts, lengths and sentence-transformers files, against plain code and the library."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from crosslens.checkpoints.devices import resolve_device, resolve_dtype
from crosslens.checkpoints.sentence_files import read_sentence_settings
from crosslens.checkpoints.source import Source, hash_weights
from crosslens.encoders import registry
from crosslens.encoders.base import encode_matrix
from crosslens.errors import InputError
from safetensors.torch import load_file, save_file
from stand_ins.texts import ITEMS, TEXTS


@pytest.fixture
def checkpoint(tiny_encoder, tmp_path) -> Path:
    """A copy of the tiny checkpoint to put files into."""
    return Path(shutil.copytree(tiny_encoder, tmp_path / "checkpoint"))


def published(checkpoint: Path, pooling: object, *more: dict, prompts: dict | None = None, length: int = 64) -> Path:
    """Give a checkpoint its sentence-transformers files."""
    kinds = "sentence_transformers.models."
    modules = [{"idx": 0, "name": "0", "path": "", "type": kinds + "Transformer"}]
    modules += [{"idx": 1, "name": "1", "path": "1_Pooling", "type": kinds + "Pooling"}]
    config = pooling if isinstance(pooling, dict) else {"pooling_mode": pooling}
    (checkpoint / "1_Pooling").mkdir()
    (checkpoint / "1_Pooling/config.json").write_text(json.dumps({"word_embedding_dimension": 32, **config}))
    for n, module in enumerate(more, 2):
        modules.append({"idx": n, "name": str(n), "path": module["path"], "type": kinds + module["type"]})
        (checkpoint / module["path"]).mkdir()
        if "config" in module:
            (checkpoint / module["path"] / "config.json").write_text(json.dumps(module["config"]))
            save_file(module["weights"], checkpoint / module["path"] / "model.safetensors")
    (checkpoint / "modules.json").write_text(json.dumps(modules))
    (checkpoint / "sentence_bert_config.json").write_text(
        json.dumps({"max_seq_length": length, "do_lower_case": False})
    )
    (checkpoint / "config_sentence_transformers.json").write_text(json.dumps({"prompts": prompts or {}}))
    return checkpoint


def load(checkpoint: Path, options: str = ""):
    return registry.load_encoder(f"hf:{checkpoint}?dtype=float32" + (f"&{options}" if options else ""), device="cpu")


@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
def test_pooling_is_what_it_says_one_text_at_a_time(tiny_encoder, pooling):
    encoder = load(tiny_encoder, f"pooling={pooling}&normalize=false")
    expected = []
    for text in TEXTS:
        ids = encoder.tokenizer(text, truncation=True, max_length=128)["input_ids"]
        with torch.inference_mode():
            states = encoder.model(torch.tensor([ids])).last_hidden_state[0]
        expected.append({"mean": states.mean(0), "cls": states[0], "last": states[-1]}[pooling].numpy())
    np.testing.assert_allclose(encode_matrix(encoder, ITEMS, "document"), expected, rtol=1e-3, atol=1e-5)
    assert encoder.spec.metric == "dot"


@pytest.mark.parametrize("pooling", ["mean", "cls", "lasttoken"])
def test_equal_to_sentence_transformers_on_the_same_files(checkpoint, pooling):
    from sentence_transformers import SentenceTransformer

    published(
        checkpoint,
        pooling,
        {"path": "2_Normalize", "type": "Normalize"},
        prompts={"query": "Query: ", "document": "Text: "},
        length=40,
    )
    theirs = SentenceTransformer(str(checkpoint), device="cpu")
    ours = load(checkpoint)
    np.testing.assert_allclose(encode_matrix(ours, ITEMS, "query"), theirs.encode_query(TEXTS), atol=1e-5)
    np.testing.assert_allclose(encode_matrix(ours, ITEMS, "document"), theirs.encode_document(TEXTS), atol=1e-5)
    assert (ours.spec.query_prompt, ours.spec.document_prompt, ours.spec.max_tokens) == ("Query: ", "Text: ", 40)


def test_a_dense_layer_after_pooling_as_in_labse(checkpoint):
    from sentence_transformers import SentenceTransformer

    torch.manual_seed(1)
    layer = {
        "path": "2_Dense",
        "type": "Dense",
        "config": {
            "in_features": 32,
            "out_features": 24,
            "bias": True,
            "activation_function": "torch.nn.modules.activation.Tanh",
        },
        "weights": {"linear.weight": torch.randn(24, 32), "linear.bias": torch.randn(24)},
    }
    published(checkpoint, "cls", layer, {"path": "3_Normalize", "type": "Normalize"})
    ours = load(checkpoint)
    assert ours.spec.dim == 24
    theirs = SentenceTransformer(str(checkpoint), device="cpu").encode(TEXTS)
    np.testing.assert_allclose(encode_matrix(ours, ITEMS, "document"), theirs, atol=1e-5)


def test_old_pooling_files_are_read_and_others_refused(checkpoint):
    published(checkpoint, {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False})
    assert read_sentence_settings(Source(str(checkpoint))).pooling == "cls"
    (checkpoint / "1_Pooling/config.json").write_text(json.dumps({"pooling_mode_max_tokens": True}))
    with pytest.raises(InputError, match="pooling max is not one of"):
        load(checkpoint)
    modules = json.loads((checkpoint / "modules.json").read_text())
    modules.append({"idx": 2, "name": "2", "path": "2_LSTM", "type": "sentence_transformers.models.LSTM"})
    (checkpoint / "modules.json").write_text(json.dumps(modules))
    (checkpoint / "1_Pooling/config.json").write_text(json.dumps({"pooling_mode": "mean"}))
    with pytest.raises(InputError, match="module LSTM is not supported"):
        load(checkpoint)


def test_prompts_come_from_files_then_from_the_table_then_from_the_spec(tiny_encoder, checkpoint, tmp_path):
    named = Path(shutil.copytree(tiny_encoder, tmp_path / "multilingual-e5-tiny"))
    spec = load(named).spec
    assert (spec.query_prompt, spec.document_prompt) == ("query: ", "passage: ")
    published(named, "mean", prompts={"query": "Find: "})
    spec = load(named).spec
    assert (spec.query_prompt, spec.document_prompt) == ("Find: ", "")
    spec = load(named, "query_prompt=Q:+&document_prompt=").spec
    assert (spec.query_prompt, spec.document_prompt) == ("Q: ", "")
    assert registry.load_encoder(spec.name, device="cpu").spec.fingerprint == spec.fingerprint


def test_prompt_and_special_tokens_are_what_the_model_sees(tiny_encoder):
    encoder = load(tiny_encoder, "query_prompt=query:+&max_tokens=12")
    ids = encoder.token_ids(["query: " + TEXTS[0]])[0]
    assert len(ids) == 12
    assert encoder.tokenizer.decode(ids).startswith("[CLS]query: The cat")
    assert ids[-1] == encoder.tokenizer.sep_token_id
    assert encoder.spec.special_tokens == "[CLS][SEP]"


def test_lower_precision_is_the_same_space(tiny_encoder):
    low = registry.load_encoder(f"hf:{tiny_encoder}?dtype=bfloat16", device="cpu")
    high = load(tiny_encoder)
    low.spec.require(high.spec)
    assert (low.spec.dtype, high.spec.dtype) == ("bfloat16", "float32")
    cosines = (encode_matrix(low, ITEMS, "document") * encode_matrix(high, ITEMS, "document")).sum(axis=1)
    assert 0.99 < cosines.min() < 1


def test_encoders_of_one_checkpoint_share_it(tiny_encoder):
    one, other = load(tiny_encoder), load(tiny_encoder, "pooling=cls")
    assert one.model is other.model
    assert one.spec.fingerprint != other.spec.fingerprint


def test_checkpoints_that_cannot_be_used(checkpoint, tmp_path):
    weights = load_file(checkpoint / "model.safetensors")
    lost = next(name for name in weights if "layer.1" in name)
    save_file({n: w for n, w in weights.items() if n != lost}, checkpoint / "model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match=f"weights are missing.*{lost.split('.')[-2]}"):
        load(checkpoint)
    (checkpoint / "model.safetensors").unlink()
    torch.save(weights, checkpoint / "pytorch_model.bin")
    with pytest.raises(InputError, match="pickled weights only .*convert them once"):
        load(checkpoint)
    with pytest.raises(InputError, match="there is no directory"):
        load(tmp_path / "nowhere")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (checkpoint / name).unlink()
    with pytest.raises(InputError, match="has no tokenizer"):
        load(checkpoint)


def test_bfloat16_is_for_cards_that_multiply_it(monkeypatch):
    can = {"cuda:0": (7, 5), "cuda:1": (9, 0)}
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: can[str(device)])
    assert resolve_dtype("auto", torch.device("cuda:0")) == torch.float16  # a T4, which emulates it
    assert resolve_dtype("auto", torch.device("cuda:1")) == torch.bfloat16


def test_devices_and_precisions():
    assert resolve_device("cpu").type == "cpu"
    assert resolve_dtype("auto", torch.device("cpu")) in (torch.bfloat16, torch.float32)
    for name in ("cuda:99", "tpu", "meta", "nonsense:"):
        with pytest.raises(InputError, match="device"):
            resolve_device(name)
    with pytest.raises(InputError, match="unknown dtype"):
        resolve_dtype("int3", torch.device("cpu"))


@pytest.mark.parametrize("part", ["tokenizer.json", "2_Dense/model.safetensors", "model.safetensors"])
def test_all_that_makes_vectors_is_in_the_revision(tmp_path, tiny_encoder, part):
    copy = shutil.copytree(tiny_encoder, tmp_path / "copy")
    (copy / "2_Dense").mkdir(exist_ok=True)
    if not (copy / part).exists():
        shutil.copy(copy / "model.safetensors", copy / part)
    before = hash_weights(copy)
    (copy / part).write_bytes((copy / part).read_bytes() + b" ")
    assert hash_weights(copy) != before
