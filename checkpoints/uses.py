"""What of the cache is in use: held by processes while they live, so that nothing is removed under them."""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from contextlib import suppress
from pathlib import Path

from ..errors import InputError
from ..files import name_partial

_held: dict[Path, int] = {}  # descriptors, whose locks the system takes back when this process ends


def hold(path: Path) -> bool:
    """Keep a file or directory of the cache while this process lives, and note that it was used now.

    False if it is gone, or is being removed. Where nothing can be locked nothing is held.
    """
    try:
        opened = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    try:
        with suppress(OSError):  # a file system without locks
            try:
                fcntl.flock(opened, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(opened)
                return False
        state = os.fstat(opened)
        if not os.path.samestat(state, os.stat(path)):  # removed before it was locked
            os.close(opened)
            return False
    except FileNotFoundError:
        os.close(opened)
        return False
    with suppress(OSError):  # of another user
        os.utime(path, ns=(time.time_ns(), state.st_mtime_ns))
    if (before := _held.get(path)) is not None:
        os.close(before)
    _held[path] = opened
    return True


def remove_unheld(path: Path, held: Path) -> bool:
    """Remove a file, directory or link of the cache, unless a process holds `held`; whether it is gone.

    What a link leads to stays. `InputError` if it cannot be removed.
    """
    opened = None
    try:
        with suppress(FileNotFoundError):
            opened = os.open(held, os.O_RDONLY)
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        gone = name_partial(path)
        path.rename(gone)  # nobody sees half of it
        if gone.is_dir() and not gone.is_symlink():
            shutil.rmtree(gone)
        else:
            gone.unlink()
    except BlockingIOError:
        return False
    except OSError as error:
        raise InputError(f"cannot remove {path}: {error.strerror or error}") from None
    finally:
        if opened is not None:
            os.close(opened)
    return True
