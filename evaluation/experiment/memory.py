"""The largest memory that this process held while something ran."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_STATUS = Path("/proc/self/status")
_RESET = Path("/proc/self/clear_refs")


@contextmanager
def watch_memory() -> Iterator[Callable[[], int | None]]:
    """Yields a callable that gives the largest resident memory, in bytes, since the block was entered.

    None where the system cannot start the count again (Linux can): a peak since the start of the process would blame
    one system for what another needed.
    """
    counting = False
    with suppress(OSError):
        _RESET.write_text("5")  # proc(5): resets the peak resident set size
        counting = True
    yield lambda: _read_highest() if counting else None


def _read_highest() -> int | None:
    with suppress(OSError, ValueError, IndexError):
        for line in _STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return None
