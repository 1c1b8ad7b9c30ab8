"""Vision-language models of three families, for the tokenizer and the chat template that a test gives them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers

TEXT = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "intermediate_size": 64,
    "initializer_range": 0.3,
    "max_position_embeddings": 512,
}
ROPE = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 3, 3]}
SIZES = {"patch_size": 4, "size": {"shortest_edge": 64, "longest_edge": 1 << 16}}  # of a picture for a Qwen

# The special tokens that a tokenizer needs, by family.
SIGHTS = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
LLAVA = ("<image>",)
IDEFICS = (
    "<image>",
    "<fake_token_around_image>",
    "<global-img>",
    "<end_of_utterance>",
    *(f"<row_{r}_col_{c}>" for r in range(1, 7) for c in range(1, 7)),
)


def text_config(tokenizer, **more):
    ends = {f"{each}_token_id": getattr(tokenizer, f"{each}_token_id") for each in ("bos", "eos", "pad")}
    return {**TEXT, **ends, "vocab_size": len(tokenizer), **more}


def sight_ids(tokenizer):
    start, end, image, video = tokenizer.convert_tokens_to_ids(list(SIGHTS))
    return {
        "vision_start_token_id": start,
        "vision_end_token_id": end,
        "image_token_id": image,
        "video_token_id": video,
    }


def build_qwen2(tokenizer, template):
    """Pictures of any size become as many tokens as they have patches, four to one."""
    config = transformers.Qwen2VLConfig(
        text_config=text_config(tokenizer, rope_parameters=ROPE),
        vision_config={
            "depth": 1,
            "embed_dim": 16,
            "hidden_size": 32,
            "num_heads": 2,
            "mlp_ratio": 2,
            "patch_size": 4,
            "initializer_range": 0.3,
        },
        **sight_ids(tokenizer),
    )
    processor = transformers.Qwen2VLProcessor(
        image_processor=transformers.Qwen2VLImageProcessor(**SIZES),
        tokenizer=tokenizer,
        video_processor=transformers.Qwen2VLVideoProcessor(**SIZES),
        chat_template=template,
    )
    return transformers.Qwen2VLForConditionalGeneration(config), processor


def build_llava(tokenizer, template):
    """Pictures of one size."""
    config = transformers.LlavaConfig(
        text_config=transformers.LlamaConfig(**text_config(tokenizer)),
        vision_config=transformers.CLIPVisionConfig(
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            image_size=16,
            patch_size=4,
            initializer_factor=4.0,
        ),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_seq_length=16,
    )
    processor = transformers.LlavaProcessor(
        image_processor=transformers.CLIPImageProcessor(
            size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16}
        ),
        tokenizer=tokenizer,
        patch_size=4,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=template,
    )
    return transformers.LlavaForConditionalGeneration(config), processor


def build_idefics3(tokenizer, template):
    """Pictures are enlarged, and cut into tiles."""
    processor = transformers.Idefics3Processor(
        image_processor=transformers.Idefics3ImageProcessor(
            size={"longest_edge": 64}, max_image_size={"longest_edge": 16}
        ),
        tokenizer=tokenizer,
        image_seq_len=4,
        chat_template=template,
    )
    config = transformers.Idefics3Config(
        text_config=transformers.LlamaConfig(**text_config(tokenizer)),
        vision_config={
            "hidden_size": 16,
            "intermediate_size": 32,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "image_size": 16,
            "patch_size": 4,
            "initializer_range": 0.3,
        },
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        scale_factor=2,
        pad_token_id=tokenizer.pad_token_id,
    )
    return transformers.Idefics3ForConditionalGeneration(config), processor


def save_built(where: Path, build: Callable[[], tuple[Any, Any]]) -> Path:
    """The model and the processor that `build` makes, with seeded random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model, processor = build()
    model.float().save_pretrained(where)
    processor.save_pretrained(where)
    return where
