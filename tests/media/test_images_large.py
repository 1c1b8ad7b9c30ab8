"""media/images.py: large pictures, which are converted a part after the other; what decoding takes of memory."""

from __future__ import annotations

import io
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from crosslens.errors import InputError
from crosslens.media import images
from crosslens.media.images import open_image
from stand_ins.table import table

SIDE = 9400
MEASURE = """
import re, sys
from pathlib import Path
from PIL import Image
from crosslens.media.images import open_image
Image.init()
def read(key):
    return int(re.search(key + r":\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
before = read("VmRSS")
Path("/proc/self/clear_refs").write_text("5")
size = open_image(Path(sys.argv[1])).size
print(size[0], size[1], (read("VmHWM") - before) * 1024)
"""


def write_png(path: Path, depth: int, kind: int, sample: bytes, *chunks: tuple[bytes, bytes]) -> None:
    """A PNG of one colour, SIDE x SIDE."""
    packer = zlib.compressobj(1)
    data = b"".join(packer.compress(b"\0" + sample * SIDE) for _ in range(SIDE)) + packer.flush()
    head = SIDE.to_bytes(4, "big") * 2 + bytes([depth, kind, 0, 0, 0])
    with path.open("wb") as out:
        out.write(b"\x89PNG\r\n\x1a\n")
        for name, body in ((b"IHDR", head), *chunks, (b"IDAT", data), (b"IEND", b"")):
            out.write(len(body).to_bytes(4, "big") + name + body + zlib.crc32(name + body).to_bytes(4, "big"))


def write_large(kind: str, path: Path) -> None:
    if kind == "rgba":
        write_png(path, 8, 6, b"\x80\x40\x20\x80")
    elif kind == "grey16":
        write_png(path, 16, 0, b"\x80\x40")
    elif kind == "palette":
        write_png(path, 8, 3, b"\1", (b"PLTE", bytes(range(6))), (b"tRNS", b"\x80\x80"))
    elif kind == "tiff":
        PIL.Image.new("CMYK", (SIDE, SIDE)).save(path, "TIFF", compression="tiff_lzw")
    else:
        PIL.Image.new("L", (SIDE, SIDE)).save(path, "JPEG", progressive=True, quality=30)


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux measures it")
@pytest.mark.parametrize("kind", ["rgba", "grey16", "palette", "tiff", "jpeg"])
def test_a_large_picture_takes_less_than_400_megabytes(tmp_path, kind):
    path = tmp_path / "large"
    write_large(kind, path)
    command = [sys.executable, "-c", MEASURE, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    width, height, peak = map(int, done.stdout.split())
    assert (width, height) == (1024, 1024)
    assert peak < images.MAX_MEMORY, f"{peak / 1e6:.0f} MB"


def draw(mode: str, size: tuple[int, int]) -> PIL.Image.Image:
    """Smooth shapes and noise."""
    width, height = size
    y, x = np.mgrid[:height, :width]
    noise = np.random.default_rng(0).integers(0, 60, (height, width, 4))
    values = np.stack([x * 255 / width, y * 255 / height, (x * y) % 251, (x + y) % 256], -1)
    values = (values * 0.75 + noise).clip(0, 255)
    if mode == "I;16":
        return PIL.Image.fromarray((values[..., 0] * 257).astype(np.uint16))
    if mode in ("I", "F"):
        scaled = values[..., 0] * (3.0 if mode == "F" else 900.0) - 100
        return PIL.Image.fromarray(scaled.astype(np.float32 if mode == "F" else np.int32))
    image = PIL.Image.fromarray(values.astype(np.uint8), "RGBA")
    if mode == "P+":
        made = image.convert("RGB").quantize(64)
        made.info["transparency"] = bytes([0, 128] * 32)
        return made
    return image.convert("RGB").convert(mode) if mode in ("P", "1", "CMYK", "YCbCr") else image.convert(mode)


@table("mode", ["RGB", "RGBA", "L", "LA", "P", "P+", "1", "CMYK", "I;16", "I", "F"])
@table(("size", "max_pixels"), [((300, 203), 300), ((300, 203), 40_000), ((97, 411), 4000), ((620, 3), None)])
def test_parts_give_the_pixels_of_the_whole(monkeypatch, mode, size, max_pixels):
    image = draw(mode, size)
    whole = open_image(image, max_pixels=max_pixels)
    monkeypatch.setattr(images, "WHOLE", 100)
    monkeypatch.setattr(images, "BLOCK", 96)
    parts = open_image(image, max_pixels=max_pixels)
    assert parts.size == whole.size
    differences = np.abs(np.asarray(parts, int) - np.asarray(whole, int))
    # Where Lanczos' filter overshoots it is clipped, before or after the other axis: noise in black and white is worst.
    assert differences.max() <= (40 if mode in ("1", "P", "P+") else 5)
    assert differences.mean() < (0.8 if mode in ("1", "P", "P+") else 0.2)


@table("mode", ["RGB", "RGBA", "L", "P+", "CMYK"])
def test_ordinary_pictures_are_decoded_and_resized_whole(mode):
    """As ever: encoders' golden values hang on each pixel."""
    image = draw(mode, (900, 700))
    plain = image
    if image.has_transparency_data:
        white = PIL.Image.new("RGBA", image.size, "white")
        plain = PIL.Image.alpha_composite(white, image.convert("RGBA"))
    made = open_image(image, max_pixels=80_000)
    assert made.size == (320, 249)
    expected = plain.convert("RGB").resize(made.size, PIL.Image.Resampling.LANCZOS, reducing_gap=3.0)
    assert made.tobytes() == expected.tobytes()


def save(form: str, **options: object) -> bytes:
    out = io.BytesIO()
    draw("RGB", (400, 300)).save(out, form, **options)
    return out.getvalue()


@table(
    ("form", "options", "taken"),
    [
        ("WEBP", {}, 17),
        ("AVIF", {}, 20),
        ("QOI", {}, 7.5),
        ("JPEG", {"progressive": True, "subsampling": 0}, 10),
        ("JPEG", {"progressive": True, "subsampling": 2}, 7),
        ("JPEG", {"subsampling": 0}, 4),
        ("TIFF", {"compression": "tiff_lzw", "tiffinfo": {0x0116: 300}}, 8),
        ("TIFF", {"compression": "tiff_lzw", "tiffinfo": {0x0116: 300, 0x0112: 6}}, 12),
        ("TIFF", {}, 4),
        ("PNG", {}, 4),
    ],
)
def test_a_decoder_that_takes_too_much_is_refused(monkeypatch, form, options, taken):
    """`taken`: bytes a pixel. The limit is put just above and just below what the picture takes."""
    content, pixels = save(form, **options), 400 * 300
    monkeypatch.setattr(images, "MAX_MEMORY", images.SPARE + int(taken * pixels * 1.1))
    assert open_image(content).width in (300, 400)
    monkeypatch.setattr(images, "MAX_MEMORY", images.SPARE + int(taken * pixels * 0.9))
    with pytest.raises(InputError, match=rf"to decode this {form} of \d+ x \d+ pixels takes .* scale it down"):
        open_image(content)


def test_a_draft_takes_less_but_for_the_coefficients_of_a_progressive_picture(monkeypatch):
    monkeypatch.setattr(images, "MAX_MEMORY", images.SPARE + 400 * 300)
    assert open_image(save("JPEG"), max_pixels=1000).size == (36, 27)
    with pytest.raises(InputError, match="JPEG of 400 x 300"):
        open_image(save("JPEG", progressive=True), max_pixels=1000)
