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


@pytest.fixture(scope="session", autouse=True)
def _vectors(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The vector cache of the tests: never the user's."""
    where = tmp_path_factory.mktemp("vectors")
    os.environ["CROSSLENS_VECTORS"] = str(where)
    return where


@pytest.fixture(autouse=True)
def _fresh_vectors(_vectors: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A test encodes what it indexes, and does not find it in the cache of another test."""
    monkeypatch.setenv("CROSSLENS_VECTORS", str(_vectors / f"{abs(hash(request.node.nodeid)):x}"))


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
def tiny_splade(tmp_path_factory: pytest.TempPathFactory, tiny_encoder: Path) -> Path:
    """`tiny_encoder` with the head of a masked language model, as SPLADE's and BLADE's own checkpoints are."""
    import torch
    from transformers import AutoTokenizer, BertConfig, BertForMaskedLM

    where = tmp_path_factory.mktemp("tiny-splade")
    AutoTokenizer.from_pretrained(tiny_encoder).save_pretrained(where)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = BertForMaskedLM(BertConfig.from_pretrained(tiny_encoder)).eval()
        model.cls.predictions.bias.data.normal_()
        model.save_pretrained(where)
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


def save_llm(
    where: Path, kind: str = "Llama", template: str = "<s> $A", headed: bool = True, **config: object
) -> Path:
    """A decoder of 2 layers and 32 dimensions, seeded; its tokenizer puts its special tokens as in `template`.

    `kind` is the name of its classes in transformers (`Llama`, `Qwen3`, `Gemma3`), `headed` whether it is saved as a
    language model.
    """
    import torch
    import transformers
    from tokenizers.processors import TemplateProcessing

    special = ("<s>", "</s>", "<pad>", "<end>")
    tokenizer = tiny_tokenizer(bos_token="<s>", eos_token="</s>", pad_token="<pad>", unk_token="<end>")
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=template,
        special_tokens=[(t, tokenizer.convert_tokens_to_ids(t)) for t in special if t in template],
    )
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


@pytest.fixture(scope="session")
def tiny_llm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama whose tokenizer adds a beginning and no end, as Llama 2's does."""
    return save_llm(tmp_path_factory.mktemp("tiny-llama"))


@pytest.fixture(scope="session")
def tiny_bidirectional_llm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Gemma 3 that attends both ways, with beginning and end, and mean pooling, as EmbeddingGemma."""
    where = tmp_path_factory.mktemp("tiny-embeddinggemma")
    layers = {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 16}
    save_llm(where, "Gemma3", "<s> $A </s>", headed=False, use_bidirectional_attention=True, **layers)
    return publish(where, "mean", prompts={"query": "task: search result | query: ", "document": "text: "})


@pytest.fixture
def llm_folder(tmp_path: Path) -> Callable[..., Path]:
    """`save_llm` into a directory of the name given, for a test that needs a model of its own."""
    return lambda name, *how, **config: save_llm(tmp_path / name, *how, **config)


def publish(
    checkpoint: Path,
    pooling: object,
    *dense: tuple[int, int],
    prompts: dict[str, str] | None = None,
    length: int = 128,
) -> Path:
    """Give a checkpoint its sentence-transformers files; `dense` are layers from so many to so many dimensions."""
    import torch
    from safetensors.torch import save_file

    kinds = "sentence_transformers.models."
    modules = [("", "Transformer"), ("1_Pooling", "Pooling")]
    modules += [(f"{n}_Dense", "Dense") for n, _ in enumerate(dense, 2)]
    modules += [(f"{len(modules)}_Normalize", "Normalize")]
    (checkpoint / "modules.json").write_text(
        json.dumps(
            [{"idx": n, "name": str(n), "path": p, "type": kinds + k} for n, (p, k) in enumerate(modules)]
        )
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
            config = {
                "in_features": before,
                "out_features": after,
                "bias": True,
                "activation_function": activation,
            }
            (checkpoint / path / "config.json").write_text(json.dumps(config))
            weights = {"linear.weight": torch.randn(after, before), "linear.bias": torch.randn(after)}
            save_file(weights, checkpoint / path / "model.safetensors")
    (checkpoint / "sentence_bert_config.json").write_text(
        json.dumps({"max_seq_length": length, "do_lower_case": False})
    )
    (checkpoint / "config_sentence_transformers.json").write_text(json.dumps({"prompts": prompts or {}}))
    return checkpoint


@pytest.fixture(name="publish")
def _publish() -> Callable[..., Path]:
    return publish


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


# What Qwen-VL's own chat template writes of turns whose content is parts.
QWEN_TEMPLATE = (
    "{% for m in messages %}{% if loop.first and m.role != 'system' %}<|im_start|>system\n"
    "You are a helpful assistant.<|im_end|>\n{% endif %}<|im_start|>{{ m.role }}\n{% for part in m.content %}"
    "{% if part.type == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part.text }}{% endif %}"
    "{% endfor %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def save_qwen_vl(where: Path) -> Path:
    """A Qwen2-VL of 2 layers and 32 dimensions: a picture is as many tokens as it has squares of 8 pixels."""
    import torch
    import transformers

    turns = ("<|im_start|>", "<|im_end|>", "<|endoftext|>")
    sights = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
    tokenizer = tiny_tokenizer(eos_token="<|im_end|>", pad_token="<|endoftext|>")
    tokenizer.add_special_tokens({"extra_special_tokens": [*turns, *sights]})
    start, end, image, video = tokenizer.convert_tokens_to_ids(list(sights))
    config = transformers.Qwen2VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "intermediate_size": 64,
            "initializer_range": 0.3,
            "max_position_embeddings": 512,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 3, 3]},
        },
        vision_config={
            "depth": 1,
            "embed_dim": 16,
            "hidden_size": 32,
            "num_heads": 2,
            "mlp_ratio": 2,
            "patch_size": 4,
            "initializer_range": 0.3,
        },
        vision_start_token_id=start,
        vision_end_token_id=end,
        image_token_id=image,
        video_token_id=video,
    )
    sizes = {"patch_size": 4, "size": {"shortest_edge": 64, "longest_edge": 1 << 16}}
    processor = transformers.Qwen2VLProcessor(
        image_processor=transformers.Qwen2VLImageProcessor(**sizes),
        tokenizer=tokenizer,
        video_processor=transformers.Qwen2VLVideoProcessor(**sizes),
        chat_template=QWEN_TEMPLATE,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        transformers.Qwen2VLForConditionalGeneration(config).float().save_pretrained(where)
    processor.save_pretrained(where)
    return where


@pytest.fixture(scope="session")
def tiny_vlm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`save_qwen_vl` in a directory of its own."""
    return save_qwen_vl(tmp_path_factory.mktemp("tiny-qwen-vl"))


@pytest.fixture(scope="session")
def tiny_colbert(tmp_path_factory: pytest.TempPathFactory, tiny_encoder: Path) -> Path:
    """`tiny_encoder` with a projection to 16 dimensions, as ColBERT's own code saves it."""
    import torch
    from safetensors.torch import load_file, save_file
    from transformers import AutoTokenizer

    where = tmp_path_factory.mktemp("tiny-colbert")
    tokenizer = AutoTokenizer.from_pretrained(tiny_encoder)
    tokenizer.add_special_tokens({"mask_token": "[MASK]", "extra_special_tokens": ["[unused0]", "[unused1]"]})
    tokenizer.save_pretrained(where)
    random = torch.Generator().manual_seed(0)
    weights = {
        f"bert.{name}": tensor for name, tensor in load_file(tiny_encoder / "model.safetensors").items()
    }
    table = weights["bert.embeddings.word_embeddings.weight"]
    more = torch.randn(len(tokenizer) - len(table), 32, generator=random) * 0.3
    weights["bert.embeddings.word_embeddings.weight"] = torch.cat([table, more])
    weights["linear.weight"] = torch.randn(16, 32, generator=random)
    save_file(weights, where / "model.safetensors", {"format": "pt"})
    config = json.loads((tiny_encoder / "config.json").read_text())
    config |= {"architectures": ["HF_ColBERT"], "vocab_size": len(tokenizer)}
    (where / "config.json").write_text(json.dumps(config))
    metadata = {
        "query_token_id": "[unused0]",
        "doc_token_id": "[unused1]",
        "query_maxlen": 32,
        "doc_maxlen": 100,
    }
    metadata |= {"mask_punctuation": True, "attend_to_mask_tokens": False, "similarity": "cosine", "dim": 16}
    (where / "artifact.metadata").write_text(json.dumps(metadata))
    return where


@pytest.fixture(scope="session")
def tiny_colpali(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ColPali of 2 layers: a page is 16 patches of 8 dimensions, and the words of its prompt."""
    import torch
    import transformers

    where = tmp_path_factory.mktemp("tiny-colpali")
    tokenizer = tiny_tokenizer(bos_token="<bos>", eos_token="<eos>", pad_token="<pad>", unk_token="<unk>")
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
    vision = {
        "model_type": "siglip_vision_model",
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "projection_dim": 32,
    }
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


@pytest.fixture(scope="session")
def tiny_colqwen(tmp_path_factory: pytest.TempPathFactory, tiny_vlm: Path) -> Path:
    """A ColQwen2 on the backbone of `tiny_vlm`: a page is as many vectors as it has squares of 8 pixels."""
    import torch
    import transformers

    where = tmp_path_factory.mktemp("tiny-colqwen")
    parts = transformers.AutoProcessor.from_pretrained(tiny_vlm)
    processor = transformers.ColQwen2Processor(
        image_processor=parts.image_processor, tokenizer=parts.tokenizer
    )
    config = transformers.ColQwen2Config(
        vlm_config=transformers.AutoConfig.from_pretrained(tiny_vlm), embedding_dim=8
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        transformers.ColQwen2ForRetrieval(config).float().save_pretrained(where)
    processor.save_pretrained(where)
    return where


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
    from crosslens.commands import app as cli

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["crosslens", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        out = capsys.readouterr()
        return int(stop.value.code or 0), out.out, out.err

    return call
