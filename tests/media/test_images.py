"""Opening images: every mode and format ends as upright RGB, everything else as one `InputError`."""

import importlib
import io
import os
import struct
import zlib
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from crosslens.errors import InputError
from crosslens.media.images import open_image, read_image_bytes, thumbnail
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile, features
from stand_ins.table import table

FORMATS = ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM"] + ["AVIF"] * features.check("avif")


def scene(width: int = 96, height: int = 64) -> Image.Image:
    """Red left, blue right, with texture enough that half of the bytes is half of the picture."""
    noise = np.random.default_rng(7).integers(0, 60, (height, width, 3))
    noise[:, : width // 2, 0] += 190
    noise[:, width // 2 :, 2] += 190
    return Image.fromarray(noise.astype(np.uint8))


def encoded(image: Image.Image, form: str = "PNG", **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, form, **options)
    return out.getvalue()


@cache
def sample(form: str) -> bytes:
    return encoded(scene(), form)


def mean(image: Image.Image, left: bool) -> np.ndarray:
    pixels = np.asarray(image, dtype=float)
    half = pixels.shape[1] // 2
    return (pixels[:, :half] if left else pixels[:, half:]).mean(axis=(0, 1))


@table("form", FORMATS)
def test_formats_open_from_file_bytes_and_pil(form: str, tmp_path: Path) -> None:
    data = sample(form)
    (path := tmp_path / "picture").write_bytes(data)  # no suffix: the content decides
    with Image.open(io.BytesIO(data)) as lazy:
        for source in (path, data, lazy):
            image = open_image(source)
            assert (image.mode, image.size) == ("RGB", (96, 64))
            assert mean(image, left=True)[0] > 150 > mean(image, left=True)[2]
            assert mean(image, left=False)[2] > 150 > mean(image, left=False)[0]


@table("form", FORMATS)
@table("share", [0.3, 0.6, 0.9])
def test_truncated_is_an_error_and_never_half_a_picture(form: str, share: float, tmp_path: Path) -> None:
    assert not ImageFile.LOAD_TRUNCATED_IMAGES
    data = sample(form)
    (path := tmp_path / "cut.img").write_bytes(data[: int(len(data) * share)])
    with pytest.raises(InputError, match=r"cut\.img"):
        open_image(path)


@table("orientation", range(1, 9))
@table("form", ["JPEG", "TIFF", "PNG", "WEBP"])
def test_exif_rotation(orientation: int, form: str) -> None:
    # What a camera stores for the upright scene: the inverse of what the tag asks a viewer to do.
    inverse = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}
    stored = scene()
    if orientation in inverse:
        stored = stored.transpose(Image.Transpose(inverse[orientation]))
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = open_image(encoded(stored, form, exif=exif))
    assert image.size == (96, 64)
    assert np.abs(np.asarray(image, float) - np.asarray(scene(), float)).mean() < 25


def test_broken_exif_does_not_lose_the_picture() -> None:
    data = encoded(scene(), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff" + b"\xff" * 30)
    assert open_image(data).size == (96, 64)


GRADIENT = np.linspace(0, 255, 64, dtype=np.uint8)[None].repeat(8, axis=0)


@table(
    ("values", "form"),
    [
        (GRADIENT.astype(np.uint16) * 257, "PNG"),
        (GRADIENT.astype(np.uint16) * 257, "TIFF"),
        (GRADIENT.astype(np.int32) * 257, "TIFF"),
        (GRADIENT.astype(np.int32) * 1_000_000 - 7, "TIFF"),
        (GRADIENT.astype(np.float32) / 255, "TIFF"),
        (GRADIENT.astype(np.float32), "TIFF"),
        (GRADIENT.astype(np.float32) * 1e36 - 1e38, "TIFF"),
        (GRADIENT, "PNG"),
    ],
)
def test_deep_pictures_are_scaled_and_not_clipped(values: np.ndarray, form: str) -> None:
    image = open_image(encoded(Image.fromarray(values), form))
    assert np.abs(np.asarray(image, int) - GRADIENT[:, :, None]).max() <= 1


def test_pgm_of_16_bits() -> None:
    data = b"P5 64 8 65535\n" + (GRADIENT.astype(">u2") * 257).tobytes()
    assert np.abs(np.asarray(open_image(data), int)[:, :, 0] - GRADIENT).max() <= 1


def test_a_dark_16_bit_picture_stays_dark() -> None:
    data = encoded(Image.fromarray(np.full((8, 8), 257 * 3, np.uint16)), "PNG")
    assert np.asarray(open_image(data)).max() == 3


def test_float_with_nan_and_infinity() -> None:
    values = GRADIENT.astype(np.float32) / 255
    values[0, 0], values[0, 1] = np.nan, np.inf
    assert open_image(Image.fromarray(values)).size == (64, 8)


def test_cmyk_jpeg_is_not_inverted() -> None:
    image = open_image(encoded(scene().convert("CMYK"), "JPEG", quality=95))
    assert mean(image, left=True)[0] > 150 > mean(image, left=True)[2]


@table("mode", ["1", "L", "P", "RGB", "CMYK", "YCbCr", "HSV", "LAB", "I", "F", "I;16"])
def test_every_mode_of_a_pil_image(mode: str) -> None:
    white = Image.new("RGB", (6, 4), "white")
    if mode == "I;16":
        source = Image.fromarray(np.full((4, 6), 65535, np.uint16))
    elif mode == "LAB":
        source = Image.new("LAB", (6, 4), (255, 128, 128))
    else:
        source = white.convert(mode)
    before = source.tobytes()
    image = open_image(source)
    assert image.mode == "RGB"
    assert np.asarray(image).min() > 250
    assert source.tobytes() == before


@table("mode", ["RGBA", "LA", "PA", "RGBa", "La", "P"])
def test_transparency_is_laid_on_white(mode: str) -> None:
    clear = Image.new("RGBA", (4, 4), (0, 0, 0, 0))
    if mode == "P":
        source = Image.new("P", (4, 4), 0)
        source.putpalette([0, 0, 0] * 256)
        source.info["transparency"] = 0
    elif mode in ("RGBA", "RGBa"):
        source = clear.convert(mode)
    elif mode == "PA":
        source = Image.new("PA", (4, 4), (0, 0))
    else:
        source = clear.convert("LA").convert(mode)
    assert np.asarray(open_image(source)).min() == 255


def test_transparent_colour_of_png() -> None:
    assert np.asarray(open_image(encoded(Image.new("RGB", (4, 4)), "PNG", transparency=(0, 0, 0)))).min() == 255
    half = Image.new("RGBA", (4, 4), (0, 0, 0, 128))
    assert abs(int(np.asarray(open_image(encoded(half, "PNG"))).mean()) - 127) <= 1


@pytest.mark.parametrize("form", ["GIF", "PNG", "WEBP", "TIFF"])
def test_first_frame_of_an_animation(form: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "lime", "blue")]
    data = encoded(frames[0], form, save_all=True, append_images=frames[1:])
    assert np.asarray(open_image(data))[4, 4].argmax() == 0


def test_one_pixel() -> None:
    assert open_image(encoded(Image.new("RGB", (1, 1), "red"))).getpixel((0, 0)) == (255, 0, 0)


@pytest.mark.parametrize("form", ["JPEG", "PNG"])
def test_max_pixels_keeps_the_aspect(form: str) -> None:
    data = encoded(scene(1200, 800), form)
    image = open_image(data, max_pixels=10_000)
    assert 9_500 < image.width * image.height <= 10_000
    assert image.width / image.height == pytest.approx(1.5, rel=0.02)
    assert mean(image, left=True)[0] > 150
    assert open_image(data, max_pixels=None).size == (1200, 800)
    assert open_image(data, max_pixels=1).size == (1, 1)
    with pytest.raises(InputError, match="max_pixels must be at least 1"):
        open_image(data, max_pixels=0)


@pytest.mark.parametrize("size", [(30_000, 1), (1, 30_000)])
def test_strips_are_cut_to_their_middle(size: tuple[int, int]) -> None:
    image = open_image(encoded(Image.new("RGB", size, "red")), max_pixels=50)
    assert image.width * image.height <= 50
    assert max(open_image(encoded(Image.new("RGB", size, "red"))).size) == 100


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds next to nothing."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    )


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("side", [10_000, 20_000, 2_000_000_000])
def test_bombs_are_refused_by_their_header(side: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(self: ImageFile.ImageFile) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr(ImageFile.ImageFile, "load", load)
    with pytest.raises(InputError, match=r"item 'x': .*decompression bomb"):
        open_image(png_header(side, side), name="item 'x'")


def test_bytes_are_limited_before_reading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "big.png"
    with path.open("wb") as out:
        out.truncate(5_000_000_000)  # sparse
    monkeypatch.setattr(Path, "read_bytes", lambda self: pytest.fail("read"))
    with pytest.raises(InputError, match=r"big\.png: 5,000,000,000 bytes"):
        open_image(path)
    with pytest.raises(InputError, match="at most 10 are read"):
        open_image(bytes(11), max_bytes=10)


def test_files_that_are_no_pictures(tmp_path: Path) -> None:
    (empty := tmp_path / "empty.jpg").touch()
    os.mkfifo(pipe := tmp_path / "pipe.jpg")
    for path, what in [
        (tmp_path / "none.jpg", "No such file"),
        (tmp_path, "not a regular file"),
        (pipe, "not a regular file"),
        (empty, "empty"),
        (Path("a\0b"), "null"),
    ]:
        with pytest.raises(InputError, match=what) as error:
            open_image(path)
        assert str(error.value).startswith(str(path).replace("\0", "\\x00"))
        assert "\n" not in str(error.value)


def test_interpreter_formats_are_not_opened(tmp_path: Path) -> None:
    for form in ("EPS", "PDF", "ICO", "TGA"):
        (path := tmp_path / f"picture.{form.lower()}").write_bytes(encoded(scene(), form))
        with pytest.raises(InputError, match="not a picture in a known format"):
            open_image(path)
    with Image.open(tmp_path / "picture.eps") as opened, pytest.raises(InputError, match="EPS pictures are not opened"):
        open_image(opened)
    with pytest.raises(InputError, match="not str"):
        open_image("picture.png")  # type: ignore[arg-type]


@settings(max_examples=150)
@given(
    st.binary(max_size=400),
    st.sampled_from(
        [b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"BM", b"II*\0", b"P6 ", b"RIFF\0\0\0\0WEBP", b"qoif"]
    ),
)
def test_noise_gives_an_error_or_a_picture(tail: bytes, head: bytes) -> None:
    opens_or_refuses(head + tail)


@settings(max_examples=200)
@given(
    st.sampled_from(FORMATS),
    st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(1, 255)), max_size=6),
    st.floats(0.1, 1),
)
def test_flipped_bits_give_an_error_or_a_picture(form: str, flips: list[tuple[float, int]], keep: float) -> None:
    data = bytearray(sample(form))
    for where, what in flips:
        data[int(where**3 * len(data))] ^= what  # mostly in the headers
    opens_or_refuses(bytes(data[: int(len(data) * keep) + 1]))


