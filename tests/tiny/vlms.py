"""Vision-language models of several architectures, by kind, whose templates are like Qwen's."""

from __future__ import annotations

import numpy as np
import PIL.Image
import transformers
from crosslens.encoders.registry import load_encoder
from crosslens.multimodal.vlm import VisionLanguageEncoder

from .sighted import IDEFICS, LLAVA, ROPE, SIGHTS, SIZES, build_idefics3, build_llava, sight_ids, text_config
from .tokenizers import make_tokenizer
from .vision import QWEN_TEMPLATE

LIMIT = 64 * 64
IMAGE_TEMPLATE = QWEN_TEMPLATE.replace("<|vision_start|><|image_pad|><|vision_end|>", "<image>")


def tokenizer_with(*more, **named):
    tokenizer = make_tokenizer(eos_token="<|im_end|>", pad_token="<|endoftext|>", **named)
    tokenizer.add_special_tokens({"extra_special_tokens": ["<|im_start|>", *more]})
    return tokenizer


def qwen3():
    """Pictures as many tokens as they have squares of 8 pixels, and features of theirs in deeper layers."""
    tokenizer = tokenizer_with(*SIGHTS)
    config = transformers.Qwen3VLConfig(
        text_config=text_config(tokenizer, rope_parameters=ROPE, head_dim=16),
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
    processor = transformers.Qwen3VLProcessor(
        image_processor=transformers.Qwen2VLImageProcessor(**SIZES),
        tokenizer=tokenizer,
        video_processor=transformers.Qwen3VLVideoProcessor(**SIZES),
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
    config = transformers.Qwen2_5OmniThinkerConfig(
        text_config=text_config(tokenizer, rope_parameters=ROPE),
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
    template = QWEN_TEMPLATE.replace("<|vision_start|>", "<|vision_bos|>")
    template = template.replace("<|vision_end|>", "<|vision_eos|>").replace("<|image_pad|>", "<|IMAGE|>")
    processor = transformers.Qwen2_5OmniProcessor(
        image_processor=transformers.Qwen2VLImageProcessor(**SIZES),
        video_processor=transformers.Qwen2VLVideoProcessor(**SIZES),
        feature_extractor=transformers.WhisperFeatureExtractor(feature_size=16),
        tokenizer=tokenizer,
        chat_template=template,
    )
    return transformers.Qwen2_5OmniThinkerForConditionalGeneration(config), processor


def llava():
    """Pictures of one size, and a tokenizer that puts a token before every text, as its template does."""
    from tokenizers.processors import TemplateProcessing

    tokenizer = tokenizer_with(*LLAVA, bos_token="<s>")
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", tokenizer.bos_token_id)]
    )
    return build_llava(tokenizer, "<s>" + IMAGE_TEMPLATE)


def smol():
    """Pictures are enlarged, and cut into tiles."""
    return build_idefics3(tokenizer_with(*IDEFICS), IMAGE_TEMPLATE)


KINDS = {"qwen3-vl": qwen3, "omni": omni, "llava": llava, "idefics3": smol}


def opened(where, **options) -> VisionLanguageEncoder:
    given = {"dtype": "float32", "format": "plain", "max_pixels": LIMIT, **options}
    encoder = load_encoder(f"vlm:{where}?" + "&".join(f"{key}={value}" for key, value in given.items()))
    assert isinstance(encoder, VisionLanguageEncoder)
    return encoder


def picture(width, height, seed=0) -> PIL.Image.Image:
    return PIL.Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))
