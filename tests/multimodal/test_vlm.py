"""`vlm:` against plain transformers code: tiny random models of five architectures, saved to disk and loaded."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
import transformers
from crosslens.encoders.base import Tokenizes, matrix
from crosslens.encoders.registry import load_encoder
from crosslens.errors import InputError
from crosslens.items import Item
from crosslens.media.images import open_image
from crosslens.multimodal.formats import FORMATS, find_format
from crosslens.multimodal.vlm import VisionLanguageEncoder
from tiny.tokenizers import make_tokenizer
from tiny.vision import QWEN_TEMPLATE

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
    tokenizer = tokenizer_with(
        "<image>", "<fake_token_around_image>", "<global-img>", "<end_of_utterance>", *rows
    )
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


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tiny_vlm):
    made: dict[str, Path] = {"qwen2-vl": tiny_vlm}

    def of(kind):
        if kind not in made:
            torch.manual_seed(0)
            model, processor = KINDS[kind]()
            where = made[kind] = tmp_path_factory.mktemp(kind)
            model.float().save_pretrained(where)
            processor.save_pretrained(where)
        return made[kind]

    return of


def opened(where, **options) -> VisionLanguageEncoder:
    given = {"dtype": "float32", "format": "plain", "max_pixels": LIMIT, **options}
    encoder = load_encoder(f"vlm:{where}?" + "&".join(f"{key}={value}" for key, value in given.items()))
    assert isinstance(encoder, VisionLanguageEncoder)
    return encoder


def picture(width, height, seed=0) -> PIL.Image.Image:
    return PIL.Image.fromarray(
        np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    )


@pytest.fixture(scope="module")
def items(tmp_path_factory):
    """Texts, pictures and both, of many sizes; pictures as PIL's own, bytes and a path."""
    path = tmp_path_factory.mktemp("photos") / "photo.png"
    picture(24, 40, 1).save(path)
    png = io.BytesIO()
    picture(64, 32, 2).save(png, "PNG")
    return [
        Item("t", "The cat sleeps all day."),
        Item("i", image=picture(33, 20)),
        Item("b", "Le chat dort 猫", path),
        Item("long", "Кошка спит весь день. " * 9),
        Item("small", image=picture(3, 5, 3)),
        Item("both", "x", png.getvalue()),
        Item("wide", "गर", picture(300, 100, 4)),
    ]


@torch.inference_mode()
def plain(where, text, image, size=None):
    """As the transformers documentation has it: one input, the whole model, the last token's last state."""
    model = transformers.AutoModelForImageTextToText.from_pretrained(where).eval()
    processor = transformers.AutoProcessor.from_pretrained(where)
    given = {} if image is None else {"images": [[image]], **({"size": size} if size else {})}
    inputs = processor(text=[text], return_tensors="pt", **given)
    state = model(**inputs, output_hidden_states=True).hidden_states[-1][0, -1]
    return torch.nn.functional.normalize(state, dim=-1).numpy(), inputs["input_ids"][0]


