"""Archives of members that a test names."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path


def write_tar(path: Path, *members: tuple[str, bytes], mode: str = "w") -> Path:
    """A .tar file, or with the mode `w:gz` a packed one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as archive:
        for name, content in members:
            (member := tarfile.TarInfo(name)).size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path
