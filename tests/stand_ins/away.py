"""Encoders without a model that processes elsewhere load by their names, faster than any real one."""

from __future__ import annotations

from dataclasses import replace

from crosslens.errors import InputError
from crosslens.items import Item
from crosslens.media.images import open_image, read_image_bytes

from .index_cases import Hashing


class Words(Hashing):
    """Of texts alone."""

    def __init__(self) -> None:
        super().__init__(name=f"py:{__name__}:Words", modalities=("text",))


class Pictures(Hashing):
    """Of texts and pictures, which it opens."""

    def __init__(self) -> None:
        super().__init__(name=f"py:{__name__}:Pictures")

    def parts(self, item: Item, role: str) -> list[bytes]:
        if item.image is not None:
            try:
                open_image(item.image, max_pixels=100)
            except (OSError, ValueError) as error:
                raise InputError(f"item {item.id!r} ({item.image!r:.30}): {error}") from None
            item = replace(item, image=read_image_bytes(item.image))
        return super().parts(item, role)
