"""What models wrote, kept from one command to the next, in a file for each model."""

from __future__ import annotations

import hashlib
import logging
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, TypeVar

from filelock import FileLock

from ...checkpoints.offline.packages import locate_cache
from ...checkpoints.uses import hold
from ...errors import InputError
from ...files import make_directory
from ..judges import Judge
from ..judges.journal import Journal

log = logging.getLogger("crosslens")
T = TypeVar("T")


def locate_text_cache() -> Path:
    """Where it is kept: `CROSSLENS_TEXTS`, else `texts` beside the checkpoints; not created."""
    chosen = os.environ.get("CROSSLENS_TEXTS")
    return Path(chosen).expanduser() if chosen else locate_cache() / "texts"


def locate_texts(judge: Judge) -> Path:
    """The file of what a judge wrote; not created."""
    return locate_text_cache() / f"{hashlib.sha256(judge.fingerprint.encode()).hexdigest()[:16]}.journal"


@contextmanager
def open_texts(path: Path | None) -> Iterator[Journal | None]:
    """The journal at `path`; None, with a warning, where it cannot be used: a cache that fails is no mistake."""
    if path is None:
        yield None
        return
    try:
        make_directory(path.parent)
        journal = SharedJournal(path)
    except InputError as error:
        log.warning("%s: what is written is not kept", error)
        yield None
        return
    with closing(journal):
        hold(path)
        yield journal


@contextmanager
def keep_translations(translator: T, count: Counter[str]) -> Iterator[T]:
    """A translator that translates only what is not kept, if it is a judge that is prompted; others are quick."""
    judge, keep_in = getattr(translator, "judge", None), getattr(translator, "keep_in", None)
    with open_texts(locate_texts(judge) if judge is not None and keep_in is not None else None) as journal:
        if journal is None or keep_in is None:
            yield translator
        else:
            keeping = keep_in(journal)
            yield keeping
            count.update(journal.counted + Counter(kept=keeping.judge.taken))


class SharedJournal(Journal):
    """A journal that several processes may add to at once; each reads what was there when it began.

    What cannot be kept is one warning, and no mistake.
    """

    def __init__(self, path: Path) -> None:
        # Under the lock a line is whole, or that of a killed process.
        self._full = False
        self._lock = FileLock(path.with_name(path.name + ".lock"))
        try:
            with self._lock:
                super().__init__(path)
        except OSError as error:
            raise InputError(f"cannot use the journal {path}: {error.strerror or error}") from None

    def put(self, key: str, value: Any, counts: Mapping[str, int]) -> None:
        try:
            with self._lock:
                super().put(key, value, counts)
        except (InputError, OSError) as error:
            if not self._full:
                log.warning("%s: what is written from here on is not kept", error)
            self._full = True

    def close(self) -> None:
        """Close the file and leave it, empty or not: other processes may have it open."""
        self._out.close()
