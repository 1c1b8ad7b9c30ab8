"""Weights of checkpoints: read from safetensors alone and complete, or an error that says how to convert them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..encoders.transformer import loaded
from ..errors import InputError

TENSORS = (
    "import torch, safetensors.torch as s; w = torch.load(d + '/{old}', weights_only=True); "
    "s.save_file({{k: v.clone().contiguous() for k, v in w.items()}}, d + '/{new}', {{'format': 'pt'}})"
)


def complete(
    auto: Any,
    checkpoint: str,
    revision: str | None,
    spare: Callable[[str], bool] = lambda key: False,
    **options: Any,
) -> Any:
    """The model of a checkpoint, loaded with the class `auto` of transformers.

    `spare` says which weights may be missing. `InputError` if others are, and how to convert them if all are pickled.
    """
    try:
        model, report = loaded(
            auto, checkpoint, revision=revision, use_safetensors=True, output_loading_info=True, **options
        )
    except InputError:
        require_safetensors(checkpoint, revision, auto.__name__)
        raise
    if missing := sorted(key for key in report["missing_keys"] if not spare(key)):
        raise InputError(f"{checkpoint}: weights are missing from the checkpoint: {', '.join(missing[:3])}")
    return model


def require_safetensors(checkpoint: str, revision: str | None, auto: str = "AutoModel") -> None:
    """`InputError` that says how to convert with the class `auto`, if the checkpoint's weights are pickled only."""
    from transformers.utils import hub

    if Path(checkpoint).is_dir():
        if any(Path(checkpoint).glob("*.safetensors")):
            return
        pickled = [path.name for path in sorted(Path(checkpoint).glob("pytorch_model*.bin"))]
    else:
        names = ("pytorch_model.bin", "pytorch_model.bin.index.json")
        try:
            pickled = [name for name in names if hub.has_file(checkpoint, name, revision=revision)]
        except (
            OSError,
            ValueError,
            hub.httpx.HTTPError,
        ):  # no network, no such name: what was said first stands
            return
    if pickled:
        code = f"from transformers import {auto} as M; M.from_pretrained(d).save_pretrained(d)"
        raise pickled_only(checkpoint, revision, pickled[0], code)


def pickled_only(checkpoint: str, revision: str | None, file: str, code: str) -> InputError:
    """The error for pickled weights; `code` is Python that converts those of a copy in the directory `d`."""
    if Path(checkpoint).is_dir():
        copy = f"from shutil import copytree as f; d = f({checkpoint!r}, 'converted')"
    else:
        which = f", revision={revision!r}" if revision else ""
        copy = f"from huggingface_hub import snapshot_download as f; d = f({checkpoint!r}, local_dir='converted'{which})"
    return InputError(
        f"{checkpoint} has pickled weights only ({file}), which are not read, since they may hold code; "
        f'if you trust them, convert them once: python -c "{copy}; {code}"'
    )
