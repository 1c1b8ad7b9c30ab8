"""Checkpoints of two towers as open_clip has them: of a model that was trained, and of one joined from two others."""

from __future__ import annotations

import copy
import math
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.hf_model import HFTextEncoder
from safetensors.torch import load_file, save_file

from ...encoders.registry import load_encoder
from ...encoders.transformer import TransformerEncoder
from ...errors import InputError
from ...files import make_directory, write_json
from ...multimodal.clip import CONFIG, ClipEncoder, locate_clip
from ...multimodal.conse import ConSE
from ...specs import Spec
from ..recipe import EncoderRecipe

WEIGHTS = "open_clip_model.safetensors"
TEXT = "text"  # the folder of the configuration of a text tower that is a Hugging Face model
# Of towers that are joined. The hidden layer of timm's MLP is twice as wide as the vectors: a unit for each of
# ImageNet's 1,000 classes.
VISION = {"timm_model_name": "tf_efficientnet_lite2", "timm_pool": "avg", "timm_proj": "mlp", "timm_proj_bias": True}
# A picture is seen whole: its middle square alone found fewer (stamps, dev half).
PREPROCESS = {
    "mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic", "resize_mode": "longest", "fill_color": 255,
}  # fmt: skip
SIDE = 260
LEAST_LOGIT = 1.0  # below it a class does not count
RIDGE = 0.3  # of the mean variance of class names, added to that of each direction
# How long new weights are: the shorter, the quicker they turn at the rate of those that are not new. The head shall
# learn, and the whitening be kept.
NAME_LENGTH, TEXT_DEVIATION = 0.15, 0.1


def read_config(checkpoint: str) -> dict[str, Any]:
    """open_clip's configuration of a checkpoint, with what its weights ask for."""
    name, pretrained = locate_clip(checkpoint)
    config = copy.deepcopy(open_clip.get_model_config(name))
    if pretrained and open_clip.get_pretrained_cfg(name, pretrained).get("quick_gelu"):
        config["quick_gelu"] = True
    return config


def write_clip(model: Any, config: Mapping[str, Any], tokenizer: Any, folder: Path) -> None:
    """Write a checkpoint directory that `clip:` and open_clip load, and nothing is fetched for.

    `tokenizer` is a Hugging Face one, and None where the model has open_clip's own.
    """
    config = copy.deepcopy(dict(config))
    text, vision = config["text_cfg"], config["vision_cfg"]
    if isinstance(tower := getattr(model, "text", None), HFTextEncoder):
        make_directory(folder / TEXT)
        tower.config.save_pretrained(folder / TEXT)
        text |= {"hf_model_name": TEXT, "hf_model_pretrained": False}
    if tokenizer is not None:
        tokenizer.save_pretrained(folder)
        text.setdefault("hf_tokenizer_name", TEXT)  # any name: that of a directory is in it
    if "timm_model_name" in vision:
        vision["timm_model_pretrained"] = False
    write_json(folder / CONFIG, {"model_cfg": config, "preprocess_cfg": model.visual.preprocess_cfg})
    save_file({name: each.detach().cpu().contiguous() for name, each in model.state_dict().items()}, folder / WEIGHTS)


