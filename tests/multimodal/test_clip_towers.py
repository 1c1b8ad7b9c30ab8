"""clip: against open_clip, for every kind of tower that its configurations have."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from crosslens.encoders.base import encode_matrix
from crosslens.encoders.registry import load_encoder
from crosslens.items import Item
from crosslens.multimodal.clip import ClipEncoder
from tiny.clips import TEXTS, items, picture
from tiny.tokenizers import make_tokenizer

SMALL = {"width": 32, "heads": 2, "layers": 1}
PLAIN = {"context_length": 24, **SMALL}
VIT = {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 8}
SIGLIP_TEXT = {
    "context_length": 64,
    "hf_tokenizer_name": "tiny/tokenizer",
    "tokenizer_kwargs": {"clean": "canonicalize"},
    "no_causal_mask": True,
    "proj_bias": True,
    "pool_type": "last",
    "norm_kwargs": {"eps": 1e-6},
    "act_kwargs": {"approximate": "tanh"},
    **SMALL,
}
SIGLIP_VISION = {"image_size": 160, "timm_model_name": "test_vit", "timm_pool": "map", "timm_proj": "none"}
MEAN = {"hf_pooler_type": "mean_pooler", "hf_tokenizer_name": "tiny/tokenizer"}
# Kind -> text tower, image tower, model: the kinds of open_clip's own configurations.
TOWERS: dict[str, tuple[dict[str, object], dict[str, object], dict[str, object]]] = {
    "ViT": (PLAIN, VIT, {}),
    "quick": (PLAIN, VIT, {"quick_gelu": True}),
    "ResNet": (PLAIN, {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8}, {}),
    "ConvNeXt of timm": (
        PLAIN,
        {"timm_model_name": "convnext_atto", "timm_pool": "", "timm_proj": "linear", "image_size": 64},
        {},
    ),
    "SigLIP 2": (SIGLIP_TEXT, SIGLIP_VISION, {"custom_text": True}),
    "CLIPA": ({**PLAIN, "pool_type": "last", "no_causal_mask": True, "pad_id": 0}, VIT, {"custom_text": True}),
    "CoCa": (
        {**PLAIN, "embed_cls": True, "output_tokens": True},
        {**VIT, "attentional_pool": True, "attn_pooler_queries": 4, "attn_pooler_heads": 2, "output_tokens": True},
        {"custom_text": True, "multimodal_cfg": {"context_length": 24, "vocab_size": 49408, **SMALL}},
    ),
    "XLM-R": ({"hf_model_name": "text", "context_length": 40, "hf_proj_type": "mlp", **MEAN}, VIT, {}),
    "BERT, first token": (
        {
            "hf_model_name": "text",
            "context_length": 40,
            "hf_tokenizer_name": "tiny/tokenizer",
            "hf_pooler_type": "cls_last_hidden_state_pooler",
        },
        VIT,
        {},
    ),
    "mT5": ({"hf_model_name": "text", "context_length": 40, "hf_proj_type": "mlp", **MEAN}, VIT, {}),
}


def tower(where: Path, kind: str) -> Path:
    """A directory as open_clip's hub repositories are, with seeded random weights."""
    import open_clip
    import transformers
    from safetensors.torch import save_file

    text, vision, model = TOWERS[kind]
    size = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    if kind in ("XLM-R", "BERT, first token"):
        special = {"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2}
        configs = transformers.XLMRobertaConfig if kind == "XLM-R" else transformers.BertConfig
        configs(vocab_size=600, max_position_embeddings=60, **size, **special).save_pretrained(where / "text")
    elif kind == "mT5":
        transformers.MT5Config(
            vocab_size=600, d_model=32, d_kv=16, d_ff=64, num_layers=1, num_heads=2, pad_token_id=1
        ).save_pretrained(where / "text")
    inside = dict(text)
    if "hf_tokenizer_name" in text:
        template = "$A </s>" if kind in ("SigLIP 2", "mT5") else "<s> $A </s>"
        special = {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
        tokenizer = make_tokenizer(template, **special)
        tokenizer.save_pretrained(where)
        inside["vocab_size"] = len(tokenizer)
    config = {
        "model_cfg": {"embed_dim": 64 if kind == "SigLIP 2" else 16, "vision_cfg": vision, "text_cfg": inside, **model},
        "preprocess_cfg": {
            "mean": [0.4, 0.5, 0.6],
            "std": [0.25, 0.3, 0.2],
            "interpolation": "bicubic" if kind in ("SigLIP 2", "ViT") else "bilinear",
            "resize_mode": {"SigLIP 2": "squash", "CoCa": "longest"}.get(kind, "shortest"),
        },
    }
    (where / "open_clip_config.json").write_text(json.dumps(config))
    arguments = json.loads(json.dumps(config["model_cfg"]))
    arguments.pop("custom_text", None)
    if "hf_model_name" in text:
        arguments["text_cfg"] |= {"hf_model_name": str(where / "text"), "hf_model_pretrained": False}
    custom = open_clip.CustomTextCLIP if "hf_model_name" in text or "custom_text" in model else open_clip.CLIP
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        built = (open_clip.CoCa if kind == "CoCa" else custom)(**arguments)
    weights = {name: tensor.clone().contiguous() for name, tensor in built.state_dict().items()}
    save_file(weights, where / "open_clip_model.safetensors")
    return where


@pytest.mark.parametrize("kind", TOWERS)
def test_every_kind_of_tower_gives_open_clips_own_vectors(kind: str, tmp_path: Path) -> None:
    import open_clip

    where = tower(tmp_path, kind)
    encoder = load_encoder(f"clip:{where}?dtype=float32")
    config = json.loads((where / "open_clip_config.json").read_text())["model_cfg"]
    options = {}
    if "hf_model_name" in config["text_cfg"]:  # open_clip asks the hub for it
        own = {"hf_model_name": str(where / "text"), "hf_model_pretrained": False}
        options["text_cfg"] = {**config["text_cfg"], **own}
    model, transform = open_clip.create_model_from_pretrained(f"local-dir:{where}", **options)
    model.eval()
    tokenizer = open_clip.get_tokenizer(f"local-dir:{where}")
    images = [picture(seed, size) for seed, size in enumerate([(50, 40), (31, 90), (200, 120)])]
    with torch.inference_mode():
        texts = model.encode_text(tokenizer(TEXTS), normalize=True).numpy()
        pixels = model.encode_image(torch.stack([transform(each) for each in images]), normalize=True).numpy()
    mixed = [*items(TEXTS), *(Item(f"i{row}", image=each) for row, each in enumerate(images))]
    found = encode_matrix(encoder, mixed, "document")
    assert found.shape == (8, encoder.spec.dim)
    assert (found * np.concatenate([texts, pixels])).sum(axis=1).min() > 0.9999
    assert len(np.unique(found.round(4), axis=0)) == 8
    assert encoder.spec.extra["preprocess"]["mean"] == [0.4, 0.5, 0.6]


@pytest.mark.parametrize("kind", ["ViT", "quick", "ResNet", "ConvNeXt of timm", "SigLIP 2", "CoCa"])
def test_every_kind_of_image_tower_runs_in_openvino(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("openvino", reason="pip install 'crosslens[fast]'")
    monkeypatch.setenv("CROSSLENS_CACHE", str(tmp_path / "cache"))
    mixed = [
        *items(TEXTS[:2]),
        *(Item(f"i{seed}", image=picture(seed, size)) for seed, size in enumerate([(50, 40), (31, 90), (200, 120)])),
    ]
    (where := tmp_path / "tower").mkdir()
    name = f"clip:{tower(where, kind)}?dtype="
    plain = load_encoder(f"{name}float32", device="cpu")
    expected = encode_matrix(plain, mixed, "document")
    for dtype, least in (("float32", 0.9999), ("bfloat16", 0.95)):
        encoder = load_encoder(f"{name}{dtype}&backend=openvino", device="cpu")
        found = encode_matrix(encoder, mixed, "document")
        assert least < (found * expected).sum(axis=1).min()
        assert encoder.spec.fingerprint == plain.spec.fingerprint
    assert len(list((tmp_path / "cache/openvino").iterdir())) == 1  # one export for both
    assert not list(encoder.model.visual.parameters())  # type: ignore[attr-defined]


def test_siglip_2_is_lower_cased_and_padded_to_64_as_trained(tmp_path: Path) -> None:
    encoder = load_encoder(f"clip:{tower(tmp_path, 'SigLIP 2')}?dtype=float32")
    assert isinstance(encoder, ClipEncoder)
    short, same, other = encoder.token_ids(["a CAT", "A cat!", "a dog"])
    assert torch.equal(short, same)
    assert not torch.equal(short, other)
    pad = encoder.tokenizer.tokenizer.pad_token_id
    assert short.shape == (64,)
    assert short[-1] == pad
    assert encoder.padding is None  # nothing is masked: the padding is seen, as in training
    seen: list[int] = []
    encoder.model.text.register_forward_pre_hook(lambda module, given: seen.append(given[0].shape[1]))
    encode_matrix(encoder, items(["cat"]), "query")
    assert seen == [64]
    assert encoder.spec.max_tokens == 64
