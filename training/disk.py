"""A disk that is full, as libraries meet it that write with code of their own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from ..errors import InputError, first_line


@contextmanager
def explain_full_disk(folder: Path) -> Iterator[None]:
    """What libraries raise when nothing more can be written, as one line."""
    try:
        yield
    except OSError as error:
        raise _cannot_write(folder, error, error.strerror or str(error)) from None
    except (SafetensorError, RuntimeError) as error:
        # Both write with code of their own, and say in words what the system said.
        if not any(words in str(error) for words in ("I/O error", "os error", "failed writing file", "unexpected pos")):
            raise
        raise _cannot_write(folder, error, first_line(error)) from None


def _cannot_write(folder: Path, error: BaseException, reason: str) -> InputError:
    made = InputError(f"cannot write to {folder}: {reason}")
    for note in getattr(error, "__notes__", ()):
        made.add_note(note)
    return made
