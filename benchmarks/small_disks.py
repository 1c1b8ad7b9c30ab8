"""Directories and small disks that are there for the time of a block."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def folder(root: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=root) as made:
        yield Path(made)


@contextmanager
def disk(where: Path, size: int) -> Iterator[tuple[Callable[[], None], int | None]]:
    """A small disk at a directory, and what makes it larger; where none can be mounted, the largest size of a file."""
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "kills", where], capture_output=True)
    if mounted.returncode:
        yield lambda: None, size // 4
        return
    try:
        yield lambda: subprocess.run(["mount", "-o", "remount,size=256m", where], check=True), None
    finally:
        subprocess.run(["umount", where], check=True)
