"""Text encoders: BERT, SPLADE, ColBERT; and what sentence-transformers writes beside a checkpoint."""

from __future__ import annotations

import json
from pathlib import Path

from .tokenizers import make_tokenizer

SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "initializer_range": 0.3,
}


def save_bert(where: Path) -> Path:
    """A BERT of 2 layers and 32 dimensions with a tokenizer that adds [CLS] and [SEP]."""
    import torch
    from transformers import BertConfig, BertModel

    special = {"pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]", "unk_token": "[UNK]"}
    tokenizer = make_tokenizer("[CLS] $A [SEP]", **special)
    tokenizer.save_pretrained(where)
    config = BertConfig(vocab_size=len(tokenizer), max_position_embeddings=128, **SIZES)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        BertModel(config, add_pooling_layer=False).save_pretrained(where)
    return where


def save_splade(where: Path, encoder: Path) -> Path:
    """`encoder` with the head of a masked language model, as SPLADE's and BLADE's own checkpoints are."""
    import torch
    from transformers import AutoTokenizer, BertConfig, BertForMaskedLM

    AutoTokenizer.from_pretrained(encoder).save_pretrained(where)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = BertForMaskedLM(BertConfig.from_pretrained(encoder)).eval()
        model.cls.predictions.bias.data.normal_()
        model.save_pretrained(where)
    return where


def save_xlmr(where: Path) -> Path:
    """An XLM-R as it is published: its head ends in the table of words, and no token is spare."""
    import torch
    from transformers import XLMRobertaConfig, XLMRobertaForMaskedLM

    special = {
        "cls_token": "<s>",
        "pad_token": "<pad>",
        "sep_token": "</s>",
        "unk_token": "<unk>",
        "mask_token": "<mask>",
    }
    tokenizer = make_tokenizer("<s> $A </s>", **special)
    tokenizer.save_pretrained(where)
    config = XLMRobertaConfig(vocab_size=len(tokenizer), max_position_embeddings=130, pad_token_id=1, **SIZES)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = XLMRobertaForMaskedLM(config)
        model.lm_head.bias.data.normal_()
        model.save_pretrained(where)
    return where


def save_modernbert(where: Path) -> Path:
    """A ModernBERT, some of whose modules do nothing, with its head and a vocabulary that has tokens to spare."""
    import torch
    from transformers import ModernBertConfig, ModernBertForMaskedLM

    special = {"cls_token": "<s>", "pad_token": "<pad>", "sep_token": "</s>", "mask_token": "<mask>"}
    tokenizer = make_tokenizer("<s> $A </s>", **special, one="<unused7>", two="<unused8>", three="<unused9>")
    tokenizer.save_pretrained(where)
    config = ModernBertConfig(vocab_size=len(tokenizer), max_position_embeddings=128, pad_token_id=1, **SIZES)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        ModernBertForMaskedLM(config).save_pretrained(where)
    return where


def save_colbert(where: Path, encoder: Path) -> Path:
    """`encoder` with a projection to 16 dimensions, as ColBERT's own code saves it."""
    import torch
    from safetensors.torch import load_file, save_file
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(encoder)
    tokenizer.add_special_tokens({"mask_token": "[MASK]", "extra_special_tokens": ["[unused0]", "[unused1]"]})
    tokenizer.save_pretrained(where)
    random = torch.Generator().manual_seed(0)
    weights = {f"bert.{name}": tensor for name, tensor in load_file(encoder / "model.safetensors").items()}
    table = weights["bert.embeddings.word_embeddings.weight"]
    more = torch.randn(len(tokenizer) - len(table), 32, generator=random) * 0.3
    weights["bert.embeddings.word_embeddings.weight"] = torch.cat([table, more])
    weights["linear.weight"] = torch.randn(16, 32, generator=random)
    save_file(weights, where / "model.safetensors", {"format": "pt"})
    config = json.loads((encoder / "config.json").read_text())
    config |= {"architectures": ["HF_ColBERT"], "vocab_size": len(tokenizer)}
    (where / "config.json").write_text(json.dumps(config))
    metadata = {"query_token_id": "[unused0]", "doc_token_id": "[unused1]", "query_maxlen": 32, "doc_maxlen": 100}
    metadata |= {"mask_punctuation": True, "attend_to_mask_tokens": False, "similarity": "cosine", "dim": 16}
    (where / "artifact.metadata").write_text(json.dumps(metadata))
    return where


def publish(
    checkpoint: Path, pooling: object, *dense: tuple[int, int], prompts: dict[str, str] | None = None, length: int = 128
) -> Path:
    """Give a checkpoint its sentence-transformers files; `dense` are layers from so many to so many dimensions."""
    import torch
    from safetensors.torch import save_file

    kinds = "sentence_transformers.models."
    modules = [("", "Transformer"), ("1_Pooling", "Pooling")]
    modules += [(f"{n}_Dense", "Dense") for n, _ in enumerate(dense, 2)]
    modules += [(f"{len(modules)}_Normalize", "Normalize")]
    (checkpoint / "modules.json").write_text(
        json.dumps([{"idx": n, "name": str(n), "path": p, "type": kinds + k} for n, (p, k) in enumerate(modules)])
    )
    (checkpoint / "1_Pooling").mkdir()
    (checkpoint / "1_Pooling/config.json").write_text(
        json.dumps({"word_embedding_dimension": 32, "pooling_mode": pooling})
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        for (before, after), (path, _) in zip(dense, modules[2:], strict=False):
            (checkpoint / path).mkdir()
            activation = "torch.nn.modules.activation.Tanh"
            config = {"in_features": before, "out_features": after, "bias": True, "activation_function": activation}
            (checkpoint / path / "config.json").write_text(json.dumps(config))
            weights = {"linear.weight": torch.randn(after, before), "linear.bias": torch.randn(after)}
            save_file(weights, checkpoint / path / "model.safetensors")
    (checkpoint / "sentence_bert_config.json").write_text(
        json.dumps({"max_seq_length": length, "do_lower_case": False})
    )
    (checkpoint / "config_sentence_transformers.json").write_text(json.dumps({"prompts": prompts or {}}))
    return checkpoint
