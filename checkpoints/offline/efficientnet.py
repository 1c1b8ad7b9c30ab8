"""EfficientNet-Lite2 from its package's state dict to timm's `tf_efficientnet_lite2`."""

from collections.abc import Sequence
from pathlib import Path

from .packages import save_json

OUTER = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
# The first stage does not expand, and timm numbers its layers accordingly.
FIRST = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
INNER = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
CONFIG = {
    "architecture": "tf_efficientnet_lite2",
    "num_classes": 1000,
    "input_size": [3, 260, 260],
    "mean": [0.5, 0.5, 0.5],
    "std": [0.5, 0.5, 0.5],
    "interpolation": "bicubic",
    "crop_pct": 0.89,
    "crop_mode": "center",
}


def convert_efficientnet(files: Sequence[Path], directory: Path) -> None:
    """Write config.json (preprocessing) and float32 safetensors, checked by a strict load into timm."""
    import timm
    import torch
    from safetensors.torch import save_file

    source = torch.load(files[0], weights_only=True, map_location="cpu")
    model = timm.create_model(CONFIG["architecture"], pretrained=False)
    # Blocks are numbered through in the source, and by stage and block in timm.
    names = [name.split(".") for name in model.state_dict() if name.startswith("blocks.")]
    blocks = sorted({(int(stage), int(block)) for _, stage, block, *_ in names})
    state = {}
    for name, tensor in source.items():
        head, rest = name.split(".", 1)
        if head == "_blocks":
            number, layer, rest = rest.split(".", 2)
            stage, block = blocks[int(number)]
            state[f"blocks.{stage}.{block}.{(INNER if stage else FIRST)[layer]}.{rest}"] = tensor.contiguous()
        else:
            state[f"{OUTER[head]}.{rest}"] = tensor.contiguous()
    model.load_state_dict(state, strict=True)
    save_file(state, directory / "model.safetensors", metadata={"format": "pt"})
    save_json(directory / "config.json", CONFIG)
