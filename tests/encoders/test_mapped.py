"""Queries without torch: the model in numpy, the tokenizer by the pieces that occur, and what falls back."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from crosslens.checkpoints.mapped import map_tensors
from crosslens.checkpoints.offline.packages import is_available, make_checkpoint
from crosslens.checkpoints.pieces import PieceTokenizer
from crosslens.encoders.base import EncoderSpec, encode_matrix
from crosslens.encoders.mapped import MappedBert, gelu, open_mapped
from crosslens.encoders.registry import load_encoder
from crosslens.items import Item
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import AutoConfig, AutoModel

PIECES = [
    ("<s>", 0.0),
    ("</s>", 0.0),
    ("<unk>", 0.0),
    ("▁", -3.0),
    *(
        (part, -1.5 - n / 7)
        for n, part in enumerate(["a", "b", "c", "ab", "abc", "▁a", "▁ab", "bca", "cab", "▁c", "éb", "é", "ca", "▁bb"])
    ),
]


@pytest.fixture(scope="module")
def unigram(tmp_path_factory):
    tokenizer = Tokenizer(models.Unigram(PIECES, 2, byte_fallback=False))
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    tokenizer.add_special_tokens(["<s>", "</s>"])
    tokenizer.post_processor = processors.TemplateProcessing("<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 1)])
    path = tmp_path_factory.mktemp("unigram") / "tokenizer.json"
    tokenizer.save(str(path))
    return path, tokenizer, PieceTokenizer(path)


@given(st.text(st.sampled_from("abcé ź<s>▁ "), max_size=30), st.integers(3, 12))
def test_ids_are_those_of_the_whole_tokenizer(unigram, text, most):
    _, whole, pieces = unigram
    whole.enable_truncation(most)
    assert pieces.encode(text, most) == whole.encode(text).ids


def test_sorted_pieces_are_kept_and_made_again_where_they_are_damaged(unigram):
    path, whole, _ = unigram
    kept = path.with_name("pieces.safetensors")
    before = kept.read_bytes()
    whole.enable_truncation(12)
    for damage in (b"", before[:40], before[:-9]):
        kept.write_bytes(damage)
        assert PieceTokenizer(path).encode("abc ab", 12) == whole.encode("abc ab").ids
        assert kept.stat().st_size == len(before)
    settings = json.loads(path.read_text())
    other = path.with_name("other") / "tokenizer.json"
    other.parent.mkdir()
    other.write_text(json.dumps({**settings, "model": {"type": "WordPiece", "vocab": {}}}))
    with pytest.raises(ValueError, match="WordPiece"):
        PieceTokenizer(other)


def test_states_are_those_of_torch(tiny_encoder, tmp_path):
    """To sixteen roundings of float32, in a model of which each weight moves them by hundreds of times as much."""
    config = AutoConfig.from_pretrained(tiny_encoder, layer_norm_eps=0.01)
    random = torch.Generator().manual_seed(0)
    model = AutoModel.from_config(config, dtype=torch.float32).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(torch.randn(weight.shape, generator=random) * 0.6)
    model.save_pretrained(tmp_path)
    model.double()
    ids = [2, 5, 9, 4, 7, 3]

    def forward():
        with torch.inference_mode():
            return model(torch.tensor([ids])).last_hidden_state[0].numpy()

    exact = forward()
    most = 16 * np.finfo(np.float32).eps * np.abs(exact).max()
    assert np.abs(MappedBert(tmp_path).states(ids) - exact).max() < most
    idle = ("pooler", "attention.self.key.bias")  # which adds the same to all scores of a token
    for name, weight in model.named_parameters():
        if not any(each in name for each in idle):
            kept = weight.detach().clone()
            with torch.no_grad():
                weight.zero_()
            assert np.abs(forward() - exact).max() > 500 * most, name
            with torch.no_grad():
                weight.copy_(kept)


def test_gelu_is_that_of_the_error_function():
    values = np.linspace(-9, 9, 4001, dtype=np.float32)
    exact = torch.nn.functional.gelu(torch.from_numpy(values)).numpy()
    np.testing.assert_allclose(gelu(values), exact, atol=1e-6)


def test_weights_are_mapped_and_not_to_be_written(tiny_encoder, tmp_path):
    arrays = map_tensors(tiny_encoder / "model.safetensors").arrays
    assert not any(each.flags.writeable or each.flags.owndata for each in arrays.values())
    save_file({"w": torch.ones(2, dtype=torch.bfloat16)}, tmp_path / "half.safetensors")
    with pytest.raises(ValueError, match="BF16"):
        map_tensors(tmp_path / "half.safetensors")


def test_only_the_encoder_that_made_the_vectors_is_opened_so():
    if not is_available("e5-small"):
        pytest.skip("needs crosslens[offline]")
    revision = make_checkpoint("e5-small").name
    spec = EncoderSpec("offline:e5-small", revision, ("text",), 384, pooling="mean", max_tokens=512)
    found = open_mapped(spec, "auto")
    assert found is not None
    found.spec.require(spec)
    others = [
        ("name", "offline:e5-small?dtype=int8"),
        ("name", "hf:e5-small"),
        ("revision", "other"),
        ("pooling", "cls"),
    ]
    for key, value in others:
        assert open_mapped(replace(spec, **{key: value}), "auto") is None
    assert open_mapped(spec, "cuda") is None


def test_the_default_pair_is_opened_as_it_made_the_vectors():
    if not (is_available("e5-small") and is_available("use-m3")):
        pytest.skip("needs crosslens[offline]")
    made = load_encoder("offline:e5-use?dtype=float32")
    spec = replace(made.spec, name="offline:e5-use")
    found = open_mapped(spec, "auto")
    assert found is not None
    assert found.spec == spec
    items = [Item("a", "Wie spät ist es in Tokio?", lang="deu"), Item("b", "Τι ώρα είναι;", lang="ell")]
    np.testing.assert_allclose(encode_matrix(found, items, "query"), encode_matrix(made, items, "query"), atol=1e-4)
    weights = {**spec.extra, "languages": [[], []]}
    assert open_mapped(replace(spec, extra=weights), "auto") is None
    assert open_mapped(replace(spec, name="offline:e5-use?dtype=bfloat16"), "auto") is None
