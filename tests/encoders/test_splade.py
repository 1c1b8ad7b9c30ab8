"""Learned sparse encoders: the numbers of the papers and of sentence-transformers, tables for queries, bad checkpoints."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from crosslens.encoders import splade
from crosslens.encoders.batching import select_terms
from crosslens.encoders.registry import load_encoder
from crosslens.errors import InputError
from crosslens.indexes.registry import create_index
from crosslens.items import Item

TEXTS = [
    "The cat sleeps all day and hunts at night.",
    "Le chat",
    "猫整天睡觉，晚上捕猎。",
    "Кошка спит весь день. " * 12,
    "गर्मी",
]
ITEMS = [Item(f"d{number}", text) for number, text in enumerate(TEXTS)]


def matrix(encoder: Any, items: list[Item] = ITEMS, role: str = "document") -> np.ndarray:
    return np.concatenate([batch.vectors.toarray() for batch in encoder.encode(items, role)])


def by_hand(where: Path, texts: list[str], pooling: str = "max", twice: bool = False) -> np.ndarray:
    """The formula, a text at a time, on the checkpoint as transformers loads it."""
    from transformers import AutoModelForMaskedLM, AutoTokenizer

    tokenizer, model = (AutoTokenizer.from_pretrained(where), AutoModelForMaskedLM.from_pretrained(where).eval())
    rows = []
    for text in texts:
        with torch.inference_mode():
            ids = tokenizer(text, return_tensors="pt", truncation=True)["input_ids"]
            weights = torch.log1p(torch.relu(model(input_ids=ids).logits[0]))
        weights = torch.log1p(weights) if twice else weights
        row = weights.amax(dim=0) if pooling == "max" else weights.sum(dim=0)
        row[tokenizer.all_special_ids] = 0
        rows.append(row.numpy())
    return np.stack(rows)


@pytest.fixture
def copy(tiny_splade: Path, tmp_path: Path) -> Callable[..., Path]:
    """A copy of the checkpoint with more files, given as JSON by name."""

    def made(**files: Any) -> Path:
        where = tmp_path / "checkpoint"
        shutil.copytree(tiny_splade, where)
        for name, content in files.items():
            path = where / name.replace("__", "/")
            path.parent.mkdir(exist_ok=True)
            path.with_name(path.name + ".json").write_text(json.dumps(content))
        return where

    return made


@pytest.mark.parametrize("tokens", [8, 11, 10_000])
@pytest.mark.parametrize(("pooling", "twice"), [("max", False), ("max", True), ("sum", False)])
def test_weights_are_those_of_the_formula(
    tiny_splade: Path, monkeypatch: pytest.MonkeyPatch, pooling: str, twice: bool, tokens: int
) -> None:
    """However few tokens go through the head at a time, texts that end within a part included."""
    activation = "log1p_relu" if twice else "relu"
    encoder = load_encoder(f"splade:{tiny_splade}?dtype=float32&pooling={pooling}&activation={activation}")
    monkeypatch.setitem(splade.LOGITS, "cpu", tokens * encoder.spec.dim * 4)
    seen = []
    encoder.decoder.register_forward_pre_hook(lambda _, states: seen.append(len(states[0])))  # type: ignore[attr-defined]
    found, expected = matrix(encoder), by_hand(tiny_splade, TEXTS, pooling, twice)
    np.testing.assert_allclose(found, expected, atol=2e-5)
    assert max(seen) <= tokens
    assert (found > 0).sum() > 100


def test_special_tokens_have_no_weight_but_their_positions_count(tiny_splade: Path) -> None:
    encoder = load_encoder(f"splade:{tiny_splade}?dtype=float32")
    special = encoder.tokenizer.all_special_ids  # type: ignore[attr-defined]
    assert (matrix(encoder)[:, special] == 0).all()
    encoder.kept[:] = True  # type: ignore[attr-defined]
    assert (matrix(encoder)[:, special] > 0).any()  # so that the line above is a finding
    assert encoder.spec.special_tokens == "[CLS][SEP]"
    assert (encoder.spec.kind, encoder.spec.metric, encoder.spec.normalized) == ("sparse", "dot", False)


def test_few_terms_are_the_strongest(tiny_splade: Path) -> None:
    every = matrix(load_encoder(f"splade:{tiny_splade}?dtype=float32"))
    few = matrix(load_encoder(f"splade:{tiny_splade}?dtype=float32&terms=5"))
    assert ((few > 0).sum(axis=1) == 5).all()
    for row, kept in zip(every, few, strict=True):
        np.testing.assert_allclose(np.sort(kept)[-5:], np.sort(row)[-5:], atol=1e-6)
    terms, weights = select_terms(np.array([0, 2, 1, 2, -1, 2], np.float32), 2)
    assert terms.tolist() == [1, 3]
    assert weights.tolist() == [2, 2]


def st_files(lookup: bool) -> dict[str, Any]:
    """What sentence-transformers 5 and 6 write: symmetric, or with a router and a table for queries."""
    prefix = "sentence_transformers.sparse_encoder.models."
    pooling = {"pooling_strategy": "max", "activation_function": "log1p_relu", "word_embedding_dimension": None}
    if not lookup:
        modules = [
            {"idx": 0, "name": "0", "path": "", "type": f"{prefix}MLMTransformer"},
            {"idx": 1, "name": "1", "path": "1_SpladePooling", "type": f"{prefix}SpladePooling"},
        ]
        return {"modules": modules, "1_SpladePooling__config": pooling}
    types = {
        "query_0_SparseStaticEmbedding": f"{prefix}SparseStaticEmbedding",
        "document_0_MLMTransformer": f"{prefix}MLMTransformer",
        "document_1_SpladePooling": f"{prefix}SpladePooling",
    }
    query, *documents = types
    structure = {"query": [query], "document": documents}
    return {
        "modules": [{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Router"}],
        "router_config": {"types": types, "structure": structure, "parameters": {"default_route": "document"}},
        "query_0_SparseStaticEmbedding__config": {"frozen": False},
        "document_1_SpladePooling__config": pooling,
    }


def test_as_sentence_transformers_encodes(copy: Callable[..., Path], tmp_path: Path) -> None:
    """Its own SparseEncoder, saved by itself with a router and a table, is the oracle."""
    st = pytest.importorskip("sentence_transformers")
    from sentence_transformers.base.modules import Transformer
    from sentence_transformers.sentence_transformer.modules import Router
    from sentence_transformers.sparse_encoder.modules import SparseStaticEmbedding, SpladePooling

    where = copy()
    model = Transformer(str(where), transformer_task="fill-mask")
    table = torch.rand(len(model.tokenizer), generator=torch.Generator().manual_seed(0))
    static = SparseStaticEmbedding(model.tokenizer, weight=table)
    router = Router.for_query_document(
        query_modules=[static], document_modules=[model, SpladePooling("max", "log1p_relu")]
    )
    st.SparseEncoder(modules=[router], device="cpu").save_pretrained(str(tmp_path / "saved"))
    theirs = st.SparseEncoder(str(tmp_path / "saved"), device="cpu")
    ours = load_encoder(f"splade:{tmp_path / 'saved'}?dtype=float32")
    assert ours.spec.extra["activation"] == "log1p_relu"
    for role, encode in (("document", theirs.encode_document), ("query", theirs.encode_query)):
        expected = encode(TEXTS, convert_to_tensor=True).to_dense().float().numpy()
        expected[:, ours.tokenizer.all_special_ids] = 0  # type: ignore[attr-defined]
        found = matrix(ours, role=role)
        assert (found > 0).any()
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_queries_by_lookup_as_opensearch_publishes_them(copy: Callable[..., Path]) -> None:
    """`idf.json` beside the model: each different token of a query once, the model never asked."""
    where = copy(idf={"a": 1.5, "b": 0.25, "[SEP]": 9.0, "c": 0})
    encoder = load_encoder(f"splade:{where}?dtype=float32")
    np.testing.assert_allclose(matrix(encoder), by_hand(where, TEXTS), atol=2e-5)
    encoder.model.forward = None  # type: ignore[attr-defined]
    row = matrix(encoder, [Item("q", "a b a d c")], "query")[0]
    named = dict(zip(encoder.tokenizer.convert_ids_to_tokens(np.flatnonzero(row)), row[row > 0], strict=True))  # type: ignore[attr-defined]
    assert named["a"] == 1.5
    assert set(named) <= {"a", "b"}
    through = load_encoder(f"splade:{where}?dtype=float32&lookup=false")
    assert through.spec.fingerprint != encoder.spec.fingerprint
    assert not np.allclose(matrix(through, role="query"), matrix(encoder, role="query"))


def test_a_masked_language_model_that_may_be_plain_is_warned_of(
    tiny_xlmr: Path, tiny_splade: Path, caplog: pytest.LogCaptureFixture
) -> None:
    load_encoder(f"splade:{tiny_splade}")
    assert not caplog.text
    load_encoder(f"splade:{tiny_xlmr}")
    assert f"it finds little (crosslens train encoder EXAMPLES --base splade:{tiny_xlmr})" in caplog.text


def test_blade_reads_lower_case(tiny_splade: Path, tmp_path: Path) -> None:
    where = tmp_path / "blade-en-zh"
    shutil.copytree(tiny_splade, where)
    upper, lower = [Item("q", "THE CAT")], [Item("q", "the cat")]
    blade, plain = (load_encoder(f"splade:{where}?dtype=float32"), load_encoder(f"splade:{tiny_splade}?dtype=float32"))
    np.testing.assert_array_equal(matrix(blade, upper), matrix(plain, lower))
    assert not np.allclose(matrix(plain, upper), matrix(plain, lower))
    as_written = load_encoder(f"splade:{where}?dtype=float32&lowercase=false")
    np.testing.assert_array_equal(matrix(as_written, upper), matrix(plain, upper))
    assert as_written.spec.fingerprint != blade.spec.fingerprint


def test_an_index_of_it_finds_what_was_put_in(tiny_splade: Path, tmp_path: Path) -> None:
    encoder = load_encoder(f"splade:{tiny_splade}?dtype=float32&terms=60")
    index = create_index(tmp_path / "index", kind="sparse", lexical=False)
    assert index.add(ITEMS, encoder) == len(ITEMS)
    run = index.search([Item("q", TEXTS[0]), Item("r", TEXTS[3])], 5)
    vectors = matrix(encoder)
    for query, row in (("q", 0), ("r", 3)):
        assert dict(run[query])[f"d{row}"] == pytest.approx(float(vectors[row] @ vectors[row]), rel=1e-5)
        scores = vectors @ vectors[row]
        assert [hit.id for hit in run[query]] == [f"d{n}" for n in np.argsort(-scores)]


@pytest.mark.parametrize(
    ("files", "options", "text"),
    [
        ({}, "lookup=true", r"has no weights for queries \(idf.json\): leave lookup out"),
        ({}, "terms=-1", "terms must be at least 0, not -1"),
        ({}, "max_tokens=1000", r"max_tokens must be in 3\.\.128, not 1000"),
        ({"idf": [1, 2]}, "", "is not a JSON object of tokens and their weights"),
        ({"modules": [{"path": "", "type": "x.SparseAutoEncoder"}]}, "", "its module SparseAutoEncoder is not"),
        ({"modules": [{"path": "", "type": "x.Router"}]}, "", "no router_config.json"),
        (st_files(lookup=True), "", "its weights for queries, is missing"),
        (st_files(lookup=False) | {"1_SpladePooling__config": {"pooling_strategy": "mean"}}, "", "is 'mean', not one"),
    ],
)
def test_what_cannot_be(copy: Callable[..., Path], files: dict[str, Any], options: str, text: str) -> None:
    with pytest.raises(InputError, match=text) as caught:
        load_encoder(f"splade:{copy(**files)}?dtype=float32&{options}".rstrip("&"))
    assert "\n" not in str(caught.value)


def test_checkpoints_that_are_no_masked_language_model(
    tiny_encoder: Path, tiny_splade: Path, copy: Callable[..., Path]
) -> None:
    with pytest.raises(
        InputError, match=r"missing from the checkpoint: cls\.predictions.*splade: needs a masked language model"
    ):
        load_encoder(f"splade:{tiny_encoder}?dtype=float32")
    where = copy()
    (where / "tokenizer.json").unlink()
    with pytest.raises(InputError, match="has no tokenizer"):
        load_encoder(f"splade:{where}?dtype=float32")
    shutil.copy(tiny_splade / "tokenizer.json", where)
    (where / "model.safetensors").rename(where / "pytorch_model.bin")
    with pytest.raises(InputError, match="pickled weights only.*AutoModelForMaskedLM"):
        load_encoder(f"splade:{where}?dtype=float32")
