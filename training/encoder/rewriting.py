"""New weights in the files of the base: for checkpoints of formats that only their own files describe."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from ...checkpoints.source import Source
from ...errors import CrosslensError, InputError
from ...files import make_directory

SKIPPED = (".bin", ".pt", ".pth", ".onnx", ".h5", ".msgpack", ".ot")  # weights of other formats, which would be the old


def rewrite_checkpoint(source: Source, folder: Path, weights: Mapping[str, torch.Tensor]) -> None:
    """Copy a checkpoint to a folder, with `weights` in place of those of their names.

    A name in a file may have one more step in front (`bert.`); the folder of a dense layer stands before its own
    (`1_Dense/`). Tied weights have several names, of which a file has one at least. `CrosslensError` where it has none.
    """
    if (config := source.find("config.json", "modules.json")) is None:
        raise InputError(f"{source} has no config.json")
    root = config.parent
    left = {id(each): name for name, each in weights.items()}
    for path in sorted(root.rglob("*")):
        place = path.relative_to(root)
        if not path.is_file() or path.suffix in SKIPPED or any(part.startswith(".") for part in place.parts):
            continue
        make_directory((folder / place).parent)
        if path.suffix != ".safetensors":
            shutil.copyfile(path, folder / place)
            continue
        with safe_open(path, "pt") as file:
            held = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a dict
        for key in held:
            names = (f"{place.parent}/{key}".removeprefix("./"), key, key.partition(".")[2])
            if (name := next((each for each in names if each in weights), None)) is not None:
                held[key] = weights[name].detach().cpu().contiguous()
                left.pop(id(weights[name]), None)
        save_file(held, folder / place, {"format": "pt"})
    if left:
        raise CrosslensError(f"{source} has no place for the weights {min(left.values())}: please report this")
