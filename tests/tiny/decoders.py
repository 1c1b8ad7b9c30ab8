"""Decoder language models."""

from __future__ import annotations

from pathlib import Path

from .text import publish
from .tokenizers import make_tokenizer

SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "intermediate_size": 64,
    "max_position_embeddings": 512,
    "initializer_range": 0.3,
}


def save_llm(where: Path, kind: str = "Llama", template: str = "<s> $A", headed: bool = True, **config: object) -> Path:
    """A decoder of 2 layers and 32 dimensions, seeded; its tokenizer puts its special tokens as in `template`.

    `kind` is the name of its classes in transformers (`Llama`, `Qwen3`, `Gemma3`), `headed` whether it is saved as a
    language model.
    """
    import torch
    import transformers

    special = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<end>"}
    tokenizer = make_tokenizer(template, **special)
    tokenizer.save_pretrained(where)
    text = "Text" if kind == "Gemma3" else ""
    made = getattr(transformers, f"{kind}{text}Config")(
        vocab_size=len(tokenizer),
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        **{**SIZES, **config},
    )
    name = f"{kind}ForCausalLM" if headed else f"{kind}{text}Model"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        getattr(transformers, name)(made).save_pretrained(where)
    return where


def save_gemma(where: Path) -> Path:
    """A Gemma 3 of 2 layers (one with a sliding window) and 32 dimensions."""
    import torch
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig

    tokenizer = make_tokenizer(pad_token="<pad>", eos_token="<eos>", bos_token="<bos>", unk_token="<unk>")
    tokenizer.save_pretrained(where)
    config = Gemma3TextConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        intermediate_size=64,
        max_position_embeddings=512,
        sliding_window=256,
        layer_types=["sliding_attention", "full_attention"],
        initializer_range=0.3,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        Gemma3ForCausalLM(config).save_pretrained(where)
    return where


def save_embedding_gemma(where: Path) -> Path:
    """A Gemma 3 that attends both ways, with beginning and end, and mean pooling, as EmbeddingGemma."""
    layers = {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 16}
    save_llm(where, "Gemma3", "<s> $A </s>", headed=False, use_bidirectional_attention=True, **layers)
    return publish(where, "mean", prompts={"query": "task: search result | query: ", "document": "text: "})
