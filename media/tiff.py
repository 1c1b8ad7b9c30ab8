"""The warnings and errors of libtiff, which writes them past Python to the terminal, for each damaged picture."""

from __future__ import annotations

import ctypes
from contextlib import suppress
from ctypes.util import find_library
from functools import cache
from pathlib import Path

import PIL


@cache
def silence_libtiff() -> None:
    """Let the libtiff that PIL decodes with write nothing; what it finds wrong, PIL raises. Done once a process."""
    for library in _find_libraries():
        with suppress(OSError, AttributeError):
            loaded = ctypes.CDLL(library)
            for name in ("TIFFSetWarningHandler", "TIFFSetErrorHandler"):
                handler = getattr(loaded, name)
                handler.argtypes, handler.restype = [ctypes.c_void_p], ctypes.c_void_p
                handler(None)


def _find_libraries() -> list[str]:
    """What PIL brings, or else the system's: a library that is loaded already is found, not loaded again."""
    package = Path(PIL.__file__).parent
    folders = (package.with_name("pillow.libs"), package / ".dylibs")
    brought = [str(path) for folder in folders for path in folder.glob("libtiff*")]
    return brought or [name for name in [find_library("tiff")] if name]
