"""Vision-language models, and items with pictures and without."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from crosslens.items import Item
from tiny.sighted import save_built
from tiny.vlms import KINDS, picture


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tiny_vlm):
    made: dict[str, Path] = {"qwen2-vl": tiny_vlm}

    def of(kind):
        if kind not in made:
            made[kind] = save_built(tmp_path_factory.mktemp(kind), KINDS[kind])
        return made[kind]

    return of


@pytest.fixture(scope="module")
def items(tmp_path_factory):
    """Texts, pictures and both, of many sizes; pictures as PIL's own, bytes and a path."""
    path = tmp_path_factory.mktemp("photos") / "photo.png"
    picture(24, 40, 1).save(path)
    png = io.BytesIO()
    picture(64, 32, 2).save(png, "PNG")
    return [
        Item("t", "The cat sleeps all day."),
        Item("i", image=picture(33, 20)),
        Item("b", "Le chat dort 猫", path),
        Item("long", "Кошка спит весь день. " * 9),
        Item("small", image=picture(3, 5, 3)),
        Item("both", "x", png.getvalue()),
        Item("wide", "गर", picture(300, 100, 4)),
    ]
