"""What each session of a training asks: what is installed, what was begun in the folder, how much memory it took."""

from __future__ import annotations

import resource
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from ..errors import InputError
from ..files import read_json, write_json
from ..items import hash_json


def begin_work(folder: Path, call: Mapping[str, Any]) -> None:
    """Note in a folder what is made in it, or go on there; `InputError` where something else was begun."""
    path = folder / "call.json"
    own = {key: hash_json(value) for key, value in call.items()}
    if not path.exists():
        write_json(path, own)
        return
    was = read_json(path)
    if changed := [key for key, value in own.items() if not isinstance(was, dict) or was.get(key) != value]:
        raise InputError(
            f"{folder} holds work that was begun with another {' and '.join(changed)}: remove it, or name another "
            f"output"
        )


def require_packages(*names: str) -> None:
    """`InputError` naming what is to be installed, where one is missing."""
    if missing := [name for name in names if find_spec(name) is None]:
        raise InputError(f"training needs {' and '.join(missing)}: pip install 'crosslens[train]'")


def measure_memory(device: torch.device) -> int:
    """The most bytes that this process has held: on a GPU what was allocated there, else of the machine's."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
