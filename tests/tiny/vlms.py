"""Vision-language models of several architectures, by kind."""

from __future__ import annotations

import numpy as np
import PIL.Image
import transformers
from crosslens.encoders.registry import load_encoder
from crosslens.multimodal.vlm import VisionLanguageEncoder

from .tokenizers import make_tokenizer
from .vision import QWEN_TEMPLATE

TEXT = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "intermediate_size": 64,
    "initializer_range": 0.3,
    "max_position_embeddings": 512,
}
SIGHTS = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
LIMIT = 64 * 64


def tokenizer_with(*more, **named):
    tokenizer = make_tokenizer(eos_token="<|im_end|>", pad_token="<|endoftext|>", **named)
    tokenizer.add_special_tokens({"extra_special_tokens": ["<|im_start|>", *more]})
    return tokenizer


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


def qwen3():
    """Pictures as many tokens as they have squares of 8 pixels, and features of theirs in deeper layers."""
    tokenizer = tokenizer_with(*SIGHTS)
    rope = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 3, 3]}
    config = transformers.Qwen3VLConfig(
        text_config=text_config(tokenizer, rope_parameters=rope, head_dim=16),
        vision_config={
            "depth": 2,
            "hidden_size": 16,
            "out_hidden_size": 32,
            "intermediate_size": 32,
            "num_heads": 2,
            "patch_size": 4,
            "num_position_embeddings": 64,
            "deepstack_visual_indexes": [0],
            "initializer_range": 0.3,
        },
        **sight_ids(tokenizer),
    )
    sizes = {"patch_size": 4, "size": {"shortest_edge": 64, "longest_edge": 1 << 16}}
    processor = transformers.Qwen3VLProcessor(
        image_processor=transformers.Qwen2VLImageProcessor(**sizes),
        tokenizer=tokenizer,
        video_processor=transformers.Qwen3VLVideoProcessor(**sizes),
        chat_template=QWEN_TEMPLATE,
    )
    return transformers.Qwen3VLForConditionalGeneration(config), processor


def omni():
    """The thinker of Qwen2.5-Omni, which OmniEmbed is; it has ears as well."""
    named = {
        "image_token": "<|IMAGE|>",
        "audio_token": "<|AUDIO|>",
        "video_token": "<|VIDEO|>",
        "vision_bos_token": "<|vision_bos|>",
        "vision_eos_token": "<|vision_eos|>",
        "audio_bos_token": "<|audio_bos|>",
        "audio_eos_token": "<|audio_eos|>",
    }
    tokenizer = make_tokenizer(eos_token="<|im_end|>", pad_token="<|endoftext|>")
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer.backend_tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        extra_special_tokens=named,
    )
    ids = {name: tokenizer.convert_tokens_to_ids(token) for name, token in named.items()}
    rope = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 3, 3]}
    config = transformers.Qwen2_5OmniThinkerConfig(
        text_config=text_config(tokenizer, rope_parameters=rope),
        vision_config={
            "depth": 1,
            "hidden_size": 16,
            "out_hidden_size": 32,
            "intermediate_size": 32,
            "num_heads": 2,
            "patch_size": 4,
            "window_size": 16,
            "fullatt_block_indexes": [0],
            "initializer_range": 0.3,
        },
        audio_config={
            "d_model": 16,
            "encoder_layers": 1,
            "encoder_attention_heads": 2,
            "encoder_ffn_dim": 32,
            "output_dim": 32,
            "num_mel_bins": 16,
        },
        image_token_id=ids["image_token"],
        video_token_id=ids["video_token"],
        audio_token_id=ids["audio_token"],
        vision_start_token_id=ids["vision_bos_token"],
        vision_end_token_id=ids["vision_eos_token"],
        audio_start_token_id=ids["audio_bos_token"],
        audio_end_token_id=ids["audio_eos_token"],
    )
    sizes = {"patch_size": 4, "size": {"shortest_edge": 64, "longest_edge": 1 << 16}}
    template = QWEN_TEMPLATE.replace("<|vision_start|>", "<|vision_bos|>")
    template = template.replace("<|vision_end|>", "<|vision_eos|>").replace("<|image_pad|>", "<|IMAGE|>")
    processor = transformers.Qwen2_5OmniProcessor(
        image_processor=transformers.Qwen2VLImageProcessor(**sizes),
        video_processor=transformers.Qwen2VLVideoProcessor(**sizes),
        feature_extractor=transformers.WhisperFeatureExtractor(feature_size=16),
        tokenizer=tokenizer,
        chat_template=template,
    )
    return transformers.Qwen2_5OmniThinkerForConditionalGeneration(config), processor


def llava():
    """Pictures of one size, and a tokenizer that puts a token before every text, as its template does."""
    from tokenizers.processors import TemplateProcessing

    tokenizer = tokenizer_with("<image>", bos_token="<s>")
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", tokenizer.bos_token_id)]
    )
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
        chat_template="<s>" + QWEN_TEMPLATE.replace("".join((SIGHTS[0], SIGHTS[2], SIGHTS[1])), "<image>"),
    )
    return transformers.LlavaForConditionalGeneration(config), processor


def smol():
    """Pictures are enlarged, and cut into tiles."""
    rows = [f"<row_{r}_col_{c}>" for r in range(1, 7) for c in range(1, 7)]
    tokenizer = tokenizer_with("<image>", "<fake_token_around_image>", "<global-img>", "<end_of_utterance>", *rows)
    processor = transformers.Idefics3Processor(
        image_processor=transformers.Idefics3ImageProcessor(
            size={"longest_edge": 64}, max_image_size={"longest_edge": 16}
        ),
        tokenizer=tokenizer,
        image_seq_len=4,
        chat_template=QWEN_TEMPLATE.replace("".join((SIGHTS[0], SIGHTS[2], SIGHTS[1])), "<image>"),
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


KINDS = {"qwen3-vl": qwen3, "omni": omni, "llava": llava, "idefics3": smol}


def opened(where, **options) -> VisionLanguageEncoder:
    given = {"dtype": "float32", "format": "plain", "max_pixels": LIMIT, **options}
    encoder = load_encoder(f"vlm:{where}?" + "&".join(f"{key}={value}" for key, value in given.items()))
    assert isinstance(encoder, VisionLanguageEncoder)
    return encoder


def picture(width, height, seed=0) -> PIL.Image.Image:
    return PIL.Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))
