"""npm packages without installing them: `npm pack` (runs nothing of theirs), their checksum, their files."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import subprocess
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from crosslens.errors import InputError

MOST_BYTES = 64 << 20  # of one file in a package


@dataclass(frozen=True)
class Package:
    """A package in one version and its `integrity` (sha512, base64), as a lock file names it."""

    name: str
    version: str
    integrity: str

    def to_json(self) -> dict[str, str]:
        return {"package": self.name, "version": self.version, "integrity": self.integrity}


def download(packages: Sequence[Package], folder: Path) -> Mapping[str, Path]:
    """The archives of the packages by name, downloaded into `folder`; `InputError` on another checksum."""
    found = {}
    for package in packages:
        wanted = f"{package.name}@{package.version}"
        path = folder / _packed(wanted, folder)
        with path.open("rb") as file:
            sha512 = hashlib.file_digest(file, "sha512").digest()
        if (got := f"sha512-{base64.b64encode(sha512).decode()}") != package.integrity:
            raise InputError(f"{wanted} is not the expected archive: {got} instead of {package.integrity}")
        found[package.name] = path
    return found


def files(archive: Path, pattern: str) -> Iterator[tuple[str, bytes]]:
    """The regular files whose whole name matches, with their content, in the archive's order.

    Read from the archive and never unpacked, so no name in it can lead anywhere. `InputError` on files of more
    than 64 MB and on a damaged archive.
    """
    wanted = re.compile(pattern)
    try:
        with tarfile.open(archive, "r:gz") as packed:
            for member in packed:
                if not member.isreg() or not wanted.fullmatch(member.name):
                    continue
                if member.size > MOST_BYTES:
                    raise InputError(f"{archive.name}: {member.name} has {member.size:,} bytes")
                content = packed.extractfile(member)
                assert content is not None
                yield member.name, content.read()
    except (tarfile.TarError, EOFError, OSError) as error:
        raise InputError(f"{archive.name}: not a whole npm package ({error})") from None


def _packed(wanted: str, folder: Path) -> str:
    """The name of the archive that npm left in `folder`."""
    command = ["npm", "pack", "--ignore-scripts", "--loglevel=error", "--json", wanted]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    except FileNotFoundError:
        raise InputError("there is no npm here: this collection needs it to download its sources") from None
    if done.returncode:
        complaints = [line for line in done.stderr.splitlines() if line.startswith("npm")] or ["no reason given"]
        raise InputError(f"npm pack {wanted} failed: {complaints[-1]}")
    name = Path(str(json.loads(done.stdout)[0]["filename"])).name
    if not (folder / name).is_file():
        raise InputError(f"npm pack {wanted} left no archive {name}")
    return name
