"""What vlm: opens: adapters, processors from elsewhere, and what it refuses."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
import transformers
from crosslens.encoders.base import encode_matrix
from crosslens.encoders.registry import load_encoder
from crosslens.errors import InputError
from tiny.vlms import opened


@pytest.fixture
def adapter(folder, tmp_path):
    """A LoRA adapter of the tiny Qwen2-VL, as peft saves it, and the model with its weights added."""
    import peft

    torch.manual_seed(1)
    model = transformers.AutoModelForImageTextToText.from_pretrained(folder("qwen2-vl"))
    settings = peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    tuned = peft.get_peft_model(model, settings)
    tuned.save_pretrained(tmp_path / "adapter")
    tuned.merge_and_unload().save_pretrained(tmp_path / "merged")
    for path in folder("qwen2-vl").iterdir():
        if path.name not in ("config.json", "model.safetensors"):
            shutil.copy(path, tmp_path / "merged")
    return tmp_path / "adapter", tmp_path / "merged"


def test_an_adapter_beside_or_instead_of_the_checkpoint(folder, adapter, items):
    where, merged = adapter
    expected = encode_matrix(opened(merged), items, "query")
    beside = opened(folder("qwen2-vl"), adapter=where)
    np.testing.assert_allclose(encode_matrix(beside, items, "query"), expected, atol=1e-4)
    assert beside.spec.revision == f"{opened(folder('qwen2-vl')).spec.revision}+" + beside.spec.revision[-16:]
    alone = opened(where)
    np.testing.assert_allclose(encode_matrix(alone, items, "query"), expected, atol=1e-4)
    assert alone.spec.fingerprint == beside.spec.fingerprint
    plain_vectors = encode_matrix(opened(folder("qwen2-vl")), items, "query")
    assert np.abs(expected - plain_vectors).max() > 0.01
    with pytest.raises(InputError, match="does not fit its base model|is incomplete"):
        opened(where, base=folder("llava"), processor=folder("llava"))


def test_an_adapter_trained_without_the_language_head(folder, tmp_path, items):
    import peft

    torch.manual_seed(2)
    body = transformers.AutoModel.from_pretrained(folder("qwen2-vl"))
    settings = peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    tuned = peft.get_peft_model(body, settings)
    tuned.save_pretrained(tmp_path / "adapter")
    expected = opened(folder("qwen2-vl"))
    expected.model = tuned.merge_and_unload().eval()
    found = opened(folder("qwen2-vl"), adapter=tmp_path / "adapter")
    np.testing.assert_allclose(encode_matrix(found, items, "query"), encode_matrix(expected, items, "query"), atol=1e-4)
    assert (
        np.abs(encode_matrix(opened(folder("qwen2-vl")), items, "query") - encode_matrix(found, items, "query")).max()
        > 0.01
    )


def test_an_adapter_of_another_model_is_refused(folder, adapter):
    where, merged = adapter
    with pytest.raises(InputError, match="was trained on .*tiny-qwen-vl.*, not on .*merged; if these are the same"):
        opened(merged, adapter=where)
    opened(where, base=merged)


def test_an_adapter_named_as_older_transformers_named_weights(folder, adapter, items):
    """OmniEmbed's and DSE's were saved when the language model's layers were `model.layers`."""
    from safetensors.torch import load_file, save_file

    where, merged = adapter
    path = where / "adapter_model.safetensors"
    held = {key.replace("model.model.language_model.", "model.model."): value for key, value in load_file(path).items()}
    assert all("model.model.layers" in key for key in held if "visual" not in key)
    save_file(held, path)
    np.testing.assert_allclose(
        encode_matrix(opened(where), items, "query"), encode_matrix(opened(merged), items, "query"), atol=1e-4
    )


def test_a_processor_from_elsewhere(folder, tmp_path, items):
    bare = tmp_path / "bare"
    bare.mkdir()
    for name in ("config.json", "model.safetensors"):
        shutil.copy(folder("qwen2-vl") / name, bare)
    with pytest.raises(InputError, match=r"bare has no processor .*; vlm takes .* or processor= names a checkpoint"):
        opened(bare)
    found = encode_matrix(opened(bare, processor=folder("qwen2-vl")), items, "query")
    np.testing.assert_allclose(found, encode_matrix(opened(folder("qwen2-vl")), items, "query"), atol=1e-5)


def test_what_cannot_be_read_is_said_in_one_line(folder, tiny_encoder, tmp_path):
    cases = {f"vlm:{tiny_encoder}": "has no processor"}
    deaf = tmp_path / "deaf"
    shutil.copytree(folder("qwen2-vl"), deaf)
    for path in deaf.glob("*processor_config.json"):
        path.unlink()
    tokenizer = transformers.AutoTokenizer.from_pretrained(deaf)
    transformers.Wav2Vec2Processor(transformers.Wav2Vec2FeatureExtractor(), tokenizer).save_pretrained(deaf)
    cases[f"vlm:{deaf}?format=plain"] = "lacks images; vlm reads text and images"
    mute = tmp_path / "mute"
    shutil.copytree(folder("qwen2-vl"), mute)
    (mute / "chat_template.jinja").unlink()
    cases[f"vlm:{mute}?format=plain"] = "no chat template, which says where pictures go"
    pickled = tmp_path / "pickled"
    shutil.copytree(folder("qwen2-vl"), pickled)
    (pickled / "model.safetensors").unlink()
    torch.save({}, pickled / "pytorch_model.bin")
    cases[f"vlm:{pickled}?format=plain"] = r"pickled weights only \(pytorch_model.bin\).*convert them once"
    cut = tmp_path / "cut"
    shutil.copytree(folder("qwen2-vl"), cut)
    from safetensors.torch import load_file, save_file

    weights = load_file(cut / "model.safetensors")
    name = next(key for key in weights if "layers.1.self_attn.q_proj.weight" in key)
    del weights[name]
    save_file(weights, cut / "model.safetensors", {"format": "pt"})
    cases[f"vlm:{cut}?format=plain"] = "weights are missing from the checkpoint: .*q_proj"
    where = folder("qwen2-vl")
    cases[f"vlm:{where}?format=colpali"] = "unknown value of format .*known: auto, dse"
    cases[f"vlm:{where}?max_pixels=0"] = "max_pixels must be at least 1"
    cases[f"vlm:{where}?adapter=/nowhere"] = "there is no adapter /nowhere"
    cases["vlm:/nowhere"] = "there is no directory /nowhere"
    for spec, message in cases.items():
        with pytest.raises(InputError, match=message) as error:
            load_encoder(spec)
        assert "\n" not in str(error.value)


def test_a_model_saved_without_its_language_head_is_read(folder, tmp_path, items):
    body = tmp_path / "body"
    shutil.copytree(folder("qwen2-vl"), body)
    (body / "model.safetensors").unlink()
    transformers.AutoModel.from_pretrained(folder("qwen2-vl")).save_pretrained(body)
    assert json.loads((body / "config.json").read_text())["architectures"] == ["Qwen2VLModel"]
    found = encode_matrix(opened(body), items, "query")
    np.testing.assert_allclose(found, encode_matrix(opened(folder("qwen2-vl")), items, "query"), atol=1e-5)
