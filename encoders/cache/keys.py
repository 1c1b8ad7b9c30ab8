"""What an item is to an encoder, and its vector as bytes: what the cache knows them by, and keeps."""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...items import Item, Modality
from ...media.modalities import MEDIA
from ..base import EncoderSpec
from ..rows import Row

if TYPE_CHECKING:
    import PIL.Image


def compute_key(item: Item, modalities: Collection[Modality]) -> bytes | None:
    """16 bytes over what an encoder of these modalities reads of an item; None if a medium of it cannot be read.

    Unlike `Item.content_hash`, which serves to resume, this reads files: a path says nothing in another collection.
    """
    digest = hashlib.blake2b(digest_size=16)
    if "text" in modalities and item.text is not None:
        for part in (item.text, item.lang or ""):
            data = part.encode("utf-8", "surrogatepass")
            digest.update(b"text %d " % len(data) + data)
    for name, value in item.contents.items():
        if name in modalities and value is not None:
            if name != "image":  # pictures came first, and their keys have no name
                digest.update(f"{name} ".encode())
            try:
                digest.update(_digest(name, value))
            except (OSError, ValueError):  # the encoder says what is wrong with it
                return None
    return digest.digest()


def pack_row(row: Row) -> bytes:
    """Little-endian float32, before them as many int32 where they are sparse."""
    if isinstance(row, tuple):
        return row[0].astype("<i4").tobytes() + row[1].astype("<f4").tobytes()
    packed: bytes = row.astype("<f4", copy=False).tobytes()
    return packed


def unpack_row(packed: bytes, spec: EncoderSpec) -> Row | None:
    """The row that was packed; None if it cannot be one of this encoder's."""
    size = {"dense": 4 * spec.dim, "multi": 4 * spec.dim, "sparse": 8}[spec.kind]
    if len(packed) % size or (spec.kind == "dense" and len(packed) != size):
        return None
    if spec.kind == "sparse":
        half = len(packed) // 2
        return np.frombuffer(packed[:half], "<i4"), np.frombuffer(packed[half:], "<f4")
    row = np.frombuffer(packed, "<f4").astype(np.float32)  # a copy, which may be written to as a new one may
    return row if spec.kind == "dense" else row.reshape(-1, spec.dim)


def _digest(name: str, value: object) -> bytes:
    """A digest of a medium: of the encoded bytes, in a file or not, or of what stands for a decoded one."""
    if isinstance(value, bytes):
        return b"encoded " + hashlib.blake2b(value).digest()
    if isinstance(value, Path):
        if not stat.S_ISREG(value.stat().st_mode):  # reading a pipe might never end
            raise ValueError(f"{value} is not a regular file")
        with value.open("rb") as file:
            return b"encoded " + hashlib.file_digest(file, "blake2b").digest()
    if name == "image":
        return b"decoded " + _digest_pixels(value)  # type: ignore[arg-type]
    return b"decoded " + hashlib.blake2b(MEDIA[name].digest(value)).digest()


def _digest_pixels(image: PIL.Image.Image) -> bytes:
    """Pixels and their meaning."""
    palette = image.getpalette("RGBA") if image.mode == "P" else None
    meaning = (image.mode, image.size, palette, image.info.get("transparency"), image.getexif().get(0x0112))
    digest = hashlib.blake2b(repr(meaning).encode())
    digest.update(image.tobytes())
    return digest.digest()
