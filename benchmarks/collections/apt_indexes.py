"""Index files of the archives that apt knows: `apt-helper download-file`, against the Release file it has verified."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import lzma
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from crosslens.errors import InputError
from debian_packages import output

HELPER = "/usr/lib/apt/apt-helper"
FIELDS = ("CODENAME", "BASE_URI", "METAKEY", "FILENAME", "BY_HASH", "TRUSTED")
UNPACKED: Mapping[str, Callable[[bytes], bytes]] = {
    ".xz": lzma.decompress,
    ".bz2": bz2.decompress,
    ".gz": gzip.decompress,
}


@dataclass(frozen=True)
class Index:
    """A file that a Release file lists; `name` is relative to it (`main/i18n/Translation-da.bz2`)."""

    name: str
    sha256: str
    size: int

    def to_json(self) -> dict[str, str]:
        return {"file": self.name, "sha256": self.sha256}


@dataclass(frozen=True)
class Release:
    """A release as apt last saw it: `indexes` by name, `date` as its Release file gives it."""

    codename: str
    date: str
    base: str
    by_hash: bool
    indexes: Mapping[str, Index]

    def packed(self, name: str) -> Index | None:
        """The smallest packed form of an index; None where the release has none."""
        forms = [self.indexes[name + suffix] for suffix in UNPACKED if name + suffix in self.indexes]
        return min(forms, key=lambda form: form.size, default=None)

    def read(self, index: Index, folder: Path) -> bytes:
        """The unpacked content of an index, downloaded into `folder`; `InputError` on a wrong checksum."""
        name = Path(index.name)
        where = str(name.parent / "by-hash" / "SHA256" / index.sha256) if self.by_hash else index.name
        path = folder / name.name
        # As root apt would want a folder that its user _apt can write; a temporary folder is not one.
        sandbox = ["-o", "APT::Sandbox::User=root"] if os.geteuid() == 0 else []
        output([HELPER, *sandbox, "download-file", self.base + where, str(path), f"SHA256:{index.sha256}"])
        packed = path.read_bytes()
        if hashlib.sha256(packed).hexdigest() != index.sha256:
            raise InputError(
                f"{index.name} of {self.codename} has another SHA256 than its Release file says; apt-get update"
            )
        return UNPACKED[name.suffix](packed)


def release(codename: str | None = None) -> Release:
    """The release `codename` (None: the system's own) of apt's sources, without any network access.

    `InputError` where apt has no lists of it, or has them from a source that it does not trust.
    """
    codename = codename or own_codename()
    fields = "\t".join(f"$({field})" for field in FIELDS)
    listed = output(["apt-get", "indextargets", "--format", fields, "Created-By: Packages", "Component: main"])
    targets = [dict(zip(FIELDS, line.split("\t"), strict=True)) for line in listed.splitlines()]
    fitting = [target for target in targets if target["CODENAME"] == codename]
    if not fitting:
        known = ", ".join(sorted({target["CODENAME"] for target in targets})) or "none; apt-get update"
        raise InputError(f"apt has no lists of the release {codename!r} (it has {known})")
    target = fitting[0]
    if target["TRUSTED"] != "yes":
        raise InputError(f"apt does not trust its source of {codename}: its Release file is not signed")
    stem = target["FILENAME"][: target["FILENAME"].index(target["METAKEY"].replace("/", "_"))]
    for path in (Path(stem + "InRelease"), Path(stem + "Release")):
        if path.is_file():
            date, indexes = parsed(path.read_text("utf-8"))
            return Release(codename, date, target["BASE_URI"], target["BY_HASH"] == "yes", indexes)
    raise InputError(f"apt has no Release file of {codename} here; apt-get update")


def parsed(text: str) -> tuple[str, dict[str, Index]]:
    """The date of a Release file, and the indexes of its SHA256 section by name."""
    date, section, indexes = "", "", {}
    for line in text.splitlines():
        if line.startswith(" "):
            if section == "SHA256":
                sha256, size, name = line.split()
                indexes[name] = Index(name, sha256, int(size))
            continue
        section, _, value = line.partition(":")
        if section == "Date":
            date = value.strip()
    return date, indexes


def own_codename() -> str:
    for line in Path("/etc/os-release").read_text("utf-8").splitlines():
        key, _, value = line.partition("=")
        if key == "VERSION_CODENAME":
            return value.strip().strip('"')
    raise InputError("/etc/os-release names no release; say which with --release")
