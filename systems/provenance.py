"""What a run was made of and with, for its manifest: everything by which two runs may differ, and no secrets."""

from __future__ import annotations

import hashlib
import platform
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..checkpoints.device_names import name_processor
from ..items import Item

if TYPE_CHECKING:
    from ..indexes.base import Index

PACKAGES = ("crosslens", "torch", "transformers", "lancedb", "open_clip_torch", "ir_measures", "numpy", "scipy")
_USER = re.compile(r"(?<=://)[^/\s@]+@")  # and password, in an address
_SECRET = re.compile(r"(?i)([\w-]*(?:key|token|secret|password|passwd|signature|sig|credential)=)[^&\s'\"]+")
HIDDEN = "***"


def provenance(device: str = "auto") -> dict[str, object]:
    """Where and with what: versions, the commit that crosslens runs from (None: installed), the machine, the date.

    The device is named where torch has been loaded; else it is what was asked for.
    """
    if "torch" in sys.modules:
        from ..checkpoints.devices import resolve_device

        device = str(resolve_device(device))
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "?"
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _find_commit(),
        "versions": {"python": platform.python_version(), **versions},
        "device": device,
        "machine": {"system": platform.platform(), "processor": name_processor()},
    }


def describe_items(items: Iterable[Item]) -> dict[str, object]:
    """How many there are, and 16 hex digits over their ids, contents and languages; their order does not matter."""
    lines = sorted(f"{item.id}\0{item.lang or ''}\0{item.content_hash()}" for item in items)
    digest = hashlib.sha256("\n".join(lines).encode("utf-8", "surrogatepass"))
    return {"count": len(lines), "content": digest.hexdigest()[:16]}


def describe_index(index: Index) -> dict[str, object]:
    """Which index, in which edition, of which collection and by which encoders."""
    card = index.card
    return {
        "path": index.path,
        "collection": card.name,
        "documents": len(index),
        "kind": card.kind,
        "edition": card.edition,
        "fingerprint": index.fingerprint,
        "encoders": {spec.name: spec.revision for spec in index.specs},
    }


def describe_command(arguments: Sequence[str]) -> str:
    """The command line, as it could be given again but for its secrets."""
    import shlex

    return shlex.join([Path(arguments[0]).name, *map(hide_secrets, arguments[1:])])


def hide_secrets(value: Any) -> Any:
    """The same value without passwords in addresses and without what stands after `key=`, `token=` and the like."""
    if isinstance(value, str):
        return _SECRET.sub(rf"\g<1>{HIDDEN}", _USER.sub(f"{HIDDEN}@", value))
    if isinstance(value, Mapping):
        return {hide_secrets(key): hide_secrets(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [hide_secrets(each) for each in value]
    return value


def _find_commit() -> str | None:
    """The commit of the checkout that crosslens runs from, `+` where files differ from it."""
    here = Path(__file__).resolve().parents[1]
    if not (here / ".git").exists():
        return None
    asked = ["git", "-C", str(here), "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty=+"]
    try:
        return subprocess.run(asked, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
