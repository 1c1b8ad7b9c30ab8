"""What each session of a training asks: is it done, what was begun, what is installed, how much memory it took."""

from __future__ import annotations

import os
import resource
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from ..errors import InputError
from ..files import lock_directory, make_directory, read_json, write_json
from ..items import hash_json
from .disk import explain_full_disk

# Keys of a recipe that may differ when a training goes on: it ends earlier or later.
OPEN = ("epochs", "steps", "minutes")


def find_finished(output: Path, card: str, call: Mapping[str, Any]) -> dict[str, Any] | None:
    """The card, by its file's name, of the result that is there, if it has what `call` has; None where nothing is.

    `InputError` where something else is there, and for a name that no result can have.
    """
    if "?" in (name := str(output)) or name != name.strip():
        raise InputError(f"{name!r} cannot be named by a SPEC: take an output without '?', and no space at its ends")
    if os.path.ismount(output):
        raise InputError(f"{output} is a mount point, which nothing can take the place of: name a directory in it")
    if not os.path.lexists(output) or (output.is_dir() and not output.is_symlink() and not any(output.iterdir())):
        return None
    found = read_json(output / card) if (output / card).is_file() else None
    if isinstance(found, dict) and all(hash_json(found.get(key)) == hash_json(value) for key, value in call.items()):
        return found
    raise InputError(f"{output} is there already, and not from this call: remove it, or name another output")


@contextmanager
def open_work(folder: Path, call: Mapping[str, Any], holds_work: Callable[[], bool]) -> Iterator[None]:
    """The folder of an unfinished result, locked, in which `call` is made, or was begun; gone where an error leaves
    nothing in it to go on with.

    `InputError` where something else was begun in it, where another process works there, and for a full disk.
    """
    make_directory(folder)
    with lock_directory(folder), explain_full_disk(folder):
        begin_work(folder, call)
        try:
            yield
        except BaseException:
            if not holds_work():
                shutil.rmtree(folder, ignore_errors=True)
            raise


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