def join_towers(conse: ConSE, spec: Spec, recipe: EncoderRecipe) -> tuple[ClipEncoder, dict[str, Any]]:
    """A CLIP model, and its configuration, of what ConSE has: an image classifier, and an encoder of class names.

    Before it is trained it does about what ConSE does: each unit of the head's hidden layer is a class, and its
    weights lead to the vector of the class's name. Texts are whitened as those of the names are, so that no direction
    that all share counts. Of several text encoders the one that can be trained is taken; `InputError` if none can.
    """
    pairs = zip(conse.readers, conse.parts, strict=True)
    able = [(reader, part) for reader, part in pairs if isinstance(reader, TransformerEncoder)]
    if not able:
        raise InputError(f"{spec} cannot be trained: its text encoder knows no gradients; take text=e5-small")
    words, part = able[0]
    width = words.opened.config.hidden_size
    names = (conse.names + conse.centre)[:, part]
    dim = len(names) // 2
    text = {
        "hf_model_name": TEXT, "hf_model_pretrained": False, "hf_tokenizer_name": TEXT, "hf_pooler_type": "mean_pooler",
        "hf_proj_type": "linear", "context_length": words.spec.max_tokens,
    }  # fmt: skip
    config: dict[str, Any] = {"embed_dim": dim, "vision_cfg": {"image_size": SIDE, **VISION}, "text_cfg": text}
    tokenizer = prefix_texts(words.tokenizer, words.spec.query_prompt)
    with tempfile.TemporaryDirectory(prefix="crosslens-") as name:
        words.opened.config.save_pretrained(Path(name, TEXT))
        inside = {**text, "hf_model_name": str(Path(name, TEXT))}
        model = open_clip.CustomTextCLIP(
            dim, config["vision_cfg"], inside, init_logit_scale=-math.log(recipe.temperature)
        )
        tower = load_file(conse.weights)
        classes = {key: tower.pop(f"classifier.{key}") for key in ("weight", "bias")}
        model.visual.trunk.load_state_dict(tower, strict=True)
        state = {key: each for key, each in words.model.state_dict().items() if not key.startswith("pooler.")}
        model.text.transformer.load_state_dict(state, strict=True)
        project, named = whiten_names(torch.from_numpy(names), width, dim)
        hidden, out = model.visual.head.mlp.fc1, model.visual.head.mlp.fc2
        for weights, made in (
            (model.text.proj.weight, project),
            (hidden.weight, classes["weight"]),
            (hidden.bias, classes["bias"] - LEAST_LOGIT),
            (out.weight, named),
            (out.bias, torch.zeros_like(out.bias)),
        ):
            weights.data.copy_(made)
        model.visual.preprocess_cfg = {"size": SIDE, "mode": "RGB", **PREPROCESS}
        write_clip(model, config, tokenizer, Path(name))
        options = {key: value for key, value in spec.options.items() if key in ("max_pixels", "text_weight")}
        clip = load_encoder(str(Spec("clip", name, {**options, "dtype": "float32"})), device=str(conse.device))
    assert isinstance(clip, ClipEncoder)
    return clip, config


def whiten_names(names: torch.Tensor, width: int, dim: int) -> tuple[torch.Tensor, torch.Tensor]:
    """How texts are projected, float32 [dim, width], and where the names [classes, width] then are, [dim, classes]."""
    centre = names.mean(0)
    common = torch.nn.functional.normalize(centre, dim=0)
    spread = torch.cov((names - centre).T, correction=0)
    values, vectors = torch.linalg.eigh(spread + RIDGE * spread.trace() / width * torch.eye(width))
    white = (torch.eye(width) - torch.outer(common, common)) @ (vectors * values**-0.5) @ vectors.T
    chance = torch.Generator().manual_seed(0)
    turned = torch.linalg.qr(torch.randn(dim, width, generator=chance))[0] @ white.T
    named = torch.nn.functional.normalize(names @ turned.T, dim=1).T
    return turned * (TEXT_DEVIATION / turned.std()), named * NAME_LENGTH


def prefix_texts(tokenizer: Any, prompt: str) -> Any:
    """A copy of a fast tokenizer that puts a prompt before texts itself."""
    from tokenizers.processors import TemplateProcessing

    made = copy.deepcopy(tokenizer)
    whole = tokenizer(prompt.strip())["input_ids"]
    first, *said, last = tokenizer.convert_ids_to_tokens(whole)
    special = [(first, whole[0]), (last, whole[-1]), {"id": "prompt", "ids": whole[1:-1], "tokens": said}]
    made.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"{first} prompt $A {last}", special_tokens=special
    )
    return made