SYSTEM = "<|im_start|>system\n{}<|im_end|>\n<|im_start|>user\n"
PLACE = "<|vision_start|><|image_pad|><|vision_end|>"
HELP = SYSTEM.format("You are a helpful assistant.")
REPRESENT = SYSTEM.format("Represent the user's input.")
OPENED = "<|im_end|>\n<|im_start|>assistant\n"
# What the authors' code gives to the processor: format, instruction, role, whether text and picture; and the input.
WORDED = [
    ("dse", "", "query", "ti", f"{HELP}{PLACE}Query: cats{OPENED}<|endoftext|>"),
    ("dse", "", "query", "t", f"{HELP}{PLACE}Query: cats{OPENED}<|endoftext|>"),
    ("dse", "", "document", "i", f"{HELP}{PLACE}What is shown in this image?{OPENED}<|endoftext|>"),
    ("dse", "", "document", "t", f"{HELP}{PLACE}Document: cats{OPENED}<|endoftext|>"),
    ("dse", "Find:", "query", "t", f"{HELP}{PLACE}Query: Find: cats{OPENED}<|endoftext|>"),
    ("mcdse", "", "query", "t", f"{HELP}{PLACE}Query: cats<|im_end|>\n<|endoftext|>"),
    ("mcdse", "", "document", "i", f"{HELP}{PLACE}What is shown in this image?<|im_end|>\n<|endoftext|>"),
    ("gme", "", "query", "ti", f"{HELP}{PLACE}cats{OPENED}<|endoftext|>"),
    ("gme", "Find it", "query", "t", f"{SYSTEM.format('Find it')}cats{OPENED}<|endoftext|>"),
    ("gme", "Find it", "document", "i", f"{HELP}{PLACE}{OPENED}<|endoftext|>"),
    ("qwen3-vl", "", "document", "ti", f"{REPRESENT}{PLACE}cats{OPENED}"),
    ("qwen3-vl", "Find it", "query", "t", f"{SYSTEM.format('Find it.')}cats{OPENED}"),
    ("qwen3-vl", "Find it?", "query", "i", f"{SYSTEM.format('Find it?')}{PLACE}{OPENED}"),
    ("omniembed", "", "query", "t", f"{HELP}Query: cats{OPENED}<|endoftext|>"),
    ("omniembed", "", "document", "ti", f"{HELP}cats{PLACE}{OPENED}<|endoftext|>"),
    ("plain", "Find", "query", "i", f"{HELP}{PLACE}Find{OPENED}"),
    ("plain", "", "document", "t", f"{HELP}cats{OPENED}"),
]


@pytest.mark.parametrize(("format", "instruct", "role", "holds", "worded"), WORDED)
def test_each_family_is_worded_as_its_authors_do_and_pooled_there(
    folder, format, instruct, role, holds, worded
):
    where = folder("qwen2-vl")
    encoder = opened(where, format=format, **({"instruct": instruct} if instruct else {}))
    image = picture(40, 30) if "i" in holds else None
    item = Item("a", "cats" if "t" in holds else None, image)
    (shown,) = encoder.prepare([item], role)
    assert shown.text == worded
    if image is None and format in ("dse", "mcdse"):
        image = PIL.Image.new("RGB", (56, 56))  # black, as theirs
    expected, ids = plain(where, worded, image, encoder.size)
    (seen,) = encoder.inputs([shown])["input_ids"]
    assert torch.equal(seen, ids)
    last = "<|endoftext|>" if FORMATS[format][1].end else "\n"
    assert encoder.tokenizer.decode(seen[-1:]) == last
    assert matrix(encoder, [item], role)[0] @ expected > 0.9999


@pytest.mark.parametrize("kind", ["qwen2-vl", *KINDS])
@pytest.mark.parametrize("side", ["left", "right"])
def test_alone_equals_in_a_mixed_batch_padded_on_either_side(folder, items, kind, side):
    encoder = opened(folder(kind))
    alone = np.concatenate([matrix(encoder, [item], "document") for item in items])
    encoder.padding_side = side
    batches = []
    encoder.model.register_forward_pre_hook(
        lambda model, args, inputs: batches.append(len(inputs["input_ids"])), with_kwargs=True
    )
    together = matrix(encoder, items, "document")
    assert batches == [5, 2]  # with pictures and without
    assert (alone * together).sum(axis=1).min() > 0.9999
    encoder.budget = 100  # longest first, order restored
    assert (matrix(encoder, items, "document") * alone).sum(axis=1).min() > 0.9999
    assert len(batches) > 5
    gram = alone @ alone.T - np.eye(len(items))
    assert gram.max() < 0.999


@pytest.mark.parametrize("kind", ["qwen2-vl", *KINDS])
def test_vectors_of_every_architecture_are_those_of_plain_code(folder, kind):
    where = folder(kind)
    encoder = opened(where)
    for item in (Item("b", "cats", picture(40, 24)), Item("t", "cats")):
        processor = encoder.processor
        parts = [{"type": "image"}] if item.image else []
        turns = [{"role": "user", "content": [*parts, {"type": "text", "text": "cats"}]}]
        text = processor.apply_chat_template(turns, add_generation_prompt=True)
        text = text.removeprefix("<s>")  # the tokenizer adds it
        expected, ids = plain(where, text, item.image, encoder.size)
        (seen,) = encoder.inputs(encoder.prepare([item], "query"))["input_ids"]
        assert torch.equal(seen, ids)
        assert (seen == (encoder.tokenizer.bos_token_id or -1)).sum() == (kind == "llava")
        assert matrix(encoder, [item], "query")[0] @ expected > 0.9999