def opens_or_refuses(data: bytes) -> None:
    message = ""
    try:
        image = open_image(data, max_pixels=10_000)
    except InputError as error:  # anything else fails the test
        message = str(error)
    else:
        assert image.mode == "RGB"
        assert 1 <= image.width * image.height <= 10_000
    assert "\n" not in message


def test_thumbnail_is_a_small_jpeg(tmp_path: Path) -> None:
    (path := tmp_path / "scene.png").write_bytes(encoded(scene(900, 300)))
    data = thumbnail(path, 120)
    with Image.open(io.BytesIO(data)) as image:
        assert (image.format, image.size) == ("JPEG", (120, 40))
    assert len(data) < 10_000


def test_image_bytes(tmp_path: Path) -> None:
    data = sample("JPEG")
    (path := tmp_path / "a.jpg").write_bytes(data)
    assert read_image_bytes(path) == read_image_bytes(data) == data
    for mode in ("RGB", "RGBA", "CMYK", "F"):
        again = open_image(read_image_bytes(scene().convert(mode)), max_pixels=None)
        assert again.size == (96, 64)
    assert np.array_equal(np.asarray(open_image(read_image_bytes(scene()))), np.asarray(scene()))


@pytest.mark.parametrize(
    ("shortest", "size"), [(None, (800, 640)), (320, (400, 320)), (321, (800, 640)), (80, (100, 80))]
)
def test_a_jpeg_may_be_decoded_at_a_fraction(shortest: int | None, size: tuple[int, int]) -> None:
    whole = scene(800, 640)
    found = open_image(encoded(whole, "JPEG"), shortest=shortest)
    assert found.size == size  # at least `shortest`, however small
    assert open_image(encoded(whole), shortest=shortest).size == (800, 640)  # PNG has no such thing
    # The pixel limit holds whatever is asked for, and an upright picture's shorter side is its own.
    assert open_image(encoded(whole, "JPEG"), shortest=320, max_pixels=1000).size == (35, 28)
    exif = Image.Exif()
    exif[0x0112] = 6
    assert open_image(encoded(whole, "JPEG", exif=exif), shortest=320).size == (320, 400)


