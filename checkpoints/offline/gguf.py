"""Gemma 3 from a GGUF file to a Gemma3ForCausalLM checkpoint.

transformers reads GGUF too, but takes about a minute for this file: its readers walk a vocabulary of 262,144
pieces value by value. The header (GGUF version 3) is read here; the dequantisation is the `gguf` package's.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import InputError
from .packages import Cursor, save_json, write_tokenizer

SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
STRING, ARRAY = 8, 9
CONTROL, USER_DEFINED = 3, 4  # token types that are matched as a whole before the model runs

Tensor = tuple[str, tuple[int, ...], int, int]

# Tied: the file has no output matrix.
OUTER = {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight"}
LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "attn_output": "self_attn.o_proj",
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "post_ffw_norm": "post_feedforward_layernorm",
}


def convert_gemma(parts: Sequence[Path], directory: Path) -> None:
    """Write config, bfloat16 safetensors and tokenizer of the file that `parts` make when joined."""
    data = b"".join(part.read_bytes() for part in parts)
    meta, tensors = read_header(data)
    if meta["general.architecture"] != "gemma3":
        raise InputError(f"a Gemma 3 file is needed, not {meta['general.architecture']!r}")
    _write_weights(data, tensors, directory)
    _write_config(meta, directory)
    _write_tokenizer(meta, directory)


def read_header(data: bytes) -> tuple[dict[str, Any], list[Tensor]]:
    """A GGUF file's metadata, and its tensors as (name, shape in numpy's order, ggml type, offset in file).

    Numeric arrays come as numpy arrays, string arrays as lists.
    """
    cursor = Cursor(data)

    def value(kind: int) -> Any:
        if kind == STRING:
            return cursor.text("Q")
        if kind != ARRAY:
            return cursor.take(SCALARS[kind])[0]
        inner, count = cursor.take("IQ")
        if inner in (STRING, ARRAY):
            return [value(inner) for _ in range(count)]
        return cursor.array("<" + SCALARS[inner], count)

    magic, version, tensor_count, meta_count = cursor.take("4sIQQ")
    if (magic, version) != (b"GGUF", 3):
        raise InputError(f"not a GGUF file of version 3: {magic!r} {version}")
    meta = {cursor.text("Q"): value(cursor.take("I")[0]) for _ in range(meta_count)}
    found = []
    for _ in range(tensor_count):
        name, (dimensions,) = cursor.text("Q"), cursor.take("I")
        shape = cursor.take(f"{dimensions}Q")[::-1]
        found.append((name, shape, *cursor.take("IQ")))
    step = meta.get("general.alignment", 32)
    base = -(-cursor.at // step) * step
    return meta, [(name, shape, kind, base + offset) for name, shape, kind, offset in found]


def _write_weights(data: bytes, tensors: list[Tensor], directory: Path) -> None:
    """In bfloat16: rounding to it loses far less than the quantisation did, and it takes half the space."""
    import torch
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
    from gguf.quants import dequantize
    from safetensors.torch import save_file

    state = {}
    for name, shape, kind, offset in tensors:
        quant = GGMLQuantizationType(kind)
        block, size = GGML_QUANT_SIZES[quant]
        raw = np.frombuffer(data, np.uint8, int(np.prod(shape)) // block * size, offset)
        out = torch.empty(shape, dtype=torch.bfloat16)
        if len(shape) == 1:
            values = torch.from_numpy(np.array(dequantize(raw, quant)))  # a copy: `data` is read-only
            # GGUF keeps a norm's factor, Gemma's modules its distance from 1.
            out.copy_(values - 1 if name.endswith("norm.weight") else values)
        else:
            rows = raw.reshape(shape[0], -1)
            for start in range(0, shape[0], 8192):  # the embedding's float32 form would take 670 MB
                out[start : start + 8192] = torch.from_numpy(dequantize(rows[start : start + 8192], quant))
        if name in OUTER:
            state[OUTER[name]] = out
        else:
            _, layer, part, suffix = name.split(".")
            state[f"model.layers.{layer}.{LAYER[part]}.{suffix}"] = out
    save_file(state, directory / "model.safetensors", metadata={"format": "pt"})


def _write_config(meta: dict[str, Any], directory: Path) -> None:
    layers = meta["gemma3.block_count"]
    kinds = ["full_attention" if i % 6 == 5 else "sliding_attention" for i in range(layers)]
    config = {
        "architectures": ["Gemma3ForCausalLM"],
        "model_type": "gemma3_text",
        "vocab_size": len(meta["tokenizer.ggml.tokens"]),
        "hidden_size": meta["gemma3.embedding_length"],
        "intermediate_size": meta["gemma3.feed_forward_length"],
        "num_hidden_layers": layers,
        "num_attention_heads": meta["gemma3.attention.head_count"],
        "num_key_value_heads": meta["gemma3.attention.head_count_kv"],
        "head_dim": meta["gemma3.attention.key_length"],
        "query_pre_attn_scalar": meta["gemma3.attention.key_length"],
        "max_position_embeddings": meta["gemma3.context_length"],
        "sliding_window": meta["gemma3.attention.sliding_window"],
        "layer_types": kinds,
        "rms_norm_eps": round(meta["gemma3.attention.layer_norm_rms_epsilon"], 12),
        "hidden_activation": "gelu_pytorch_tanh",
        "rope_parameters": {
            "full_attention": {"rope_type": "default", "rope_theta": meta["gemma3.rope.freq_base"]},
            # Not in the file: every Gemma 3's local layers use it.
            "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
        },
        "tie_word_embeddings": True,
        "bos_token_id": meta["tokenizer.ggml.bos_token_id"],
        "eos_token_id": meta["tokenizer.ggml.eos_token_id"],
        "pad_token_id": meta["tokenizer.ggml.padding_token_id"],
        "dtype": "bfloat16",
    }
    save_json(directory / "config.json", config)


def rebuild_merges(tokens: Sequence[str]) -> list[tuple[str, str]]:
    """BPE merges, first to be done first, rebuilt from the pieces: by the id of what they make, longest left.

    Gemma numbers its pieces in the order of their merges; the scores in the file do not follow that order.
    """
    known = frozenset(tokens)
    return [
        (piece[:cut], piece[cut:])
        for piece in tokens
        for cut in range(len(piece) - 1, 0, -1)
        if piece[:cut] in known and piece[cut:] in known
    ]


def _write_tokenizer(meta: dict[str, Any], directory: Path) -> None:
    """Gemma's BPE with byte fallback; <bos> first, spaces written as U+2581, no space put in front."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, processors

    # The file spells pieces of spaces as such; the model sees them after the normaliser below.
    spelled: list[str] = meta["tokenizer.ggml.tokens"]
    tokens = [token if token.strip(" ") else "▁" * len(token) for token in spelled]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    roles = ("bos", "eos", "unknown", "padding")
    bos, eos, unknown, padding = (tokens[meta[f"tokenizer.ggml.{role}_token_id"]] for role in roles)
    tokenizer = Tokenizer(
        models.BPE(vocabulary, rebuild_merges(tokens), unk_token=unknown, fuse_unk=True, byte_fallback=True)
    )
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A", pair=f"{bos} $A {bos}:1 $B:1", special_tokens=[(bos, vocabulary[bos])]
    )
    kinds = meta["tokenizer.ggml.token_type"].tolist()
    tokenizer.add_tokens(
        [
            AddedToken(token, normalized=False, special=kind == CONTROL)
            for token, spelling, kind in zip(tokens, spelled, kinds, strict=True)
            if kind in (CONTROL, USER_DEFINED) and token == spelling
        ]
    )
    special = {"bos": bos, "eos": eos, "unk": unknown, "pad": padding}
    write_tokenizer(directory, tokenizer, meta["gemma3.context_length"], special, padding_side="left")