def visual_tokens(encoder, image) -> int:
    (shown,) = encoder.prepare([Item("a", image=image)], "document")
    assert shown.picture.width * shown.picture.height <= encoder.spec.max_pixels
    ids = encoder.inputs([shown])["input_ids"]
    return int((ids == encoder.tokenizer.convert_tokens_to_ids(encoder.processor.image_token)).sum())


@pytest.mark.parametrize("kind", ["qwen2-vl", "qwen3-vl", "omni"])
def test_max_pixels_bounds_the_visual_tokens_and_is_reached(folder, kind):
    for limit in (16 * 16, 32 * 32, 64 * 64, 160 * 160, 320 * 320):
        # 320 * 320 is above the processor's own limit, which the number replaces.
        encoder = opened(folder(kind), max_pixels=limit, max_tokens=512)
        encoder.spec = encoder.spec.__class__(**{**encoder.spec.__dict__, "max_tokens": 4096})
        tokens = visual_tokens(encoder, picture(1000, 1000))
        assert limit / 64 * 0.7 <= tokens <= limit / 64
        assert visual_tokens(encoder, picture(3000, 40)) <= limit / 64
        # Small pictures are not enlarged beyond what the processor has at least.
        assert visual_tokens(encoder, picture(8, 8)) == 1
    assert encoder.spec.max_pixels == 320 * 320
    prints = {opened(folder(kind), max_pixels=limit).spec.fingerprint for limit in (256, 1024)}
    assert len(prints) == 2


def test_max_pixels_bounds_tiles_and_what_has_one_size_says_so(folder):
    tokens = [
        visual_tokens(opened(folder("idefics3"), max_pixels=n * 256), picture(90, 90)) for n in (1, 4, 5, 10)
    ]
    # Four tokens a tile: one; one, since four and the whole are five; five; nine and the whole.
    assert tokens == [4, 4, 20, 40]
    for kind in ("idefics3", "llava"):
        with pytest.raises(InputError, match="enlarges pictures of 255 pixels to 256; set max_pixels=256"):
            opened(folder(kind), max_pixels=255)
    assert visual_tokens(opened(folder("llava"), max_pixels=256), picture(90, 90)) == 16


def test_what_an_item_costs_is_what_it_becomes(folder, items):
    encoder = opened(folder("qwen2-vl"), format="dse")
    for item in items:
        (shown,) = encoder.prepare([item], "document")
        inputs = encoder.inputs([shown])
        pixels = inputs["pixel_values"].numel() // 6  # two frames of three colours
        assert shown.cost == inputs["input_ids"].shape[1] + pixels // 196


def test_the_default_limits_are_the_familys(folder):
    where = folder("qwen2-vl")
    encoder = load_encoder(f"vlm:{where}?format=gme")
    assert (encoder.spec.max_pixels, encoder.spec.max_tokens) == (1280 * 28 * 28, 512)
    assert encoder.spec.pooling == "last"
    assert encoder.spec.query_prompt == f"{HELP}{{}}{OPENED}<|endoftext|>"
    # Qwen3-VL-Embedding's authors enlarge small pictures to 4096 pixels, whatever its processor's own least is.
    assert encoder.size["shortest_edge"] == 4 * 28 * 28
    third = load_encoder(f"vlm:{folder('qwen3-vl')}?format=qwen3-vl")
    assert third.size == {"shortest_edge": 4 * 32 * 32, "longest_edge": 1800 * 32 * 32}
    assert visual_tokens(third, picture(30, 30)) == 4096 / 64


