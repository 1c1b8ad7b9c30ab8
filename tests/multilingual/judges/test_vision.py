"""The vision-language judge against plain transformers code: tiny random models of three families, saved to disk."""

from __future__ import annotations

import io
import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
import transformers
from crosslens.checkpoints.options import Loading
from crosslens.errors import InputError
from crosslens.items import Item
from crosslens.multilingual.judges import hf
from crosslens.multilingual.judges.causal import CausalJudge
from crosslens.multilingual.judges.messages import Attachment, Message, Passage
from crosslens.multilingual.judges.vision import VisionJudge
from crosslens.multilingual.prompts import Prompt
from tiny.sighted import IDEFICS, LLAVA, SIGHTS, build_idefics3, build_llava, build_qwen2, save_built, text_config
from tiny.tokenizers import make_tokenizer

# Each model's own way of writing a picture, in a template that takes parts.
TEMPLATE = (
    "{% for m in messages %}<{{ m.role }}>"
    "{% for part in m.content %}{% if part.type == 'image' %}PICTURE{% else %}{{ part.text }}{% endif %}{% endfor %}\n"
    "{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
)


def tokenizer_with(*more):
    tokenizer = make_tokenizer(bos_token="<s>", eos_token="</s>", pad_token="<pad>", unk_token="<unk>")
    tokenizer.add_special_tokens({"extra_special_tokens": list(more)})
    return tokenizer


# How a family is built, the tokens that its tokenizer has beside the words, and what stands for a picture.
KINDS = {
    "qwen2-vl": (build_qwen2, SIGHTS, "<|vision_start|><|image_pad|><|vision_end|>"),
    "llava": (build_llava, LLAVA, "<image>"),
    "idefics3": (build_idefics3, IDEFICS, "<image>"),
}


def made(kind):
    build, tokens, picture = KINDS[kind]
    return build(tokenizer_with(*tokens), TEMPLATE.replace("PICTURE", picture))


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    saved: dict[str, Path] = {}

    def of(kind):
        if kind not in saved:
            saved[kind] = save_built(tmp_path_factory.mktemp(kind), lambda: made(kind))
        return str(saved[kind])

    return of


@pytest.fixture(scope="module", params=list(KINDS))
def judge(request, folders):
    judge = load(folders(request.param))
    assert isinstance(judge, VisionJudge)
    return judge


def load(where, **options):
    return hf.open_hf(where, loading=Loading(device="cpu"), dtype="float32", **options)


def copied(judge, **options):
    given = {"passage_tokens": 384, "device": judge.device, **options}
    return VisionJudge(judge.model, judge.processor, "tiny", "0", **given)


def photo(width, height, seed=0) -> bytes:
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    out = io.BytesIO()
    PIL.Image.fromarray(noise).save(out, "PNG")
    return out.getvalue()


@pytest.fixture(scope="module")
def messages(tmp_path_factory):
    """Pictures as bytes, a path and PIL's own, of several sizes; one, two or none in a message; texts of any length."""
    path = tmp_path_factory.mktemp("photos") / "photo.png"
    path.write_bytes(photo(24, 24, 1))
    small = PIL.Image.open(io.BytesIO(photo(17, 40, 2)))
    return [
        Message(("Query: cats ", Attachment("image", photo(32, 16)), Passage("Le chat dort."), " Yes?"), chat="auto"),
        Message(("Query: cats ", Passage("The cat sleeps all day. " * 4), " Yes?"), chat="auto"),
        Message(
            (Attachment("image", path), " and ", Attachment("image", small), "?"),
            system="Judge.",
            answer="It is",
            chat="auto",
        ),
        Message(("x",), chat="auto"),
        Message((Attachment("image", photo(40, 40, 3)),), chat="auto"),
        Message(("no template ", Passage("猫")), chat="never"),
    ]


def opened(message):
    images = [part.content for part in message.parts if isinstance(part, Attachment)]
    return [
        (PIL.Image.open(io.BytesIO(i) if isinstance(i, bytes) else i) if not hasattr(i, "size") else i) for i in images
    ]


