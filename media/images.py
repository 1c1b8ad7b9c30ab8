"""One safe way to open an image: limits before decoding, no interpreter formats, always upright RGB."""

from __future__ import annotations

import io
import math
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageFile, UnidentifiedImageError

from ..errors import InputError, UnreadableItem, check_at_least, first_line
from ..files import find_fault, open_file
from .drawing import Drawing
from .tiff import silence_libtiff

MAX_PIXELS = 1 << 20
MAX_BYTES = 100 << 20
# A strip of one by a million pixels, scaled until its short side is 224, would fill the memory of any machine.
MAX_ASPECT = 100

# Formats that are pictures and nothing else. Left out: EPS and PDF (interpreters), WMF (system renderer),
# ICO and ICNS (other formats inside), TGA (no signature: noise passes for it), JPEG 2000 and the scientific
# containers (large, rarely fuzzed decoders). MPO files open as JPEG.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF", "QOI")

WHOLE = 1 << 24  # pixels up to which a picture is converted at once, which takes up to 20 bytes a pixel
BLOCK = 1024  # pixels at a side of what is converted of a larger one
GAP = 3.0  # a picture is averaged over squares first where it is scaled down by more
REACH = 3  # pixels of the smaller picture that Lanczos' filter looks at to each side
MAX_MEMORY = 400_000_000  # bytes that decoding takes, with what is converted at once
SPARE = 40_000_000  # of these, for what is converted at once and what comes of it

# Bytes a pixel that decoders take which hold a picture several times, as measured.
DECODERS = {"WEBP": 17.0, "AVIF": 20.0, "QOI": 7.5}

_ORIENTATION = 0x0112
_COMPRESSION, _BITS_PER_SAMPLE, _SAMPLES_PER_PIXEL = 0x0103, 0x0102, 0x0115
_ROWS_PER_STRIP, _TILE_WIDTH, _TILE_LENGTH = 0x0116, 0x0142, 0x0143
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def open_image(
    source: Path | bytes | Image.Image | Drawing,
    *,
    max_pixels: int | None = MAX_PIXELS,
    max_bytes: int = MAX_BYTES,
    shortest: int | None = None,
    name: str = "",
) -> Image.Image:
    """A picture as upright 8-bit RGB of at most `max_pixels` (width times height; None: as it is).

    `shortest` is for who will scale it down anyway: a JPEG may then be decoded at 1/2, 1/4 or 1/8 of its size, as
    long as its shorter side keeps so many pixels.

    Files and bytes above `max_bytes` are refused unread, pictures above `PIL.Image.MAX_IMAGE_PIXELS` undecoded, and so
    are those whose decoders would take over 400 MB (`MAX_MEMORY`): with `max_pixels` nothing takes more. EXIF
    rotation is applied; of an animation the first frame is taken; transparency is laid on white; 16-bit, 32-bit and
    float pictures are scaled to 8 bits; larger pictures are scaled down with their aspect kept, and beyond 100 : 1 cut
    to their middle. Colour profiles are not applied. A PIL image given is not changed. `InputError`, which begins with
    `name` (by default the path), for anything that is not a whole picture of a known format.
    """
    check_at_least(1, max_pixels=max_pixels)
    name = name or _describe(source)
    if isinstance(source, Drawing):
        source = source.read()
    try:
        if isinstance(source, Image.Image):
            if source.format not in (None, *FORMATS, "MPO", "DIB"):
                raise UnreadableItem(f"{name}: {source.format} pictures are not opened; convert it to PNG or JPEG")
            _check_size(source.size, name)
            return _convert_to_rgb(source, max_pixels)
        _check_source(source, max_bytes, name)
        with (
            open_file(source) if isinstance(source, Path) else io.BytesIO(source) as content,
            Image.open(content, formats=FORMATS) as image,
        ):
            _check_size(image.size, name)
            size, kept = image.size, _measure_coefficients(image)
            # JPEG decodes at 1/2, 1/4 or 1/8 in a fraction of the time; never below twice the size wanted.
            if (draft := _choose_draft(image.size, max_pixels, shortest)) is not None:
                image.draft(None, draft)
            _check_memory(image, size, kept, name)
            return _convert_to_rgb(image, max_pixels)
    except UnreadableItem:
        raise
    except InputError as error:  # a file that may not be opened
        raise UnreadableItem(f"{name}: {error}") from None
    except UnidentifiedImageError:
        known = ", ".join(FORMATS)
        raise UnreadableItem(f"{name}: not a picture in a known format; convert it to one of {known}") from None
    except Image.DecompressionBombError:
        raise UnreadableItem(f"{name}: too many pixels, perhaps a decompression bomb; scale it down first") from None
    # Decoders meet hostile bytes: besides OSError they raise SyntaxError, struct.error, OverflowError and more.
    except Exception as error:
        reason = first_line(error)
        raise UnreadableItem(f"{name}: the picture is truncated or damaged ({reason}); replace it") from None


