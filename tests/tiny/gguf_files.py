"""Tiny GGUF files with random weights, with tensor types and metadata as in the real ones."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest


@contextmanager
def writing(path: Path, architecture: str, **sizes: int) -> Iterator[tuple[Any, Any]]:
    """gguf's writer, whose file is written at the end, and a function that adds a random tensor by name and shape."""
    gguf = pytest.importorskip("gguf")
    kinds = gguf.GGMLQuantizationType
    random = np.random.default_rng(0)
    writer = gguf.GGUFWriter(str(path), architecture)
    for name, size in sizes.items():
        getattr(writer, f"add_{name}")(size)

    def add(name: str, *shape: int) -> None:
        values = random.standard_normal(shape).astype(np.float32) * (0.1 if len(shape) > 1 else 0.3)
        if len(shape) == 1:
            writer.add_tensor(name, values + ("norm" in name))
        else:
            kind = kinds.Q8_0 if "attn" in name or "token" in name else kinds.Q5_0
            writer.add_tensor(name, gguf.quants.quantize(values, kind), raw_dtype=kind)

    yield writer, add
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def write_gemma(path: Path) -> None:
    """A Gemma 3 of six layers, one of them with full attention."""
    words = ["a", "b", "c", "▁", "ab", "abc", "▁a", "▁ab", "  ", "é"]
    tokens = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", *(f"<0x{byte:02X}>" for byte in range(256)), *words]
    sizes = {"context_length": 128, "embedding_length": 64, "block_count": 6, "feed_forward_length": 96}
    # transformers takes the attention scale for heads of 256, whatever the file says
    heads = {"head_count": 1, "head_count_kv": 1, "key_length": 256, "value_length": 256, "sliding_window": 4}
    with writing(path, "gemma3", **sizes, **heads) as (writer, add):
        writer.add_layer_norm_rms_eps(1e-6)
        writer.add_rope_freq_base(1000000.0)
        writer.add_tokenizer_model("llama")
        writer.add_token_list(tokens)
        writer.add_token_scores([0.0] * len(tokens))
        writer.add_token_types([3] * 5 + [6] * 256 + [4 if word == "  " else 1 for word in words])
        for role, i in (("pad", 0), ("eos", 1), ("bos", 2), ("unk", 3)):
            getattr(writer, f"add_{role}_token_id")(i)
        writer.add_add_bos_token(True)
        writer.add_add_space_prefix(False)
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


TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def write_qwen(path: Path, tied: bool = False) -> None:
    """A Qwen2 of two layers with a chat template, two key heads for four query heads and pieces that fill it up."""
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    merges = ["a b", "ab c", "Ġ ab", "Ġ a", "Y es", "N o", "e s"]
    pieces = [*bytes_to_unicode().values(), *(merge.replace(" ", "") for merge in reversed(merges))]
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<tool_call>"]
    fillers = ["[PAD1]", "[PAD2]"]
    end = len(pieces)
    sizes = {"context_length": 256, "embedding_length": 64, "block_count": 2, "feed_forward_length": 96}
    with writing(path, "qwen2", **sizes, head_count=4, head_count_kv=2) as (writer, add):
        writer.add_layer_norm_rms_eps(1e-6)
        writer.add_rope_freq_base(1000000.0)
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre("qwen2")
        writer.add_token_list([*pieces, *special, *fillers])
        writer.add_token_types([1] * end + [3, 3, 3, 4] + [5] * len(fillers))
        writer.add_token_merges(merges)
        writer.add_eos_token_id(end + 2)
        writer.add_pad_token_id(end)
        writer.add_bos_token_id(end)
        writer.add_add_bos_token(False)
        writer.add_chat_template(TEMPLATE)
        add("token_embd.weight", end + len(special) + len(fillers), 64)
        add("output_norm.weight", 64)
        if not tied:
            add("output.weight", end + len(special) + len(fillers), 64)
        for layer in range(2):
            for part, *shape in (
                ("attn_q", 64, 64),
                ("attn_k", 32, 64),
                ("attn_v", 32, 64),
                ("attn_output", 64, 64),
                ("ffn_gate", 96, 64),
                ("ffn_up", 96, 64),
                ("ffn_down", 64, 96),
                ("attn_norm", 64),
                ("ffn_norm", 64),
            ):
                add(f"blk.{layer}.{part}.weight", *shape)
            for part, width in (("attn_q", 64), ("attn_k", 32), ("attn_v", 32)):
                add(f"blk.{layer}.{part}.bias", width)


def cut_file(whole: Path, folder: Path, *places: int) -> list[Path]:
    """The parts of a file, cut at these places."""
    data = whole.read_bytes()
    found = []
    for n, (start, end) in enumerate(zip((0, *places), (*places, len(data)), strict=True)):
        found.append(folder / f"part{n}")
        found[-1].write_bytes(data[start:end])
    return found
