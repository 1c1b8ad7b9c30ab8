"""Gemma from a GGUF file: the conversion against transformers, and the real model."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from crosslens.checkpoints.offline import gguf as offline_gguf
from crosslens.checkpoints.offline import packages as offline
from crosslens.errors import InputError
from tiny.packages import E5_IDS, make_or_skip


def tiny_gguf(path: Path) -> None:
    """A Gemma 3 of six layers with random weights, with tensor types and metadata as in the real file."""
    gguf = pytest.importorskip("gguf")
    kinds = gguf.GGMLQuantizationType
    random = np.random.default_rng(0)
    words = ["a", "b", "c", "▁", "ab", "abc", "▁a", "▁ab", "  ", "é"]
    tokens = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", *(f"<0x{byte:02X}>" for byte in range(256)), *words]
    types = [3] * 5 + [6] * 256 + [4 if word == "  " else 1 for word in words]
    writer = gguf.GGUFWriter(str(path), "gemma3")
    writer.add_context_length(128)
    writer.add_embedding_length(64)
    writer.add_block_count(6)
    writer.add_feed_forward_length(96)
    writer.add_head_count(1)
    writer.add_head_count_kv(1)
    writer.add_key_length(256)  # transformers takes the attention scale for 256 whatever the file says
    writer.add_value_length(256)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(1000000.0)
    writer.add_sliding_window(4)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores([0.0] * len(tokens))
    writer.add_token_types(types)
    for role, i in (("pad", 0), ("eos", 1), ("bos", 2), ("unk", 3)):
        getattr(writer, f"add_{role}_token_id")(i)
    writer.add_add_bos_token(True)
    writer.add_add_space_prefix(False)

    def add(name, *shape):
        values = random.standard_normal(shape).astype(np.float32) * (0.1 if len(shape) > 1 else 0.3)
        if len(shape) == 1:
            writer.add_tensor(name, values + 1)
        else:
            kind = kinds.Q8_0 if "attn" in name or "token" in name else kinds.Q5_0
            writer.add_tensor(name, gguf.quants.quantize(values, kind), raw_dtype=kind)

    add("token_embd.weight", len(tokens), 64)
    add("output_norm.weight", 64)
    for layer in range(6):
        for part, *shape in (
            ("attn_q", 256, 64),
            ("attn_k", 256, 64),
            ("attn_v", 256, 64),
            ("attn_output", 64, 256),
            ("ffn_gate", 96, 64),
            ("ffn_up", 96, 64),
            ("ffn_down", 64, 96),
            ("attn_q_norm", 256),
            ("attn_k_norm", 256),
            ("attn_norm", 64),
            ("post_attention_norm", 64),
            ("ffn_norm", 64),
            ("post_ffw_norm", 64),
        ):
            add(f"blk.{layer}.{part}.weight", *shape)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_gguf_conversion_equals_transformers(tmp_path):
    """Ids equal, logits equal where weights are rounded alike, on a tiny file of the same make."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tiny_gguf(tmp_path / "tiny.gguf")
    whole = (tmp_path / "tiny.gguf").read_bytes()
    parts = [tmp_path / "part0", tmp_path / "part1"]
    parts[0].write_bytes(whole[:5000])
    parts[1].write_bytes(whole[5000:])
    ours = tmp_path / "converted"
    ours.mkdir()
    offline_gguf.convert_gemma(parts, ours)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="tiny.gguf", dtype=torch.float32)
    for parameter in theirs.parameters():
        parameter.data = parameter.data.bfloat16().float()
    model = AutoModelForCausalLM.from_pretrained(ours, dtype=torch.float32)
    assert model.config.layer_types == theirs.config.layer_types
    tokenizer = AutoTokenizer.from_pretrained(ours)
    peer = AutoTokenizer.from_pretrained(tmp_path, gguf_file="tiny.gguf")
    for text in ("", "abc ab", "  a   b", "aé中😀", "<bos>a<eos>", "ab\nc"):
        assert tokenizer(text).input_ids == peer(text).input_ids
        assert tokenizer(text).input_ids[0] == 2
    ids = tokenizer("abc ab a bcab 中 abcabc", return_tensors="pt").input_ids
    with torch.inference_mode():
        torch.testing.assert_close(model(ids).logits, theirs(ids).logits, rtol=1e-4, atol=1e-4)


def test_gguf_of_another_kind_is_refused(tmp_path):
    (tmp_path / "x").write_bytes(b"GGML" + bytes(60))
    with pytest.raises(InputError, match="not a GGUF file of version 3"):
        offline_gguf.convert_gemma([tmp_path / "x"], tmp_path)


def test_merges_rank_by_what_they_make():
    tokens = ["a", "b", "c", "bc", "ab", "abc"]
    assert offline_gguf.rebuild_merges(tokens) == [("b", "c"), ("a", "b"), ("ab", "c"), ("a", "bc")]


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
def test_gemma_equals_transformers_own_conversion(tmp_path):
    """The whole real file against `from_pretrained(gguf_file=)`: tokenizer, and logits in float32."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    path = make_or_skip("gemma")
    files = [file.locate() for file in offline.MODELS["gemma"].files]
    (tmp_path / "gemma.gguf").write_bytes(b"".join(file.read_bytes() for file in files))
    peer = AutoTokenizer.from_pretrained(tmp_path, gguf_file="gemma.gguf")
    tokenizer = AutoTokenizer.from_pretrained(path)
    random = np.random.default_rng(0)
    starts = [0x20, 0xA0, 0x300, 0x400, 0x600, 0x900, 0xE00, 0x1E00, 0x3040, 0x4E00, 0xAC00, 0x1F300, 0x0, 0x10A0]
    for _ in range(5000):
        codes = random.choice(starts, 40) + random.integers(0, 96, 40)
        text = "".join(map(chr, codes.tolist()))
        assert tokenizer(text).input_ids == peer(text).input_ids
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="gemma.gguf", dtype=torch.float32)
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    state = theirs.state_dict()
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, state[name].bfloat16().float()), name
    # What the rounding costs: measured 0.9998 at worst, 0.015 nats a token, 0.001 to 0.006 over a passage.
    drift = []
    for text in (*E5_IDS, "The capital of France is Paris, and the river"):
        ids = tokenizer(text, return_tensors="pt").input_ids
        with torch.inference_mode():
            ours, reference = model(ids).logits[0], theirs(ids).logits[0]
        assert torch.cosine_similarity(ours, reference, dim=-1).min() > 0.9995
        drift.append((ours.log_softmax(-1) - reference.log_softmax(-1))[:-1].gather(1, ids[0, 1:, None]).abs())
    assert torch.cat(drift).mean() < 0.03