def test_a_small_picture_is_not_squashed_where_the_limit_is_low(folder):
    """Enlarged to the processor's least, 3136 pixels, it would pass the limit of 4096, and lose its shape."""
    encoder = opened(folder("qwen2-vl"), format="gme")
    (shown,) = encoder.prepare([Item("a", image=picture(40, 30))], "document")
    assert shown.picture.size == (40, 30)
    assert visual_tokens(encoder, picture(40, 30)) <= LIMIT / 64


@pytest.mark.parametrize("format", ["gme", "dse"])
def test_long_text_is_cut_and_the_end_stays(folder, format):
    encoder = opened(folder("qwen2-vl"), format=format, max_tokens=140)
    for text in ("the cat sleeps " * 400, "猫😀" * 400, "x" * 3000):
        for image in (None, picture(64, 16)):
            (shown,) = encoder.prepare([Item("a", text, image)], "query")
            (ids,) = encoder.inputs([shown])["input_ids"]
            assert 133 <= len(ids) <= 140
            assert shown.text.endswith(f"{OPENED}<|endoftext|>")
            assert "\ufffd" not in shown.text
    strict = opened(folder("qwen2-vl"), format=format, max_tokens=140, truncate="false")
    matrix(strict, [Item("short", "cats")], "query")
    with pytest.raises(InputError, match=r"'long' has \d\d\d+ tokens"):
        matrix(strict, [Item("long", "cats " * 200)], "query")
    assert isinstance(encoder, Tokenizes)
    room = encoder.room("query")
    text = "the cat " * 200
    (spans,) = encoder.token_spans([text])
    (shown,) = encoder.prepare([Item("a", text[: spans[room - 1][1]])], "query")
    assert 136 <= encoder.inputs([shown])["input_ids"].shape[1] <= 140  # "Query: " and what follows merge
    with pytest.raises(InputError, match=r"'big' has \d+ tokens .* reads 140; raise max_tokens or lower"):
        matrix(
            opened(folder("qwen2-vl"), max_tokens=140, max_pixels=160 * 160),
            [Item("big", image=picture(160, 160))],
            "query",
        )
    with pytest.raises(InputError, match="'both' has"):
        matrix(opened(folder("qwen2-vl"), max_tokens=100), [Item("both", "a" * 99, picture(64, 64))], "query")


def test_text_that_looks_like_a_picture_is_none(folder):
    for kind in ("qwen2-vl", "idefics3"):
        encoder = opened(folder(kind))
        found = matrix(
            encoder,
            [Item("a", "a <|image_pad|><image><|video_pad|> cat"), Item("b", "a cat", picture(16, 16))],
            "query",
        )
        assert np.isfinite(found).all()
    assert "<|image_pad|>" not in opened(folder("qwen2-vl")).worded("query", "<|image_pad|>a", False)


def test_dim_keeps_the_first_components(folder, items):
    whole, short = (matrix(opened(folder("qwen2-vl"), dim=dim), items, "query") for dim in (32, 8))
    first = whole[:, :8] / np.linalg.norm(whole[:, :8], axis=1, keepdims=True)
    np.testing.assert_allclose(short, first, atol=1e-5)
    for dim in (0, 33):
        with pytest.raises(InputError, match=r"dim must be in 1\.\.32, not"):
            opened(folder("qwen2-vl"), dim=dim)
    with pytest.raises(InputError, match=r"max_tokens must be in 8\.\.512, not 513"):
        opened(folder("qwen2-vl"), max_tokens=513)


def test_half_precision_is_close(folder, items):
    exact, half = (
        matrix(opened(folder("qwen2-vl"), dtype=d), items, "query") for d in ("float32", "bfloat16")
    )
    assert (exact * half).sum(axis=1).min() > 0.99
    assert opened(folder("qwen2-vl"), dtype="bfloat16").spec == opened(folder("qwen2-vl")).spec


