"""The locations that an index can be in, and the errors of storage there as one clear line."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ...errors import InputError, check_known

MEMORY = "memory://"
DATABASE = "db://"  # a database that LanceDB serves
STORES = ("s3://", "gs://", "az://")


def is_remote(path: str | Path) -> bool:
    """Whether `path` names an object store or a served database, not a directory; `InputError` on other schemes."""
    scheme, colons, _ = str(path).partition("://")
    if not colons or str(path) == MEMORY:
        return False
    check_known(scheme + colons, (MEMORY, DATABASE, *STORES), "kind of location")
    return True


def connect_database(path: str | Path) -> Any:
    """The LanceDB database at `path`; keys come from the environment (AWS_*, LANCEDB_API_KEY).

    A `db://` database is in the region LANCEDB_REGION (us-east-1), or at the address LANCEDB_HOST_OVERRIDE.
    """
    import lancedb

    path = str(path)
    if not path.startswith(DATABASE):
        return lancedb.connect(path)
    if not os.environ.get("LANCEDB_API_KEY"):
        raise InputError(f"{path} needs a key: set LANCEDB_API_KEY")
    region = os.environ.get("LANCEDB_REGION", "us-east-1")
    return lancedb.connect(path, region=region, host_override=os.environ.get("LANCEDB_HOST_OVERRIDE"))


@contextmanager
def translate_errors(what: str, where: str) -> Iterator[None]:
    """`InputError` in place of what LanceDB raises when it cannot `what` (read, write, open) the files of `where`."""
    try:
        yield
    except InputError:
        raise
    except (OSError, RuntimeError, ValueError) as error:
        if isinstance(error, ValueError) and not is_remote(where):
            raise
        text = " ".join(str(error).split())
        if re.search(r"no space left|StorageFull|os error 28", text, re.IGNORECASE):
            raise InputError(
                f"cannot {what} {where}: the disk is full; make room and rerun `crosslens index`, "
                "which goes on where it stopped"
            ) from None
        known = what == "write" or is_remote(where) or re.search("not found|os error", text, re.IGNORECASE)
        if not known:
            raise
        raise InputError(
            f"cannot {what} {where}: {_find_cause(text)}; nothing stored is lost: repair it and rerun"
        ) from None


def _find_cause(text: str) -> str:
    """The system's words in an error of the storage, or those of an object store, or its beginning."""
    found = re.search(r"([A-Z][\w ,]*\(os error \d+\))|<Message>(.*?)</Message>", text)
    return (found.group(1) or found.group(2)) if found else text[:200]