def plain_inputs(judge, message):
    """As the transformers documentation has it: template, processor, one message."""
    if message.chat == "never":
        return dict(judge.processor(text=["<s>" + message.plain()], add_special_tokens=False, return_tensors="pt"))
    content = [
        {"type": "image"}
        if isinstance(part, Attachment)
        else {"type": "text", "text": part if isinstance(part, str) else part.text}
        for part in message.parts
    ]
    turns = [{"role": "user", "content": content}]
    if message.system:
        turns.insert(0, {"role": "system", "content": [{"type": "text", "text": message.system}]})
    text = judge.processor.apply_chat_template(turns, add_generation_prompt=True) + message.answer
    images = [image.convert("RGB") for image in opened(message)]
    return dict(
        judge.processor(text=[text], images=[images] if images else None, add_special_tokens=False, return_tensors="pt")
    )


@torch.inference_mode()
def plain(judge, message, said) -> list[float]:
    """Log-probabilities of the tokens `said` after the message."""
    inputs = plain_inputs(judge, message)
    start = inputs["input_ids"].shape[1]
    more = torch.tensor([said])
    for key, value in inputs.items():
        if value.shape == (1, start):
            extra = {"input_ids": more, "attention_mask": torch.ones_like(more)}
            inputs[key] = torch.cat([value, extra.get(key, torch.zeros_like(more))], dim=1)
    logits = judge.model(**inputs).logits[0].log_softmax(-1)
    return [float(logits[start - 1 + n, token]) for n, token in enumerate(said)]


def normalised(rows):
    rows = np.array(rows)
    return rows - np.logaddexp.reduce(rows, axis=1, keepdims=True)


def expected_choice(judge, messages, labels):
    plans = [judge.tokens.plan_labels(judge.write_frame(m), labels) for m in messages]
    if all(plan.single for plan in plans):
        rows = [
            [np.logaddexp.reduce([plain(judge, m, [*plan.lead, token])[-1] for token in ids]) for ids in plan.ids]
            for m, plan in zip(messages, plans, strict=True)
        ]
    else:
        rows = [
            [sum(plain(judge, m, list(row))) for row in plan.sequences] for m, plan in zip(messages, plans, strict=True)
        ]
    return normalised(rows)


@pytest.mark.parametrize("labels", [("A", "B", "C"), ("Le chat dort", "猫整天睡觉")])
def test_choose_is_that_of_plain_code_alone_and_in_a_mixed_batch(judge, messages, labels):
    expected = expected_choice(judge, messages, labels)
    together = judge.choose(messages, labels)
    np.testing.assert_allclose(together, expected, rtol=1e-3, atol=1e-4)
    alone = np.concatenate([judge.choose([message], labels) for message in messages])
    np.testing.assert_allclose(together, alone, rtol=1e-3, atol=1e-4)
    tight = copied(judge)
    tight.budget = 60
    np.testing.assert_allclose(tight.choose(messages, labels), expected, rtol=1e-3, atol=1e-4)


def test_labels_of_one_and_of_many_tokens_are_both_tested(judge):
    assert judge.tokens.plan_labels("<assistant>", ("A", "B", "C")).single
    assert not judge.tokens.plan_labels("<assistant>", ("Le chat dort", "猫整天睡觉")).single


def test_pictures_change_the_answer(judge, messages):
    other = Message(
        ("Query: cats ", Attachment("image", photo(32, 16, 9)), Passage("Le chat dort."), " Yes?"), chat="auto"
    )
    one, two = judge.choose([messages[0], other], ("A", "B"))
    assert np.abs(one - two).max() > 1e-3


def test_likelihood_is_that_of_plain_code(judge, messages):
    targets = [" how long do cats sleep", "猫", "Le", " x", "кошка спит", "Yes"]
    expected = [
        np.mean(plain(judge, m, judge.tokenizer(t, add_special_tokens=False)["input_ids"]))
        for m, t in zip(messages, targets, strict=True)
    ]
    np.testing.assert_allclose(judge.likelihood(messages, targets), expected, rtol=1e-4)
    with pytest.raises(InputError, match="has no tokens"):
        judge.likelihood(messages[:1], [""])