def test_the_family_is_told_by_the_name(caplog):
    names = {
        "MrLight/dse-qwen2-2b-mrl-v1": "dse",
        "marco/mcdse-2b-v1": "mcdse",
        "llamaindex/vdr-2b-multi-v1": "mcdse",
        "Alibaba-NLP/gme-Qwen2-VL-2B-Instruct": "gme",
        "/models/Qwen3-VL-Embedding-8B": "qwen3-vl",
        "Tevatron/OmniEmbed-v0.1-multivent": "omniembed",
    }
    for name, family in names.items():
        assert find_format(name, None, "auto") == FORMATS[family][1]
    assert find_format("Tevatron/Qwen2.5-Omni-7B-Thinker", "Tevatron/OmniEmbed-v0.1", "auto").text_first
    assert not caplog.records
    assert find_format("Qwen/Qwen2-VL-2B-Instruct", None, "auto") == FORMATS["plain"][1]
    assert "of no family known to vlm" in caplog.text


@pytest.fixture
def adapter(folder, tmp_path):
    """A LoRA adapter of the tiny Qwen2-VL, as peft saves it, and the model with its weights added."""
    import peft

    torch.manual_seed(1)
    model = transformers.AutoModelForImageTextToText.from_pretrained(folder("qwen2-vl"))
    settings = peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    tuned = peft.get_peft_model(model, settings)
    tuned.save_pretrained(tmp_path / "adapter")
    tuned.merge_and_unload().save_pretrained(tmp_path / "merged")
    for path in folder("qwen2-vl").iterdir():
        if path.name not in ("config.json", "model.safetensors"):
            shutil.copy(path, tmp_path / "merged")
    return tmp_path / "adapter", tmp_path / "merged"


def test_an_adapter_beside_or_instead_of_the_checkpoint(folder, adapter, items):
    where, merged = adapter
    expected = matrix(opened(merged), items, "query")
    beside = opened(folder("qwen2-vl"), adapter=where)
    np.testing.assert_allclose(matrix(beside, items, "query"), expected, atol=1e-4)
    assert beside.spec.revision == f"{opened(folder('qwen2-vl')).spec.revision}+" + beside.spec.revision[-16:]
    alone = opened(where)
    np.testing.assert_allclose(matrix(alone, items, "query"), expected, atol=1e-4)
    assert alone.spec.fingerprint == beside.spec.fingerprint
    plain_vectors = matrix(opened(folder("qwen2-vl")), items, "query")
    assert np.abs(expected - plain_vectors).max() > 0.01
    with pytest.raises(InputError, match="does not fit its base model|is incomplete"):
        opened(where, base=folder("llava"), processor=folder("llava"))


def test_an_adapter_trained_without_the_language_head(folder, tmp_path, items):
    import peft

    torch.manual_seed(2)
    body = transformers.AutoModel.from_pretrained(folder("qwen2-vl"))
    settings = peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    tuned = peft.get_peft_model(body, settings)
    tuned.save_pretrained(tmp_path / "adapter")
    expected = opened(folder("qwen2-vl"))
    expected.model = tuned.merge_and_unload().eval()
    found = opened(folder("qwen2-vl"), adapter=tmp_path / "adapter")
    np.testing.assert_allclose(matrix(found, items, "query"), matrix(expected, items, "query"), atol=1e-4)
    assert (
        np.abs(matrix(opened(folder("qwen2-vl")), items, "query") - matrix(found, items, "query")).max()
        > 0.01
    )


def test_an_adapter_of_another_model_is_refused(folder, adapter):
    where, merged = adapter
    with pytest.raises(
        InputError, match="was trained on .*tiny-qwen-vl.*, not on .*merged; if these are the same"
    ):
        opened(merged, adapter=where)
    opened(where, base=merged)


def test_an_adapter_named_as_older_transformers_named_weights(folder, adapter, items):
    """OmniEmbed's and DSE's were saved when the language model's layers were `model.layers`."""
    from safetensors.torch import load_file, save_file

    where, merged = adapter
    path = where / "adapter_model.safetensors"
    held = {
        key.replace("model.model.language_model.", "model.model."): value
        for key, value in load_file(path).items()
    }
    assert all("model.model.layers" in key for key in held if "visual" not in key)
    save_file(held, path)
    np.testing.assert_allclose(
        matrix(opened(where), items, "query"), matrix(opened(merged), items, "query"), atol=1e-4
    )


