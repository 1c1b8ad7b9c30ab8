"""Whether the files of a collection have changed since it was read."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import parse_qsl

from ...files import find_fault
from .base import Collection


def digest_files(collection: Collection, name: str, without: Iterable[Path] = ()) -> str | None:
    """A digest of the `name` that a collection was loaded by, and of the paths, sizes and times of its files.

    Files and directories that the options of its name give may lie elsewhere; linked directories are followed. What
    lies in a directory of `without` does not count. None where the collection does not lie in a directory.
    """
    root = getattr(collection, "root", None) or getattr(getattr(collection, "files", None), "root", None)
    if root is None:
        return None
    paths = [Path(value) for _, value in parse_qsl(name.partition("?")[2])]
    passed = {os.path.realpath(each) for each in without}
    for place in (Path(root), *filter(os.path.isdir, tuple(paths))):
        for folder, folders, names in os.walk(place, followlinks=True):
            real = {each: os.path.realpath(Path(folder, each)) for each in sorted(folders)}
            folders[:] = [each for each in real if real[each] not in passed]
            passed.update(real.values())  # links may lead in circles
            paths += [Path(folder, each) for each in sorted(names)]
    digest = hashlib.sha256(_encode(os.path.realpath(name) if os.path.exists(name) else name))
    for path in paths:
        if not find_fault(path):
            stat = path.stat()
            digest.update(_encode(f"\n{path}|{stat.st_size}|{stat.st_mtime_ns}"))
    return digest.hexdigest()


def _encode(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