def thumbnail(source: Path | bytes | Image.Image | Drawing, side: int, *, name: str = "") -> bytes:
    """A small JPEG for a page: neither side longer than `side` pixels."""
    image = open_image(source, max_pixels=4 * side * side, name=name)
    image.thumbnail((side, side))
    out = io.BytesIO()
    image.save(out, "JPEG", quality=82, optimize=True)
    return out.getvalue()


def encode_png(image: Image.Image) -> bytes:
    """A PIL image as PNG, which loses nothing that encoders look at."""
    if image.mode not in ("1", "L", "LA", "P", "RGB", "RGBA", "I", "I;16"):
        image = image.convert("RGB")
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


def digest_image(image: Image.Image) -> bytes:
    """Bytes that stand for what a decoded picture shows: equal bytes mean equal pixels, colours and orientation."""
    pixels = image.tobytes()
    palette, transparent, orientation = describe_pixels(image)
    marks = (palette, transparent, orientation if orientation in _UPRIGHT else None)
    shown = repr(marks) if any(each is not None for each in marks) else ""
    return f"{image.mode}{image.size}{shown}".encode() + pixels


def describe_pixels(image: Image.Image) -> tuple[object, object, object]:
    """What the pixels of a decoded picture mean: its palette, its transparent colour, and its EXIF orientation."""
    image.load()  # a TIFF turns itself upright here, and forgets its orientation
    palette = image.getpalette("RGBA") if image.mode in ("P", "PA") else None
    return palette, image.info.get("transparency"), _orientation(image)


def read_image_bytes(
    source: Path | bytes | Image.Image | Drawing, *, max_bytes: int = MAX_BYTES, name: str = ""
) -> bytes:
    """A picture as encoded bytes, to be stored: files and bytes as they are, a PIL image as PNG.

    Nothing is decoded. `InputError` if the file is missing, unreadable, not a regular file, empty or too large.
    """
    name = name or _describe(source)
    if isinstance(source, Drawing):
        return source.read()
    if isinstance(source, Image.Image):
        plain = source.mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")
        return encode_png(source if plain else open_image(source, max_pixels=None, name=name))
    _check_source(source, max_bytes, name)
    try:
        return source if isinstance(source, bytes) else source.read_bytes()
    except OSError as error:
        raise UnreadableItem(f"{name}: cannot be read ({error.strerror})") from None


def read_image_file(source: Path | bytes | Image.Image | Drawing, name: str = "") -> tuple[bytes, str]:
    """A picture as `read_image_bytes`, and the ending of a file for them; `InputError` also for an unknown format."""
    content = read_image_bytes(source, name=name)
    try:
        # Reads the header only.
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            kind = (image.format or "").lower()
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        raise UnreadableItem(f"{name}: not a picture in a known format") from None
    return content, {"jpeg": ".jpg", "mpo": ".jpg", "tiff": ".tif"}.get(kind, f".{kind}")


def _check_source(source: object, max_bytes: int, name: str) -> None:
    """`InputError` for what is no regular file and no bytes, or empty or too large; nothing is read."""
    if isinstance(source, bytes):
        size = len(source)
    elif isinstance(source, Path):
        size = _file_size(source, name)
    else:
        raise UnreadableItem(f"{name}: an image is a Path, bytes or a PIL image, not {type(source).__name__}")
    if size == 0:
        raise UnreadableItem(f"{name}: empty, there is no picture in it")
    if size > max_bytes:
        raise UnreadableItem(f"{name}: {size:,} bytes, and at most {max_bytes:,} are read; scale the picture down")


def _file_size(path: Path, name: str) -> int:
    if fault := find_fault(path):
        raise UnreadableItem(f"{name}: the image cannot be opened ({fault})")
    return path.stat().st_size


def _describe(source: object) -> str:
    if isinstance(source, Path):
        return str(source)
    if isinstance(source, bytes):
        return f"image of {len(source):,} bytes"
    return str(getattr(source, "filename", "") or "image")


def _check_size(size: tuple[int, int], name: str) -> None:
    width, height = size
    if width < 1 or height < 1:
        raise UnreadableItem(f"{name}: {width} x {height} pixels, there is no picture in it")
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and width * height > limit:
        raise UnreadableItem(
            f"{name}: {width} x {height} pixels are more than {limit:,} and may be a decompression bomb; "
            "scale it down first"
        )