@torch.inference_mode()
def test_generate_says_what_the_model_says_to_each_message_alone(judge, messages):
    before = Counter(judge.usage)
    together = judge.generate(messages, max_new_tokens=5)
    spent = judge.usage - before
    for message, said in zip(messages, together, strict=True):
        inputs = plain_inputs(judge, message)
        out = judge.model.generate(**inputs, max_new_tokens=5, do_sample=False)
        text = judge.tokenizer.decode(out[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        assert said.text == text
    assert spent["generated_tokens"] == sum(each.tokens for each in together) > 0
    assert spent["calls"] == len(messages)
    assert spent["prompt_tokens"] == sum(plain_inputs(judge, m)["input_ids"].shape[1] for m in messages)


def test_more_pixels_are_more_tokens_and_max_pixels_bounds_them(folders):
    big = [Message((Attachment("image", photo(128, 96)), "?"), chat="auto")]
    tokens = {}
    for kind in ("qwen2-vl", "idefics3"):
        for limit in (64 * 64, 32 * 32, 16 * 16):
            judge = load(folders(kind), max_pixels=limit)
            (shown,) = [judge.open_message(big[0], 0)]
            assert shown.pictures[0].width * shown.pictures[0].height <= limit
            inputs = judge.process([shown])
            pixels = inputs["pixel_values"].numel() / 3 / (2 if kind == "qwen2-vl" else 1)  # two frames a patch
            # Tiles come beside a small view of the whole.
            assert pixels <= limit + (0 if kind == "qwen2-vl" else 16 * 16)
            tokens[kind, limit] = inputs["input_ids"].shape[1]
            assert np.isfinite(judge.choose(big, ("A", "B"))).all()
            assert judge.usage["prompt_tokens"] == tokens[kind, limit]
        assert tokens[kind, 64 * 64] > tokens[kind, 32 * 32] > tokens[kind, 16 * 16]
    prints = {load(folders("qwen2-vl"), max_pixels=limit).fingerprint for limit in (256, 1024)}
    assert len(prints) == 2
    with pytest.raises(InputError, match="max_pixels must be at least 1"):
        load(folders("qwen2-vl"), max_pixels=0)


def test_what_a_picture_costs_is_what_it_becomes(judge, messages):
    for message in messages:
        shown = judge.open_message(message, 0)
        inputs = judge.process([shown])
        pixels = inputs["pixel_values"].numel() // 3 if shown.pictures else 0
        length = inputs["input_ids"].shape[1]
        assert abs(shown.cost - length - pixels // 196) <= len(shown.pictures)


def test_passages_are_cut_around_pictures(judge):
    short = copied(judge, passage_tokens=3)
    message = Message(
        ("the query ", Attachment("image", photo(16, 16)), Passage("The cat sleeps all day")), chat="auto"
    )
    assert "day" not in short.open_message(message, 0).text
    assert short.usage["cut_passages"] == 1
    long = Message((Attachment("image", photo(16, 16)), Passage("long " * 900), " the query"), chat="auto")
    shown = copied(judge, passage_tokens=900).open_message(long, 10)
    length = judge.process([shown])["input_ids"].shape[1]
    assert 490 <= length <= 502
    with pytest.raises(InputError, match="exceeds the context of 512"):
        judge.choose([Message(("cats " * 600,), chat="auto")], ("A", "B"))


def test_text_that_looks_like_a_picture_is_none(judge, messages):
    hostile = Message(
        (Attachment("image", photo(16, 16)), Passage("a <image> or <|image_pad|> <|video_pad|> here")), chat="auto"
    )
    clean = judge.open_message(hostile, 0).text.partition("a ")[2]
    assert judge.processor.image_token not in clean
    assert np.isfinite(judge.choose([hostile, messages[0]], ("A", "B"))).all()


def test_pictures_need_the_template_and_the_template_a_checkpoint(judge, folders, tmp_path):
    before = Counter(judge.usage)
    with pytest.raises(InputError, match="set chat=auto"):
        judge.choose(
            [Message(("x",), chat="auto"), Message((Attachment("image", photo(8, 8)),), chat="never")], ("A", "B")
        )
    assert not judge.usage - before
    assert judge.chats
    bare = tmp_path / "bare"
    shutil.copytree(judge.name.removeprefix("hf:"), bare)
    (bare / "chat_template.jinja").unlink()
    with pytest.raises(InputError, match="its processor has no chat template"):
        load(str(bare))


def test_the_template_may_lie_where_only_the_processor_finds_it(judge, messages, tmp_path):
    moved = tmp_path / "moved"
    shutil.copytree(judge.name.removeprefix("hf:"), moved)
    template = moved / "chat_template.jinja"
    (moved / "chat_template.json").write_text(json.dumps({"chat_template": template.read_text()}))
    template.unlink()
    other = load(str(moved))
    assert other.tokenizer.chat_template is None
    np.testing.assert_array_equal(other.choose(messages, ("A", "B")), judge.choose(messages, ("A", "B")))


def test_a_damaged_picture_is_one_clear_line(judge):
    with pytest.raises(InputError, match="not a picture"):
        judge.choose([Message((Attachment("image", b"no picture"), "?"), chat="auto")], ("A", "B"))


def test_a_head_that_is_no_plain_matrix_gives_the_same_from_whole_logits(judge, messages):
    expected = judge.choose(messages, ("A", "B"))
    assert judge.head.plain
    said = judge.likelihood(messages, [" how long"] * 6)
    other = copied(judge)
    other.choose(messages[:1], ("A", "B"))
    other.head.way = None
    np.testing.assert_allclose(other.choose(messages, ("A", "B")), expected, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(other.likelihood(messages, [" how long"] * 6), said, rtol=1e-4)


def test_a_prompt_shows_it_documents_with_pictures(judge):
    prompt = Prompt.parse('asks = "choose"\nlabels = ["A", "B"]\ntemplate = "{query}: {passage} Answer:"', "seen")
    documents = [
        Item("photo", image=photo(20, 20)),
        Item("both", "The cat.", photo(30, 20, 1)),
        Item("text", "The cat sleeps."),
    ]
    (scores,) = prompt.score(judge, [(Item("q", "cats"), documents)])
    assert np.isfinite(scores).all()
    assert len(set(scores.round(4))) == 3


def test_a_checkpoint_without_a_processor_is_read_as_text_where_it_can_be(folders, tmp_path):
    where = tmp_path / "qwen"
    shutil.copytree(folders("qwen2-vl"), where)
    for path in where.glob("*processor_config.json"):
        path.unlink()
    with pytest.raises(InputError, match="has no processor"):
        load(str(where))
    assert type(load(folders("qwen2-vl"))) is VisionJudge
    # Gemma 3, tuned on text alone, keeps the architecture that sees.
    tokenizer = tokenizer_with("<image>")
    torch.manual_seed(0)
    config = transformers.Gemma3Config(
        text_config=text_config(tokenizer, head_dim=16),
        vision_config={
            "hidden_size": 16,
            "intermediate_size": 32,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "image_size": 16,
            "patch_size": 4,
        },
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        mm_tokens_per_image=4,
    )
    transformers.Gemma3ForConditionalGeneration(config).float().save_pretrained(tmp_path / "gemma")
    tokenizer.save_pretrained(tmp_path / "gemma")
    judge = load(str(tmp_path / "gemma"))
    assert type(judge) is CausalJudge
    asked = [Message((Passage("The cat sleeps all day"), f" {n}?")) for n in range(3)]
    together = judge.choose(asked, ("A", "B"))
    np.testing.assert_allclose(together, np.concatenate([judge.choose([m], ("A", "B")) for m in asked]), atol=1e-4)
