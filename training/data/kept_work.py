"""Where long work on a file is kept until it is written, so that the same call goes on after a kill."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

from ...errors import InputError
from ...files import lock_directory, make_directory
from ...multilingual.judges.journal import Journal


@contextmanager
def keep_work(output: Path) -> Iterator[Journal]:
    """A journal in `.OUTPUT.partial/`, which is removed when the block ends, and stays when it fails.

    A mistake before any work leaves nothing. `InputError` where the directory cannot be made, and where another process
    is at the same work.
    """
    if not output.parent.is_dir():
        raise InputError(f"there is no directory {output.parent} to write {output.name} in")
    work = output.parent / f".{output.name}.partial"
    make_directory(work)
    with ExitStack() as stack:
        stack.enter_context(lock_directory(work))
        journal = stack.enter_context(closing(Journal(work / "answers.journal")))
        try:
            yield journal
        except InputError:
            if not journal:  # nothing is worth to be gone on with
                stack.callback(shutil.rmtree, work, ignore_errors=True)
            raise
    shutil.rmtree(work, ignore_errors=True)
