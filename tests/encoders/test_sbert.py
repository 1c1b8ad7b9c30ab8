"""The st: encoder, and through it ours against sentence-transformers on every kind of checkpoint that both load."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from crosslens.encoders import registry
from crosslens.encoders.base import encode_matrix
from crosslens.errors import InputError
from crosslens.items import Item
from safetensors.torch import load_file
from tiny.text import publish

# All scripts and lengths, more than a batch of the library's.
TEXTS = [
    "The cat sleeps all day and hunts at night.",
    "猫整天睡觉，晚上捕猎。",
    "گربه تمام روز می‌خوابد.",
    "Кошка спит весь день. " * 30,
    "แมวนอนทั้งวัน 😀👩‍👩‍👧‍👦 🇫🇷",
    "बिल्ली दिन भर सोती है। جلست القطة",
    "a",
    ".",
    " \t x \n",
    "e\u0301 Z\u0351\u036b \u200fשלום\u200f",
] + [f"{n} " + "again and " * (n * 7 % 40) for n in range(40)]
ITEMS = [Item(str(n), text) for n, text in enumerate(TEXTS)]
PROMPTS = {"query": "Instruct: Find the passage\nQuery:", "document": "Text: "}

# family -> how its checkpoint is made: pooling, dense layers, and for a decoder its class, template and configuration.
HF = {"mean": ("mean", []), "cls": ("cls", []), "last": ("lasttoken", []), "dense, as LaBSE": ("cls", [(32, 24)])}
BOTH = {"is_causal": False}
GEMMA = {
    "use_bidirectional_attention": True,
    "sliding_window": 16,
    "layer_types": ["sliding_attention", "full_attention"],
}
LLM = {
    "E5-Mistral": ("lasttoken", [], "Mistral", "<s> $A </s>", {"sliding_window": None}),
    "Qwen3-Embedding": ("lasttoken", [], "Qwen3", "$A <pad>", {}),
    "gte-Qwen2": ("lasttoken", [], "Qwen2", "$A </s>", BOTH),
    "DRAMA": ("mean", [], "Llama", "<s> $A </s>", BOTH),
    "EmbeddingGemma": ("mean", [(32, 48), (48, 32)], "Gemma3", "<s> $A </s>", GEMMA),
    "without an end": ("lasttoken", [], "Llama", "<s> $A", {}),
}


def load(checkpoint: object, options: str = "", family: str = "st"):
    return registry.load_encoder(
        f"{family}:{checkpoint}?dtype=float32" + (f"&{options}" if options else ""), device="cpu"
    )


@pytest.fixture
def checkpoint(tiny_encoder, tmp_path) -> Path:
    return Path(shutil.copytree(tiny_encoder, tmp_path / "checkpoint"))


@pytest.mark.parametrize("kind", [f"hf: {kind}" for kind in HF] + [f"llm: {kind}" for kind in LLM])
def test_ours_equals_the_library(kind, checkpoint, llm_folder):
    family, _, name = kind.partition(": ")
    if family == "hf":
        pooling, dense = HF[name]
    else:
        pooling, dense, architecture, template, config = LLM[name]
        checkpoint = llm_folder("tiny", architecture, template, False, **config)
    publish(checkpoint, pooling, *dense, prompts=PROMPTS)
    theirs, ours = load(checkpoint), load(checkpoint, family=family)
    assert ours.spec.dim == theirs.spec.dim == (dense[-1][1] if dense else 32)
    assert (ours.spec.query_prompt, ours.spec.document_prompt) == tuple(PROMPTS.values())
    assert (theirs.spec.query_prompt, theirs.spec.document_prompt) == tuple(PROMPTS.values())
    for role in ("query", "document"):
        found, expected = encode_matrix(ours, ITEMS, role), encode_matrix(theirs, ITEMS, role)
        assert (found * expected).sum(1).min() > 0.9999
        # The texts differ, so that equal rows are a finding.
        assert np.median(expected @ expected.T) < 0.99


# The pooling of sparse encoders: strategy, activation.
SPLADE = {"SPLADE-v3": ("max", "relu"), "opensearch v3": ("max", "log1p_relu"), "SPLADE of 2021": ("sum", "relu")}


@pytest.mark.parametrize("kind", SPLADE)
@pytest.mark.filterwarnings("ignore:Sparse CSR")
def test_ours_equals_the_librarys_sparse_encoder(kind, tiny_splade, tmp_path):
    from sentence_transformers import SparseEncoder
    from sentence_transformers.base.modules import Transformer
    from sentence_transformers.sparse_encoder.modules import SpladePooling

    modules = [Transformer(str(tiny_splade), transformer_task="fill-mask"), SpladePooling(*SPLADE[kind])]
    SparseEncoder(modules=modules, device="cpu", prompts=PROMPTS).save_pretrained(str(tmp_path))
    theirs, ours = SparseEncoder(str(tmp_path), device="cpu"), load(tmp_path, family="splade")
    assert (ours.spec.pooling, ours.spec.extra["activation"]) == SPLADE[kind]
    assert (ours.spec.query_prompt, ours.spec.document_prompt) == tuple(PROMPTS.values())
    for role, encode in (("query", theirs.encode_query), ("document", theirs.encode_document)):
        expected = encode(TEXTS, convert_to_tensor=True).to_dense().float().numpy()
        expected[:, ours.tokenizer.all_special_ids] = 0  # which trained models leave at 0 themselves
        found = np.concatenate([batch.vectors.toarray() for batch in ours.encode(ITEMS, role)])
        lengths = np.linalg.norm(found, axis=1) * np.linalg.norm(expected, axis=1)
        assert ((found * expected).sum(1) / lengths).min() > 0.9999
        assert np.median(found @ found.T / np.outer(*[np.linalg.norm(found, axis=1)] * 2)) < 0.999


def test_it_is_the_library(checkpoint):
    from sentence_transformers import SentenceTransformer

    publish(checkpoint, "mean", prompts=PROMPTS)
    model = SentenceTransformer(str(checkpoint), device="cpu")
    encoder = load(checkpoint, "batch_size=7")
    np.testing.assert_allclose(encode_matrix(encoder, ITEMS, "query"), model.encode_query(TEXTS), atol=1e-5)
    np.testing.assert_allclose(encode_matrix(encoder, ITEMS, "document"), model.encode_document(TEXTS), atol=1e-5)
    assert encoder.spec.pooling == "Transformer+Pooling(mean)+Normalize"
    assert encoder.spec.special_tokens == "[CLS][SEP]"
    assert encoder.spec.max_tokens == 128


def test_prompts_are_chosen_by_name(checkpoint):
    publish(checkpoint, "mean", prompts={"query": "Q: ", "passage": "P: ", "Retrieval-query": "R: "})
    spec = load(checkpoint).spec
    # The library's document prompt is empty unless the checkpoint has one of that very name.
    assert (spec.query_prompt, spec.document_prompt) == ("Q: ", "")
    named = load(checkpoint, "query_prompt_name=Retrieval-query&document_prompt_name=passage")
    assert (named.spec.query_prompt, named.spec.document_prompt) == ("R: ", "P: ")
    ours = load(checkpoint, "query_prompt=R:+", "hf")
    for role in ("query", "document"):
        assert (encode_matrix(named, ITEMS, role) * encode_matrix(ours, ITEMS, role)).sum(1).min() > 0.9999
    with pytest.raises(InputError, match=r"unknown prompt of .* did you mean passage\?"):
        load(checkpoint, "document_prompt_name=pasage")


def test_dimensions_lengths_and_raw_vectors(checkpoint):
    publish(checkpoint, "mean", (32, 24))
    raw = load(checkpoint, "dim=8&max_tokens=20")
    ours = load(checkpoint, "dim=8&max_tokens=20", "hf")
    assert raw.spec.dim == 8
    np.testing.assert_allclose(encode_matrix(raw, ITEMS, "document"), encode_matrix(ours, ITEMS, "document"), atol=1e-5)
    assert raw.spec.fingerprint != load(checkpoint).spec.fingerprint
    for options, range_ in (("dim=25", "1..24"), ("max_tokens=129", "3..128")):
        with pytest.raises(InputError, match=f"must be in {range_}"):
            load(checkpoint, options)
    with pytest.raises(InputError, match="batch_size must be at least 1"):
        load(checkpoint, "batch_size=0")


def test_what_cannot_be_loaded(checkpoint, tmp_path, monkeypatch):
    with pytest.raises(InputError, match="there is no directory"):
        load(tmp_path / "nowhere")
    with pytest.raises(InputError, match="there is no device 'cuda:99'"):
        registry.load_encoder(f"st:{checkpoint}", device="cuda:99")
    publish(checkpoint, "mean")
    weights = load_file(checkpoint / "model.safetensors")
    (checkpoint / "model.safetensors").unlink()
    torch.save(weights, checkpoint / "pytorch_model.bin")
    with pytest.raises(InputError, match="pickled weights only"):
        load(checkpoint)
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(InputError, match=r"pip install 'crosslens\[st\]'"):
        load(checkpoint)


@pytest.mark.parametrize(
    ("name", "prompt"),
    [
        ("snowflake-arctic-embed-m-v1.5", "Represent this sentence for searching relevant passages: "),
        ("snowflake-arctic-embed-l-v2.0", "query: "),
    ],
)
def test_the_two_generations_of_arctic_embed_have_prompts_of_their_own(tiny_encoder, tmp_path, name, prompt):
    where = Path(shutil.copytree(tiny_encoder, tmp_path / name))
    assert registry.load_encoder(f"hf:{where}?pooling=cls", device="cpu").spec.query_prompt == prompt


def test_a_last_token_that_ends_nothing_is_warned_of(tiny_llm, tiny_encoder, caplog):
    registry.load_encoder(f"hf:{tiny_encoder}?pooling=last", device="cpu")
    assert "last word" not in caplog.text
    registry.load_encoder(f"hf:{tiny_llm}?pooling=last", device="cpu")
    assert "the vector is the state of a text's last word; llm: appends an end" in caplog.text
