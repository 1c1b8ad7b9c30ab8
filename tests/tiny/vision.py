"""Models that see: CLIP, a vision-language model, and readers of pages."""

from __future__ import annotations

import json
from pathlib import Path

from .tokenizers import make_tokenizer


def save_clip(where: Path, text: dict[str, object], template: str | None = None, **model: object) -> Path:
    """An open_clip directory (its `local-dir:` schema): seeded random weights, a 32-pixel image tower.

    With a `template` the text tower has a tokenizer of its own, which puts its special tokens so.
    """
    import open_clip
    import torch
    from safetensors.torch import save_file

    if template is not None:
        special = {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
        tokenizer = make_tokenizer(template, **special)
        tokenizer.save_pretrained(where)
        text = {"hf_tokenizer_name": "tiny/tokenizer", "vocab_size": len(tokenizer), **text}
    vision = {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 8}
    preprocess = {"mean": [0.5] * 3, "std": [0.25] * 3, "interpolation": "bicubic", "resize_mode": "squash"}
    config = {
        "model_cfg": {"embed_dim": 16, "vision_cfg": vision, "text_cfg": text, **model},
        "preprocess_cfg": preprocess,
    }
    (where / "open_clip_config.json").write_text(json.dumps(config))
    inside = dict(text)
    if "hf_model_name" in text:  # open_clip takes a tower's config from the hub or a path; ours lies in the directory
        inside |= {"hf_model_name": str(where / str(text["hf_model_name"])), "hf_model_pretrained": False}
    custom = "hf_model_name" in text or "custom_text" in model
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        tower = (open_clip.CustomTextCLIP if custom else open_clip.CLIP)(16, vision, inside)
    weights = {name: tensor.clone().contiguous() for name, tensor in tower.state_dict().items()}
    save_file(weights, where / "open_clip_model.safetensors")
    return where


def save_multilingual_clip(where: Path) -> Path:
    """A CLIP whose text tower is an XLM-R, as xlm-roberta-base-ViT-B-32 is."""
    from transformers import XLMRobertaConfig

    size = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    special = {"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2}
    XLMRobertaConfig(vocab_size=600, max_position_embeddings=60, **size, **special).save_pretrained(where / "text")
    text = {"hf_model_name": "text", "hf_pooler_type": "mean_pooler", "context_length": 40}
    return save_clip(where, text, "<s> $A </s>")


# What Qwen-VL's own chat template writes of turns whose content is parts.
QWEN_TEMPLATE = (
    "{% for m in messages %}{% if loop.first and m.role != 'system' %}<|im_start|>system\n"
    "You are a helpful assistant.<|im_end|>\n{% endif %}<|im_start|>{{ m.role }}\n{% for part in m.content %}"
    "{% if part.type == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part.text }}{% endif %}"
    "{% endfor %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def save_qwen_vl(where: Path) -> Path:
    """A Qwen2-VL of 2 layers and 32 dimensions: a picture is as many tokens as it has squares of 8 pixels."""
    from .sighted import SIGHTS, build_qwen2, save_built

    turns = ("<|im_start|>", "<|im_end|>", "<|endoftext|>")
    tokenizer = make_tokenizer(eos_token="<|im_end|>", pad_token="<|endoftext|>")
    tokenizer.add_special_tokens({"extra_special_tokens": [*turns, *SIGHTS]})
    return save_built(where, lambda: build_qwen2(tokenizer, QWEN_TEMPLATE))


def save_colpali(where: Path) -> Path:
    """A ColPali of 2 layers: a page is 16 patches of 8 dimensions, and the words of its prompt."""
    import torch
    import transformers

    tokenizer = make_tokenizer(bos_token="<bos>", eos_token="<eos>", pad_token="<pad>", unk_token="<unk>")
    images = transformers.SiglipImageProcessor(size={"height": 32, "width": 32})
    images.image_seq_length = 16
    processor = transformers.ColPaliProcessor(image_processor=images, tokenizer=tokenizer)
    size = {"intermediate_size": 64, "num_attention_heads": 2}
    text = {
        "model_type": "gemma",
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_key_value_heads": 1,
        "head_dim": 16,
        "max_position_embeddings": 512,
        "initializer_range": 0.3,
        "pad_token_id": tokenizer.pad_token_id,
    }
    vision = {"model_type": "siglip_vision_model", "hidden_size": 16, "num_hidden_layers": 1, "projection_dim": 32}
    backbone = transformers.PaliGemmaConfig(
        text_config=text | size,
        vision_config=vision | size | {"image_size": 32, "patch_size": 8},
        image_token_index=processor.image_token_id,
        projection_dim=32,
        hidden_size=32,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = transformers.ColPaliConfig(vlm_config=backbone, embedding_dim=8)
        transformers.ColPaliForRetrieval(config).float().save_pretrained(where)
    processor.save_pretrained(where)
    return where


def save_colqwen(where: Path, vlm: Path) -> Path:
    """A ColQwen2 on the backbone of `vlm`: a page is as many vectors as it has squares of 8 pixels."""
    import torch
    import transformers

    parts = transformers.AutoProcessor.from_pretrained(vlm)
    processor = transformers.ColQwen2Processor(image_processor=parts.image_processor, tokenizer=parts.tokenizer)
    config = transformers.ColQwen2Config(vlm_config=transformers.AutoConfig.from_pretrained(vlm), embedding_dim=8)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        transformers.ColQwen2ForRetrieval(config).float().save_pretrained(where)
    processor.save_pretrained(where)
    return where
