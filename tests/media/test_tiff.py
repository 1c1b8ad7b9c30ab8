"""Damaged TIFF files: what libtiff says of them is an error of one line, and nothing on the terminal."""

from __future__ import annotations

import io
import random

import pytest
from crosslens.errors import InputError
from crosslens.media.images import open_image
from PIL import Image


@pytest.mark.filterwarnings("ignore")  # those of PIL
def test_libtiff_writes_nothing_to_the_terminal(capfd):
    out = io.BytesIO()
    Image.new("RGB", (64, 64), (3, 4, 5)).save(out, "TIFF", compression="tiff_lzw")
    chance = random.Random(1)
    refused = 0
    for _ in range(60):
        content = bytearray(out.getvalue())
        for _ in range(4):
            content[chance.randrange(8, len(content))] = chance.randrange(256)
        try:
            open_image(bytes(content))
        except InputError:
            refused += 1
    assert refused > 10
    assert capfd.readouterr().err == ""
