"""Looking for damage in what an experiment keeps: results of stages, memos, indexes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa

from ...errors import InputError, first_line
from ...files import hash_file, lock_directory, parse_json, read_text, write_json
from ...indexes.storage.storage import FILE
from ...indexes.verify import TABLE, Verification, verify_index
from ...items import SEAL, open_seal, seal
from .store import check_result, read_result, sum_file, write_sum

PARTS = ("stages", "collections", "indexes")  # directories of an experiment, some of which there are
DAMAGE = (OSError, ValueError, KeyError, TypeError, pa.ArrowException)


def verify_directory(path: str, **options: Any) -> Verification:
    """Look for damage in an index, or in an experiment and its indexes; `options` are those of `verify_index`.

    What an experiment keeps of stages and collections is taken away where it is damaged, as the next run makes it
    again; what has no checksum, of an earlier version, gets one if it can be read. `InputError` if the directory is
    neither, or is written to.
    """
    root = Path(path)
    if "://" in path or (root / FILE).exists() or (root / TABLE).exists():
        return verify_index(path, **options)
    if not root.is_dir() or not any((root / part).is_dir() for part in PARTS):
        raise InputError(f"{path} is neither an index (it has no {FILE}) nor the results of an experiment")
    found = Verification(path)
    with lock_directory(root):
        for name, what in _check_kept(root, found):
            found.files += 1
            if what:
                found.damaged[name] = what
        if found.damaged:
            found.repaired = list(found.damaged)
            found.notes.append(f"{len(found.damaged)} damaged files were removed: the next run makes them again")
        for card in sorted(root.glob(f"indexes/*/{FILE}")):
            folder = card.parent
            below = verify_index(folder, **options)
            if below.lasting:
                below.notes = [
                    f"{folder} cannot be repaired: remove it and {folder.name}.json beside it, and rerun the "
                    "experiment, which makes it again"
                ]
            found.include(below, f"indexes/{folder.name}")
    return found


def _check_kept(root: Path, found: Verification) -> Iterator[tuple[str, str]]:
    """What is kept of stages, collections and indexes, with what is wrong with each; what is, is taken away."""
    added = 0
    for path in sorted(root.glob("stages/*.parquet")):
        what = check_result(path)
        if not what and not sum_file(path).exists():
            try:
                read_result(path)
            except DAMAGE as error:
                what = first_line(error)
            else:
                write_sum(path, hash_file(path))
                added += 1
        if what:
            path.unlink()
            sum_file(path).unlink(missing_ok=True)
        yield path.relative_to(root).as_posix(), what
    for path in sorted(root.glob("stages/*.sha256")):
        if not path.with_suffix(".parquet").exists():
            path.unlink()
            yield path.relative_to(root).as_posix(), "has lost its result"
    for path in sorted([*root.glob("collections/*.json"), *root.glob("indexes/*.json")]):
        what = ""
        try:
            memo = parse_json(read_text(path))
            plain = open_seal(memo)
            if SEAL not in memo:
                write_json(path, seal(plain))
                added += 1
        except DAMAGE as error:
            what = first_line(error)
            with suppress(OSError):
                path.unlink()
        yield path.relative_to(root).as_posix(), what
    if added:
        found.notes.append(f"{added} files of an earlier crosslens had no checksums, and have got some as they are now")
