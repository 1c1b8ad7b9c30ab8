"""Tiny random-weight checkpoints, built once a session: the real loading code runs, without a download."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

SENTENCES = (
    "The cat sleeps all day and hunts at night.",
    "Le chat dort toute la journée.",
    "猫整天睡觉，晚上捕猎。",
    "گربه تمام روز می‌خوابد.",
    "Кошка спит весь день.",
    "बिल्ली दिन भर सोती है।",
    "Yes No English question about the text above:",
    "แมวนอนทั้งวัน 😀",
)


def tiny_tokenizer(**special: str):  # type: ignore[no-untyped-def]
    """A byte-level BPE tokenizer that can write any text; the values of `special` are its special tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=list(dict.fromkeys(special.values())),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(SENTENCES * 4, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=128, **special)


@pytest.fixture(scope="session")
def tiny_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of 2 layers and 32 dimensions with a tokenizer that adds [CLS] and [SEP]."""
    import torch
    from tokenizers.processors import TemplateProcessing
    from transformers import BertConfig, BertModel

    where = tmp_path_factory.mktemp("tiny-bert")
    tokenizer = tiny_tokenizer(pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]", unk_token="[UNK]")
    ids = {token: tokenizer.convert_tokens_to_ids(token) for token in ("[CLS]", "[SEP]")}
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=list(ids.items())
    )
    tokenizer.save_pretrained(where)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=128,
        initializer_range=0.3,
    )
    BertModel(config, add_pooling_layer=False).save_pretrained(where)
    return where


@pytest.fixture(scope="session")
def tiny_judge(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Gemma 3 of 2 layers (one with a sliding window) and 32 dimensions."""
    import torch
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig

    where = tmp_path_factory.mktemp("tiny-gemma")
    tokenizer = tiny_tokenizer(pad_token="<pad>", eos_token="<eos>", bos_token="<bos>", unk_token="<unk>")
    tokenizer.save_pretrained(where)
    torch.manual_seed(0)
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
    Gemma3ForCausalLM(config).save_pretrained(where)
    return where


def save_clip(where: Path, text: dict[str, object], template: str | None = None, **model: object) -> Path:
    """An open_clip directory (its `local-dir:` schema): seeded random weights, a 32-pixel image tower.

    With a `template` the text tower has a tokenizer of its own, which puts its special tokens so.
    """
    import open_clip
    import torch
    from safetensors.torch import save_file
    from tokenizers.processors import TemplateProcessing

    if template is not None:
        tokenizer = tiny_tokenizer(bos_token="<s>", pad_token="<pad>", eos_token="</s>", unk_token="<unk>")
        used = [
            (token, tokenizer.convert_tokens_to_ids(token)) for token in ("<s>", "</s>") if token in template
        ]
        tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single=template, special_tokens=used)
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
    if (
        "hf_model_name" in text
    ):  # open_clip takes a tower's config from the hub or a path; ours lies in the directory
        inside |= {"hf_model_name": str(where / str(text["hf_model_name"])), "hf_model_pretrained": False}
    custom = "hf_model_name" in text or "custom_text" in model
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        tower = (open_clip.CustomTextCLIP if custom else open_clip.CLIP)(16, vision, inside)
    weights = {name: tensor.clone().contiguous() for name, tensor in tower.state_dict().items()}
    save_file(weights, where / "open_clip_model.safetensors")
    return where


@pytest.fixture(scope="session")
def tiny_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plain CLIP with open_clip's built-in BPE tokenizer."""
    text = {"context_length": 24, "width": 32, "heads": 2, "layers": 1}
    return save_clip(tmp_path_factory.mktemp("clip"), text)


@pytest.fixture(scope="session")
def tiny_multilingual_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CLIP whose text tower is an XLM-R, as xlm-roberta-base-ViT-B-32 is."""
    from transformers import XLMRobertaConfig

    where = tmp_path_factory.mktemp("clip-xlmr")
    size = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    special = {"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2}
    XLMRobertaConfig(vocab_size=600, max_position_embeddings=60, **size, **special).save_pretrained(
        where / "text"
    )
    text = {"hf_model_name": "text", "hf_pooler_type": "mean_pooler", "context_length": 40}
    return save_clip(where, text, "<s> $A </s>")


@pytest.fixture
def clip_folder(tmp_path: Path) -> Callable[..., Path]:
    """`save_clip` into a new directory, for a test that needs a model of its own."""

    def save(text: dict[str, object], template: str | None = None, **model: object) -> Path:
        (where := tmp_path / "clip").mkdir()
        return save_clip(where, text, template, **model)

    return save


@pytest.fixture
def crosslens(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Runs the console script in this process: exit status, stdout, stderr."""
    from crosslens import cli

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["crosslens", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        out = capsys.readouterr()
        return int(stop.value.code or 0), out.out, out.err

    return call