def test_the_benchmarks_pictures_are_the_same_every_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    benchmark = importlib.import_module("images")
    made = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        made.append([path.read_bytes() for path in benchmark.pictures(tmp_path / name, 3)])
    assert made[0] == made[1]
    assert len(set(made[0])) == 3
    for data in made[0]:
        with Image.open(io.BytesIO(data)) as image:
            assert sorted(image.size, reverse=True) in [list(size) for size in benchmark.SIZES]


def transforms() -> list[object]:
    import open_clip.transform
    import timm.data

    shapes = [("shortest", 32), ("longest", 32), ("squash", (32, 32))]
    theirs = [open_clip.transform.image_transform(size, is_train=False, resize_mode=mode) for mode, size in shapes]
    return [*theirs, timm.data.create_transform((3, 32, 32), crop_pct=0.9)]


@pytest.mark.parametrize("number", range(4))
def test_a_transform_in_two_parts_gives_the_same_floats(number: int) -> None:
    import torch
    from crosslens.multimodal.towers import Pixels

    transform = transforms()[number]
    pixels = Pixels(transform)
    images = [scene(96, 64), scene(50, 90)]
    made = [pixels.one(image) for image in images]
    assert {each.dtype for each in made} == {torch.uint8}
    assert pixels.side >= 32
    assert pixels.held == 3 * pixels.side**2
    expected = torch.stack([transform(image) for image in images])  # type: ignore[operator]
    assert torch.equal(pixels.batch(made, torch.device("cpu")), expected)


def test_a_transform_of_another_kind_is_left_whole() -> None:
    import torch
    from crosslens.multimodal.towers import Pixels

    pixels = Pixels(lambda image: torch.full((3, 4, 5), float(image.width)))
    assert (pixels.side, pixels.shortest) == (0, 0)
    assert pixels.batch([pixels.one(scene())], torch.device("cpu")).shape == (1, 3, 4, 5)