def _check_memory(image: Any, size: tuple[int, int], kept: int, name: str) -> None:
    """`InputError` for a picture of a `size` whose decoder takes too much memory, `kept` bytes beside its pixels."""
    width, height = image.size
    pixels, depth = width * height, 2 if image.mode.startswith("I;16") else 1 if image.mode in ("1", "L", "P") else 4
    taken = kept + pixels * DECODERS.get(image.format or "", depth)
    if image.format == "TIFF":
        taken += _measure_strip(image) + pixels * depth * (_orientation(image) in _UPRIGHT)  # it turns itself upright
    elif image.format == "PPM" and image.tile and image.tile[0][0] != "raw":
        taken += pixels * depth
    if taken > MAX_MEMORY - SPARE:
        raise UnreadableItem(
            f"{name}: to decode this {image.format} of {size[0]} x {size[1]} pixels takes {taken / 1e6:,.0f} MB of "
            f"memory, and at most {(MAX_MEMORY - SPARE) / 1e6:,.0f} are given; scale it down"
        )


def _measure_strip(image: Any) -> int:
    """Bytes of the largest piece of a compressed TIFF, which is decoded at once."""
    tags, (width, height) = image.tag_v2, image.size
    if tags.get(_COMPRESSION, 1) == 1:
        return 0
    across, down = tags.get(_TILE_WIDTH, width), tags.get(_TILE_LENGTH, tags.get(_ROWS_PER_STRIP, height))
    bits = tags.get(_BITS_PER_SAMPLE, (1,))
    sample = max(bits if isinstance(bits, tuple) else (bits,)) * tags.get(_SAMPLES_PER_PIXEL, 1)
    return int(min(across, width + 4096) * min(down, height + 4096) * max(sample / 8, 4))


def _measure_coefficients(image: Any) -> int:
    """Bytes of the coefficients of a JPEG in several scans, which the decoder keeps all of, also for a small draft."""
    if image.format not in ("JPEG", "MPO") or not _has_several_scans(image):
        return 0
    width, height = image.size
    layers = [(h, v) for _, h, v, _ in image.layer]
    across, down = (max(each) for each in zip(*layers, strict=True))
    return int(sum(2 * width * height * h * v / (across * down) for h, v in layers))


def _has_several_scans(image: Any) -> bool:
    """Whether the first scan of a JPEG has not all of it: it is progressive, or has a scan for each colour."""
    if "progressive" in image.info:
        return True
    content = image.fp
    position = content.tell()
    try:
        content.seek(2)
        while (marker := content.read(4))[:1] == b"\xff":
            if marker[1] == 0xDA:  # start of scan
                return content.read(1) != bytes([len(image.layer)])
            content.seek(int.from_bytes(marker[2:], "big") - 2, io.SEEK_CUR)
        return True  # bytes between segments: what comes then is not known
    finally:
        content.seek(position)


