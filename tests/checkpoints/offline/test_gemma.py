"""Gemma from a GGUF file: its tokenizer, and the real model."""

from __future__ import annotations

import os

import pytest
from crosslens.checkpoints.offline import gemma as offline_gemma
from tiny.packages import E5_IDS, join_files, make_or_skip


def test_merges_rank_by_what_they_make():
    tokens = ["a", "b", "c", "bc", "ab", "abc"]
    assert offline_gemma.rebuild_merges(tokens) == [("b", "c"), ("a", "b"), ("ab", "c"), ("a", "bc")]


def test_gemma_is_a_language_model():
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    path = make_or_skip("gemma")
    tokenizer = AutoTokenizer.from_pretrained(path)
    assert tokenizer("").input_ids == [2]
    assert tokenizer.padding_side == "left"
    assert tokenizer("The  capital\n\n중").input_ids[0] == tokenizer.bos_token_id == 2
    assert tokenizer.decode(tokenizer("The  capital\n\n중😀").input_ids, skip_special_tokens=True) == (
        "The  capital\n\n중😀"
    )
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    with torch.inference_mode():
        logits = model(**tokenizer("The capital of France is", return_tensors="pt")).logits[0, -1]
    assert "Paris" in tokenizer.decode(logits.topk(3).indices)


@pytest.mark.skipif(not os.environ.get("CROSSLENS_SLOW"), reason="takes minutes; set CROSSLENS_SLOW=1")
def test_rounding_to_bfloat16_costs_gemma_little(tmp_path):
    """The real file's logits in float32, against those of `from_pretrained(gguf_file=)`."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    path = make_or_skip("gemma")
    join_files("gemma", tmp_path / "gemma.gguf")
    tokenizer = AutoTokenizer.from_pretrained(path)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="gemma.gguf", dtype=torch.float32)
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    # What the rounding costs: measured 0.9998 at worst, 0.015 nats a token, 0.001 to 0.006 over a passage.
    drift = []
    for text in (*E5_IDS, "The capital of France is Paris, and the river"):
        ids = tokenizer(text, return_tensors="pt").input_ids
        with torch.inference_mode():
            ours, reference = model(ids).logits[0], theirs(ids).logits[0]
        assert torch.cosine_similarity(ours, reference, dim=-1).min() > 0.9995
        drift.append((ours.log_softmax(-1) - reference.log_softmax(-1))[:-1].gather(1, ids[0, 1:, None]).abs())
    assert torch.cat(drift).mean() < 0.03
