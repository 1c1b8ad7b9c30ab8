"""`vlm:` against plain transformers code: tiny random models of five architectures, saved to disk and loaded."""

from __future__ import annotations

import numpy as np
import PIL.Image
import pytest
import torch
import transformers
from crosslens.encoders.base import Tokenizes, encode_matrix
from crosslens.encoders.registry import load_encoder
from crosslens.errors import InputError
from crosslens.items import Item
from crosslens.media.images import open_image
from crosslens.multimodal.formats import FORMATS, find_format
from tiny.vlms import KINDS, LIMIT, opened, picture


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
def test_each_family_is_worded_as_its_authors_do_and_pooled_there(folder, format, instruct, role, holds, worded):
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
    assert encode_matrix(encoder, [item], role)[0] @ expected > 0.9999


@pytest.mark.parametrize("kind", ["qwen2-vl", *KINDS])
@pytest.mark.parametrize("side", ["left", "right"])
def test_alone_equals_in_a_mixed_batch_padded_on_either_side(folder, items, kind, side):
    encoder = opened(folder(kind))
    alone = np.concatenate([encode_matrix(encoder, [item], "document") for item in items])
    encoder.padding_side = side
    batches = []
    encoder.model.register_forward_pre_hook(
        lambda model, args, inputs: batches.append(len(inputs["input_ids"])), with_kwargs=True
    )
    together = encode_matrix(encoder, items, "document")
    assert batches == [5, 2]  # with pictures and without
    assert (alone * together).sum(axis=1).min() > 0.9999
    encoder.budget = 100  # longest first, order restored
    assert (encode_matrix(encoder, items, "document") * alone).sum(axis=1).min() > 0.9999
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
        assert encode_matrix(encoder, [item], "query")[0] @ expected > 0.9999


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
    tokens = [visual_tokens(opened(folder("idefics3"), max_pixels=n * 256), picture(90, 90)) for n in (1, 4, 5, 10)]
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
    encode_matrix(strict, [Item("short", "cats")], "query")
    with pytest.raises(InputError, match=r"'long' has \d\d\d+ tokens"):
        encode_matrix(strict, [Item("long", "cats " * 200)], "query")
    assert isinstance(encoder, Tokenizes)
    room = encoder.room("query")
    text = "the cat " * 200
    (spans,) = encoder.token_spans([text])
    (shown,) = encoder.prepare([Item("a", text[: spans[room - 1][1]])], "query")
    assert 136 <= encoder.inputs([shown])["input_ids"].shape[1] <= 140  # "Query: " and what follows merge
    with pytest.raises(InputError, match=r"'big' has \d+ tokens .* reads 140; raise max_tokens or lower"):
        encode_matrix(
            opened(folder("qwen2-vl"), max_tokens=140, max_pixels=160 * 160),
            [Item("big", image=picture(160, 160))],
            "query",
        )
    with pytest.raises(InputError, match="'both' has"):
        encode_matrix(opened(folder("qwen2-vl"), max_tokens=100), [Item("both", "a" * 99, picture(64, 64))], "query")


def test_text_that_looks_like_a_picture_is_none(folder):
    for kind in ("qwen2-vl", "idefics3"):
        encoder = opened(folder(kind))
        found = encode_matrix(
            encoder,
            [Item("a", "a <|image_pad|><image><|video_pad|> cat"), Item("b", "a cat", picture(16, 16))],
            "query",
        )
        assert np.isfinite(found).all()
    assert "<|image_pad|>" not in opened(folder("qwen2-vl")).write_prompt("query", "<|image_pad|>a", False)


def test_half_precision_is_close(folder, items):
    exact, half = (encode_matrix(opened(folder("qwen2-vl"), dtype=d), items, "query") for d in ("float32", "bfloat16"))
    assert (exact * half).sum(axis=1).min() > 0.99
    assert opened(folder("qwen2-vl"), dtype="bfloat16").spec == opened(folder("qwen2-vl")).spec


def test_the_name_shows_the_family(caplog):
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


def test_a_bad_picture_is_named(folder, tmp_path):
    (path := tmp_path / "cut.png").write_bytes(b"\x89PNG\r\n\x1a\n1234")
    with pytest.raises(InputError, match=r"item 'bad' \(.*cut\.png\)"):
        encode_matrix(opened(folder("qwen2-vl")), [Item("good", "x"), Item("bad", image=path)], "query")


def test_a_picture_of_any_shape_is_read(folder):
    encoder = opened(folder("qwen2-vl"))
    for size in ((1, 1), (1, 500), (999, 2)):
        image = open_image(picture(*size), max_pixels=LIMIT)
        assert visual_tokens(encoder, image) <= LIMIT / 64