def _fit(size: tuple[int, int], max_pixels: int) -> tuple[int, int]:
    """The largest size of the same aspect that holds at most `max_pixels`; no side falls below 1."""
    width, height = size
    if width * height <= max_pixels:
        return size
    scale = math.sqrt(max_pixels / (width * height))
    width, height = max(1, int(width * scale)), max(1, int(height * scale))
    return min(width, max_pixels // height or 1), min(height, max_pixels // width or 1)


def _choose_draft(size: tuple[int, int], max_pixels: int | None, shortest: int | None) -> tuple[int, int] | None:
    """The size that a JPEG must keep when it is decoded; None if that is its own."""
    wanted: list[tuple[int, int]] = []
    if max_pixels is not None:
        width, height = _fit(size, max_pixels)
        wanted.append((2 * width, 2 * height))
    if shortest:
        scale = shortest / min(size)
        wanted.append((math.ceil(scale * size[0]), math.ceil(scale * size[1])))
    return min(wanted, default=None)


def _convert_to_rgb(image: Image.Image, max_pixels: int | None) -> Image.Image:
    if isinstance(image, ImageFile.ImageFile):
        if image.format == "TIFF":
            silence_libtiff()
        image.load()  # raises on a truncated file; TIFF turns itself upright here
    orientation = _orientation(image)
    width, height = image.size
    wide, high = min(width, MAX_ASPECT * height), min(height, MAX_ASPECT * width)
    left, top = (width - wide) // 2, (height - high) // 2
    box = (left, top, left + wide, top + high)
    size = (wide, high) if max_pixels is None else _fit((wide, high), max_pixels)
    levels = _find_levels(image)
    if wide * high <= WHOLE:
        plain = _opaque(image if box == (0, 0, width, height) else image.crop(box), levels)
        if size != plain.size:
            plain = plain.resize(size, Image.Resampling.LANCZOS, reducing_gap=GAP)
    else:
        plain = _convert_in_blocks(image, box, size, levels)
    if orientation in _UPRIGHT:
        plain = plain.transpose(_UPRIGHT[orientation])
    if plain is image:
        plain = image.copy()
    plain.info = {}
    return plain


def _convert_in_blocks(
    image: Image.Image, box: tuple[int, int, int, int], size: tuple[int, int], levels: tuple[float, float] | None
) -> Image.Image:
    """What is in a box as RGB at a smaller size, a part after the other, for a copy of all of it is much memory.

    The pixels are those of `resize` with a reducing gap, give or take 1, but for a few where the filter overshoots and
    is clipped: Pillow chooses by the size whether it scales columns or rows first.
    """
    left, top, right, bottom = box
    scales = [(right - left) / size[0], (bottom - top) / size[1]]
    factors = [int(scale / GAP) or 1 for scale in scales]
    # As much as a side of a part takes from the picture, less what the filter looks at beyond both ends.
    steps = [max(1, int(BLOCK / scale - 2 * REACH)) for scale in scales]
    made = Image.new("RGB", size)
    for y in range(0, size[1], steps[1]):
        high = min(steps[1], size[1] - y)
        above, below, *rows = _find_span(y, high, scales[1], factors[1], bottom - top)
        for x in range(0, size[0], steps[0]):
            wide = min(steps[0], size[0] - x)
            before, after, *columns = _find_span(x, wide, scales[0], factors[0], right - left)
            part = _opaque(image.crop((left + before, top + above, left + after, top + below)), levels)
            if max(factors) > 1:
                part = part.reduce((factors[0], factors[1]))
            if max(scales) > 1:
                inside = (columns[0], rows[0], columns[1], rows[1])
                part = part.resize((wide, high), Image.Resampling.LANCZOS, inside)
            made.paste(part, (x, y))
    return made


def _find_span(start: int, count: int, scale: float, factor: int, length: int) -> tuple[int, int, float, float]:
    """For so many pixels from `start`: from where to where the picture of a `length` is needed, and what they are of.

    The first two are pixels, whole numbers of `factor`; the last two begin at the first and count `factor` pixels each.
    """
    if scale <= 1:
        return start, start + count, 0, count
    reach = REACH * scale + factor
    first = max(0, int(start * scale - reach) // factor * factor)
    last = min(length, -int(-((start + count) * scale + reach) // factor) * factor)
    return first, last, (start * scale - first) / factor, ((start + count) * scale - first) / factor


def _orientation(image: Image.Image) -> object:
    # A broken EXIF block says nothing about the picture, which was decoded whole: it is then taken as upright.
    with suppress(Exception):
        return image.getexif().get(_ORIENTATION)
    return None


def _opaque(image: Image.Image, levels: tuple[float, float] | None) -> Image.Image:
    """A picture, or a part of one, in RGB, whatever its mode, with what is transparent white."""
    if levels is not None:
        return _eight_bits(image, *levels).convert("RGB")
    if image.has_transparency_data:
        layer = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
        white = Image.new("RGBA", layer.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, layer).convert("RGB")
    return image.convert("RGB")


def _find_levels(image: Image.Image) -> tuple[float, float] | None:
    """What is black and what white in a picture whose grey levels PIL would clip; None for others.

    16-bit pictures and PGM span 0..65535. 32-bit integers and floats have no agreed white: they are taken to span 0..1
    (floats), 0..255 or 0..65535 (integers) if all values lie there, and else are stretched from least to most.
    """
    if image.mode.startswith("I;16") or (image.format == "PPM" and image.mode == "I"):
        return 0.0, 65535.0
    if image.mode not in ("I", "F"):
        return None
    width, height = image.size
    rows = max(1, BLOCK * BLOCK // width)
    low, high = math.inf, -math.inf
    for y in range(0, height, rows):
        values = _read_values(image.crop((0, y, width, min(y + rows, height))))
        low, high = min(low, float(values.min())), max(high, float(values.max()))
    likely = (1.0, 255.0) if image.mode == "F" else (255.0, 65535.0)
    return next(((0.0, most) for most in likely if low >= 0 and high <= most), (low, high))


def _eight_bits(image: Image.Image, black: float, white: float) -> Image.Image:
    """Grey levels scaled from `black` and `white` to 0..255."""
    values = _read_values(image)
    scale = 255 / ((white - black) or 1.0)
    # In float64, for the width of the whole float32 range is not a float32; in blocks, for that is much memory.
    blocks = np.array_split(values, min(len(values), 1 + values.size // MAX_PIXELS))
    grey = np.concatenate(
        [np.rint((block.astype(np.float64) - black) * scale).clip(0, 255).astype(np.uint8) for block in blocks]
    )
    if isinstance(clear := image.info.get("transparency"), int):
        grey[values == clear] = 255
    return Image.fromarray(grey)


def _read_values(image: Image.Image) -> np.ndarray:
    return np.nan_to_num(np.asarray(image).astype(np.float32))  # nan as 0, infinities as the largest float32
