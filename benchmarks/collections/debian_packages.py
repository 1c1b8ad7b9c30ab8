"""Debian packages without root: `apt-get download` (apt checks signature and hash) and `dpkg-deb -x`."""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from crosslens.errors import InputError


@dataclass(frozen=True)
class Package:
    """A downloaded package: what a collection's card says of its source."""

    name: str
    version: str
    sha256: str
    path: Path

    def to_json(self) -> dict[str, str]:
        return {"package": self.name, "version": self.version, "sha256": self.sha256}


def download(names: Sequence[str], folder: Path) -> Mapping[str, Package]:
    """The packages in the version that apt would install, downloaded into an empty folder.

    `InputError` with apt's own complaint where it does not know a package or cannot fetch it.
    """
    # As root apt would want a folder that its user _apt can write; a temporary folder is not one.
    sandbox = ["-o", "APT::Sandbox::User=root"] if os.geteuid() == 0 else []
    output(["apt-get", *sandbox, "download", *names], folder)
    found = {}
    for path in sorted(folder.glob("*.deb")):
        name, version = output(["dpkg-deb", "-W", "--showformat=${Package}\t${Version}", str(path)]).split("\t")
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        found[name] = Package(name, version, sha256, path)
    if lacking := sorted(set(names) - found.keys()):
        raise InputError(f"apt-get downloaded no package {', '.join(lacking)}; try apt-get update")
    return found


def unpack(package: Package, folder: Path) -> None:
    """The package's files below `folder`, as they would lie below the root of the system."""
    output(["dpkg-deb", "-x", str(package.path), str(folder)])


def output(command: Sequence[str], folder: Path | None = None) -> str:
    """The standard output of a command; `InputError` with its last complaint where it fails."""
    environment = {**os.environ, "LC_ALL": "C"}
    try:
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    except FileNotFoundError:
        raise InputError(
            f"there is no {command[0]} here: this collection is made on Debian or a system derived from it"
        ) from None
    if done.returncode:
        complaints = [line for line in done.stderr.splitlines() if line.strip()] or [f"exit {done.returncode}"]
        errors = [line for line in complaints if line.startswith("E:")] or complaints[-1:]
        raise InputError(f"{command[0]} failed: {errors[0]} (is the list of packages recent? apt-get update)")
    return done.stdout
