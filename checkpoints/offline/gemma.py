"""Gemma 3 from a GGUF file to a Gemma3ForCausalLM checkpoint."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .gguf import CONTROL, USER_DEFINED, open_gguf, rename_tensor, write_weights
from .packages import save_json, write_tokenizer

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

    def adjust(name: str, values: np.ndarray) -> np.ndarray:
        # GGUF keeps a norm's factor, Gemma's modules its distance from 1.
        return values - 1 if name.endswith("norm.weight") else values

    with open_gguf(parts, "gemma3") as (file, meta, tensors):
        write_weights(file, tensors, directory, lambda name: rename_tensor(name, OUTER, LAYER), adjust)
    _write_config(meta, directory)
    _write_tokenizer(meta, directory)


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
