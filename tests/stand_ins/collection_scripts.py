"""What tests of `benchmarks/collections/` share: the scripts as modules, pictures, and a comparison of files."""

from __future__ import annotations

import importlib
import io
import sys
from pathlib import Path
from types import ModuleType

from PIL import Image

SCRIPTS = Path(__file__).parents[2] / "benchmarks" / "collections"


def module(name: str) -> ModuleType:
    sys.path.insert(0, str(SCRIPTS))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(SCRIPTS))


locales, cards, directory, pictures = map(module, ("locales", "cards", "directory", "pictures"))
indexes, texts, npm = map(module, ("apt_indexes", "descriptions", "npm_packages"))
debian, emoji, stamps, sample = map(module, ("debian_descriptions", "emoji", "tuxpaint_stamps", "sample"))


def png(number: int, alpha: bool = True, compress: int = 6) -> bytes:
    """A picture whose pixels depend on the number alone."""
    image = Image.new("RGBA" if alpha else "RGB", (4, 3), (number % 256, number // 256, 7, 255)[: 3 + alpha])
    image.save(out := io.BytesIO(), "PNG", compress_level=compress)
    return out.getvalue()


def same_files(one: Path, other: Path) -> int:
    """How many files two directories have, all with the same bytes."""
    files = sorted(path.relative_to(one) for path in one.rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(other) for path in other.rglob("*") if path.is_file())
    for file in files:
        assert (one / file).read_bytes() == (other / file).read_bytes(), file
    return len(files)
