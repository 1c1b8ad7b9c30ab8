"""Qwen2 (Qwen2.5-Coder among them) from a GGUF file to a Qwen2ForCausalLM checkpoint with its chat template."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .gguf import CONTROL, UNUSED, USER_DEFINED, Tensor, open_gguf, rename_tensor, write_weights
from .packages import save_json, write_tokenizer

OUTER = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}

# How Qwen's tokenizer parts a text before its merges: the file only names it.
PARTS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def convert_qwen(parts: Sequence[Path], directory: Path) -> None:
    """Write configs, bfloat16 safetensors and tokenizer of the file that `parts` make when joined."""
    with open_gguf(parts, "qwen2") as (file, meta, tensors):
        write_weights(file, tensors, directory, lambda name: rename_tensor(name, OUTER, LAYER))
    _write_config(meta, tensors, directory)
    _write_tokenizer(meta, directory)


def _write_config(meta: dict[str, Any], tensors: Sequence[Tensor], directory: Path) -> None:
    shapes = {each.name: each.shape for each in tensors}
    end, fill = (meta[f"tokenizer.ggml.{role}_token_id"] for role in ("eos", "padding"))
    config = {
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": "qwen2",
        "vocab_size": shapes["token_embd.weight"][0],
        "hidden_size": meta["qwen2.embedding_length"],
        "intermediate_size": meta["qwen2.feed_forward_length"],
        "num_hidden_layers": meta["qwen2.block_count"],
        "num_attention_heads": meta["qwen2.attention.head_count"],
        "num_key_value_heads": meta["qwen2.attention.head_count_kv"],
        "max_position_embeddings": meta["qwen2.context_length"],
        "rms_norm_eps": round(meta["qwen2.attention.layer_norm_rms_epsilon"], 12),
        "hidden_act": "silu",
        "rope_parameters": {"rope_type": "default", "rope_theta": meta["qwen2.rope.freq_base"]},
        # A tied model may be saved with an output matrix that was quantised otherwise: then it is another one.
        "tie_word_embeddings": "output.weight" not in shapes,
        "eos_token_id": end,
        "pad_token_id": fill,
        "dtype": "bfloat16",
    }
    save_json(directory / "config.json", config)
    # A turn ends with one, a text without turns with the other.
    save_json(directory / "generation_config.json", {"eos_token_id": [end, fill], "pad_token_id": fill})


def _write_tokenizer(meta: dict[str, Any], directory: Path) -> None:
    """Qwen's byte-level BPE; composed forms (NFC), which the file does not mention, are its publisher's choice."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

    tokens: list[str] = meta["tokenizer.ggml.tokens"]
    kinds = meta["tokenizer.ggml.token_type"].tolist()
    # Unused pieces only fill the matrix up to a round size.
    pieces = {token: number for number, token in enumerate(tokens) if kinds[number] != UNUSED}
    merges = [tuple(merge.split(" ")) for merge in meta["tokenizer.ggml.merges"]]
    tokenizer = Tokenizer(models.BPE(pieces, merges))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(PARTS), "isolated"), pre_tokenizers.ByteLevel(False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_tokens(
        [
            AddedToken(token, normalized=False, special=kind == CONTROL)
            for token, kind in zip(tokens, kinds, strict=True)
            if kind in (CONTROL, USER_DEFINED)
        ]
    )
    special = {
        "eos": tokens[meta["tokenizer.ggml.eos_token_id"]],
        "pad": tokens[meta["tokenizer.ggml.padding_token_id"]],
    }
    if meta.get("tokenizer.ggml.add_bos_token"):
        special["bos"] = tokens[meta["tokenizer.ggml.bos_token_id"]]
    template = meta["tokenizer.chat_template"]
    write_tokenizer(
        directory, tokenizer, meta["qwen2.context_length"], special, padding_side="left", chat_template=template
    )
