"""A named pipe with someone who reads it."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path


def read_pipe(path: Path) -> Callable[[], bytes]:
    """Make a pipe that another thread reads; the function waits for its end, and gives what came through."""
    os.mkfifo(path)
    found: list[bytes] = []
    reader = threading.Thread(target=lambda: found.append(path.read_bytes()), daemon=True)
    reader.start()

    def wait() -> bytes:
        reader.join(30)
        return found[0]

    return wait