def test_a_processor_from_elsewhere(folder, tmp_path, items):
    bare = tmp_path / "bare"
    bare.mkdir()
    for name in ("config.json", "model.safetensors"):
        shutil.copy(folder("qwen2-vl") / name, bare)
    with pytest.raises(
        InputError, match=r"bare has no processor .*; vlm takes .* or processor= names a checkpoint"
    ):
        opened(bare)
    found = matrix(opened(bare, processor=folder("qwen2-vl")), items, "query")
    np.testing.assert_allclose(found, matrix(opened(folder("qwen2-vl")), items, "query"), atol=1e-5)


def test_what_cannot_be_read_is_said_in_one_line(folder, tiny_encoder, tmp_path):
    cases = {f"vlm:{tiny_encoder}": "has no processor"}
    deaf = tmp_path / "deaf"
    shutil.copytree(folder("qwen2-vl"), deaf)
    for path in deaf.glob("*processor_config.json"):
        path.unlink()
    tokenizer = transformers.AutoTokenizer.from_pretrained(deaf)
    transformers.Wav2Vec2Processor(transformers.Wav2Vec2FeatureExtractor(), tokenizer).save_pretrained(deaf)
    cases[f"vlm:{deaf}?format=plain"] = "lacks images; vlm reads text and images"
    mute = tmp_path / "mute"
    shutil.copytree(folder("qwen2-vl"), mute)
    (mute / "chat_template.jinja").unlink()
    cases[f"vlm:{mute}?format=plain"] = "no chat template, which says where pictures go"
    pickled = tmp_path / "pickled"
    shutil.copytree(folder("qwen2-vl"), pickled)
    (pickled / "model.safetensors").unlink()
    torch.save({}, pickled / "pytorch_model.bin")
    cases[f"vlm:{pickled}?format=plain"] = r"pickled weights only \(pytorch_model.bin\).*convert them once"
    cut = tmp_path / "cut"
    shutil.copytree(folder("qwen2-vl"), cut)
    from safetensors.torch import load_file, save_file

    weights = load_file(cut / "model.safetensors")
    name = next(key for key in weights if "layers.1.self_attn.q_proj.weight" in key)
    del weights[name]
    save_file(weights, cut / "model.safetensors", {"format": "pt"})
    cases[f"vlm:{cut}?format=plain"] = "weights are missing from the checkpoint: .*q_proj"
    where = folder("qwen2-vl")
    cases[f"vlm:{where}?format=colpali"] = "unknown value of format .*known: auto, dse"
    cases[f"vlm:{where}?max_pixels=0"] = "max_pixels must be at least 1"
    cases[f"vlm:{where}?adapter=/nowhere"] = "there is no adapter /nowhere"
    cases["vlm:/nowhere"] = "there is no directory /nowhere"
    for spec, message in cases.items():
        with pytest.raises(InputError, match=message) as error:
            load_encoder(spec)
        assert "\n" not in str(error.value)


def test_a_model_saved_without_its_language_head_is_read(folder, tmp_path, items):
    body = tmp_path / "body"
    shutil.copytree(folder("qwen2-vl"), body)
    (body / "model.safetensors").unlink()
    transformers.AutoModel.from_pretrained(folder("qwen2-vl")).save_pretrained(body)
    assert json.loads((body / "config.json").read_text())["architectures"] == ["Qwen2VLModel"]
    found = matrix(opened(body), items, "query")
    np.testing.assert_allclose(found, matrix(opened(folder("qwen2-vl")), items, "query"), atol=1e-5)


def test_a_bad_picture_is_named(folder, tmp_path):
    (path := tmp_path / "cut.png").write_bytes(b"\x89PNG\r\n\x1a\n1234")
    with pytest.raises(InputError, match=r"item 'bad' \(.*cut\.png\)"):
        matrix(opened(folder("qwen2-vl")), [Item("good", "x"), Item("bad", image=path)], "query")


def test_a_picture_of_any_shape_is_read(folder):
    encoder = opened(folder("qwen2-vl"))
    for size in ((1, 1), (1, 500), (999, 2)):
        image = open_image(picture(*size), max_pixels=LIMIT)
        assert visual_tokens(encoder, image) <= LIMIT / 64
