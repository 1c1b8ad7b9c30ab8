"""What was measured of a model on this machine, kept in `pace` under CROSSLENS_CACHE: it holds for what it is about."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Self

from ..checkpoints.offline.packages import locate_cache
from ..errors import InputError
from ..files import make_directory, read_json, write_json
from ..items import hash_json

log = logging.getLogger("crosslens")

PACKAGES = ("crosslens", "torch", "transformers", "openvino")


def locate_paces() -> Path:
    """The folder that measurements are kept in; it may be deleted."""
    return locate_cache() / "pace"


def describe_run(processor: str, threads: int, **model: str) -> dict[str, Any]:
    """What a measurement is about; `model` is its `encoder`, `weights`, `dtype` and `backend`."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return {"processor": processor, "threads": threads, **model, "versions": versions}


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One measurement; a subclass has fields of its own, and says in `check` which values they may have.

    `about` is what it holds for: processor, threads, versions, model and precision. With another it is measured again.
    """

    about: Mapping[str, Any]

    @classmethod
    def read(cls, about: Mapping[str, Any]) -> Self | None:
        """What was kept; None if nothing was, or it is not as it was written."""
        return cls._read(_locate(about))

    @classmethod
    def read_all(cls, processor: str) -> list[Self]:
        """All of this kind that were kept of this processor; damaged ones are left out."""
        found = map(cls._read, sorted(locate_paces().glob("*.json")))
        return [each for each in found if each and each.about.get("processor") == processor]

    @classmethod
    def _read(cls, path: Path) -> Self | None:
        try:
            kept = cls(**read_json(path))
            kept.check()
            return kept if _locate(kept.about) == path and str(kept) else None
        except (InputError, OSError, KeyError, TypeError, ValueError, AttributeError):
            return None

    def check(self) -> None:
        """Any of the errors that a wrong type or value raises, unless the fields are as they were written."""
        raise NotImplementedError

    def keep(self) -> None:
        """For the processes to come; where the cache cannot be written it is measured again."""
        path = _locate(self.about)
        try:
            make_directory(path.parent)
            write_json(path, asdict(self))
        except InputError as error:
            log.debug("%s is measured again next time: %s", path, error)


def _locate(about: Mapping[str, Any]) -> Path:
    return locate_paces() / f"{hash_json(about)}.json"
