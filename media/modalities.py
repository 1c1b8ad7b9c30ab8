"""One table of what an item can hold beside text: how each kind of content is opened, hashed and stored.

A new modality is one file that calls `register`; items hold it as `Item(media={name: value})`, records of collections
under a key of its name, indexes in columns of its name. A value is a path, encoded bytes, or an object in memory.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from ..files import find_fault, read_bytes
from .drawing import Drawing

if TYPE_CHECKING:
    import PIL.Image


@dataclass(frozen=True)
class Medium:
    """One modality: `name` is that of the modality, of the key in records, and of the columns of an index.

    `open` decodes a path or bytes for a model, within limits, and raises `InputError` for what it cannot read.
    `encode` and `digest` are for objects in memory: as bytes that are stored, and as bytes that stand for the content.
    `suffixes` are the endings of its files, as `.png`. `to_file` gives a value as the bytes of a file and its ending;
    its `InputError` begins with the label given. Without it a file is taken as it is.
    """

    name: str
    suffixes: tuple[str, ...]
    open: Callable[[Any], Any]
    encode: Callable[[Any], bytes]
    digest: Callable[[Any], bytes]
    to_file: Callable[[Any, str], tuple[bytes, str]] | None = None


MEDIA: dict[str, Medium] = {}  # in the order in which joined names (`text+image`) are written


def register(medium: Medium) -> None:
    """Add a modality; `InputError` if its name is taken or cannot be that of a column."""
    if medium.name in MEDIA or medium.name in ("text", "id", "lang", "meta", "modality", "facets", "hash"):
        raise InputError(f"the modality {medium.name!r} is there already")
    if not medium.name.isidentifier() or not medium.name.islower():
        raise InputError(f"{medium.name!r} cannot be the name of a modality: use small letters")
    MEDIA[medium.name] = medium


def unregister(name: str) -> None:
    """Take a modality away again, as a test that added one does."""
    del MEDIA[name]


def join_modalities(held: Iterable[str]) -> str:
    """Names of modalities as one, `text+image`, always in the same order."""
    names = set(held)
    return "+".join(each for each in ("text", *MEDIA) if each in names)


def update_hash(hashing: hashlib.blake2b, name: str, value: object) -> None:
    """Feed the content of one medium to a hash.

    A path stands for its content until the file changes: to read a million photos would be no way to resume.
    """
    if isinstance(value, Path):
        stat = None if find_fault(value) else value.stat()
        hashing.update(f"{value}|{stat and (stat.st_size, stat.st_mtime_ns)}".encode())
    elif isinstance(value, bytes):
        hashing.update(value)
    elif isinstance(value, Drawing):
        hashing.update(value.key.encode("utf-8", "surrogatepass"))
    else:
        hashing.update(MEDIA[name].digest(value))


def find_media_fault(contents: Mapping[str, object]) -> str:
    """Why one of the media, by their names, cannot be opened; empty if all can. They are decoded for it."""
    for name, value in contents.items():
        if value is not None:
            try:
                MEDIA[name].open(value)
            except InputError as error:
                return str(error)
    return ""


def to_bytes(name: str, value: object) -> bytes:
    """A medium as it is stored: bytes as they are, an object in memory encoded."""
    if isinstance(value, Drawing):
        return value.read()
    return value if isinstance(value, bytes) else MEDIA[name].encode(value)


def to_file(name: str, value: object, label: str) -> tuple[bytes, str]:
    """A medium as the bytes of a file and its ending; `InputError`, which begins with `label`, if it cannot be read."""
    medium = MEDIA[name]
    if medium.to_file is not None:
        return medium.to_file(value, label)
    if not isinstance(value, Path):
        return to_bytes(name, value), medium.suffixes[0]
    try:
        content = read_bytes(value)
    except InputError as error:
        raise InputError(f"{label}: {error}") from None
    suffix = value.suffix.lower()
    return content, suffix if suffix in medium.suffixes else medium.suffixes[0]


def _open_image(source: Path | bytes | PIL.Image.Image | Drawing) -> PIL.Image.Image:
    from .images import open_image

    return open_image(source)


def _encode_image(image: PIL.Image.Image) -> bytes:
    from .images import encode_png

    return encode_png(image)


def _digest_image(image: PIL.Image.Image) -> bytes:
    from .images import digest_image

    return digest_image(image)


def _image_to_file(source: Path | bytes | PIL.Image.Image | Drawing, label: str) -> tuple[bytes, str]:
    from .images import read_image_file

    return read_image_file(source, name=label)


IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".avif", ".qoi")
register(Medium("image", IMAGE_SUFFIXES, _open_image, _encode_image, _digest_image, _image_to_file))
