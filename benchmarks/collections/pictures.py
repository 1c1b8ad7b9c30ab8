"""Pictures of a collection: the same ones known by their pixels, stored once, linked into both halves."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Hashable, Iterable, Mapping
from pathlib import Path

from crosslens.media.images import open_image
from directory import HALVES

FOLDER = "images"


def pixels(picture: Path | bytes, name: str) -> str:
    """A hash of size and pixels, as an encoder sees them (upright, on white); `InputError` as `open_image`."""
    image = open_image(picture, max_pixels=None, name=name)
    return hashlib.blake2b(f"{image.size}".encode() + image.tobytes(), digest_size=16).hexdigest()


def link_pictures(root: Path, target: Path) -> None:
    """The pictures of `root` also below `target`: hard links where the file system has them.

    A collection may not show files from outside its directory, so symbolic links will not do.
    """
    for path in sorted((root / FOLDER).rglob("*")):
        copy = target / path.relative_to(root)
        if path.is_dir():
            continue
        copy.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(path, copy)
        except OSError:
            shutil.copyfile(path, copy)


def link_into_halves(root: Path) -> None:
    for half in HALVES:
        link_pictures(root, root / half)


def together(keys: Mapping[str, Iterable[Hashable]]) -> dict[str, str]:
    """id -> the least id among those that share a key with it, or with one that does, and so on."""
    parents = {id: id for id in keys}

    def root(id: str) -> str:
        while parents[id] != id:
            parents[id] = parents[parents[id]]
            id = parents[id]
        return id

    first: dict[Hashable, str] = {}
    for id in sorted(keys):
        for key in keys[id]:
            one, other = sorted((root(first.setdefault(key, id)), root(id)))
            parents[other] = one
    return {id: root(id) for id in keys}
