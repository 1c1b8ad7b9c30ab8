"""Which encoders may have shorter vectors, and where that is known from."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from crosslens.encoders.base import EncoderSpec, unit
from crosslens.encoders.matryoshka import cut_vectors, find_shortest
from crosslens.errors import InputError
from stand_ins.table import table


@table(
    ("files", "shortest"),
    [
        ({}, None),
        ({"config.json": {"hidden_size": 384}}, None),
        ({"config.json": {"is_matryoshka": True}}, 1),
        ({"config.json": {"matryoshka_dimensions": [64, 32, 128]}}, 32),
        ({"training.json": {"recipe": {"dims": [256, 64]}}, "config.json": {"matryoshka_dimensions": [8]}}, 64),
        ({"training.json": {"recipe": {"dims": []}}, "config.json": {}}, None),
    ],
)
def test_a_checkpoint_says_so_in_its_files(tmp_path, files, shortest):
    for name, content in files.items():
        (tmp_path / name).write_text(json.dumps(content))
    assert find_shortest(f"hf:{tmp_path}?max_tokens=64") == shortest


@table(
    ("name", "shortest"),
    [
        ("llm:Qwen/Qwen3-Embedding-0.6B?dim=512", 32),
        ("hf:nomic-ai/nomic-embed-text-v1.5", 64),
        ("hf:nomic-ai/nomic-embed-text-v1", None),
        ("hf:intfloat/multilingual-e5-small", None),
        ("offline:e5-small", None),
        ("ensemble", None),
    ],
)
def test_some_names_are_known(name, shortest):
    assert find_shortest(name) == shortest


def test_cut_vectors_have_length_1_again_where_they_had():
    spec = EncoderSpec("llm:Qwen/Qwen3-Embedding-0.6B", "1", ("text",), 64)
    vectors = unit(np.random.default_rng(0).standard_normal((5, 64)))
    np.testing.assert_array_equal(cut_vectors(vectors, spec, 40), unit(vectors[:, :40]))
    np.testing.assert_array_equal(cut_vectors(vectors, replace(spec, normalized=False), 40), vectors[:, :40])
    for dim in (31, 65):
        with pytest.raises(InputError, match=rf"dimensions must be in 32\.\.64 for this model, not {dim}"):
            cut_vectors(vectors, spec, dim)
    with pytest.raises(InputError, match="dimensions must be 64, not 40"):
        cut_vectors(vectors, replace(spec, kind="multi"), 40)
