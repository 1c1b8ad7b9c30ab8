"""Checkpoint directories made from installed packages, so that real models run without a model hub.

Each model's files are checked by sha256, converted once to safetensors in the cache, and loaded from there
like any other local checkpoint. Nothing heavy is imported before a conversion needs it.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import json
import logging
import os
import shutil
import stat
import struct
import tomllib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from filelock import FileLock

from ...errors import InputError, check_known
from ...files import make_directory, open_file, place_atomically
from ..uses import hold

if TYPE_CHECKING:  # a command line that asks a service alone does without it
    import numpy as np

log = logging.getLogger("crosslens")

WEIGHTS = "model.safetensors"


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One file inside an installed package: import name, path within it, sha256 (64 hex digits).

    `part` counts the packages from 1 where each carries a part of the file.
    """

    module: str
    path: str
    sha256: str
    part: int | None = None

    def locate(self) -> Path | None:
        """Where the file lies, found without importing the package; None if it is not there."""
        spec = importlib.util.find_spec(self.module)
        for root in (spec.submodule_search_locations or ()) if spec else ():
            if (path := Path(root, self.path)).is_file():
                return path
        return None


@dataclass(frozen=True, slots=True)
class OfflineModel:
    """What `crosslens models` says of a model, and what is needed to make its checkpoint directory (`models.toml`).

    `package` has `{n}` where its number stands in the name of each of several, and `extra` is what installs them.
    `hub` is the SPEC to use where a model hub can be reached. `size_mb` is what the packages download and `cache_mb`
    what the checkpoint takes in the cache, both in 10^6 bytes. `languages` are ISO 639-3, empty where none are
    claimed. `decoder` says that it is a language model, to be asked. `needs` are import names of what else a
    conversion takes.
    `whole` is the sha256 of the files joined, where these are the parts of one. `converter` is the function
    (`.module:name` beside this module) that is given the files and writes the checkpoint into a directory, None if the
    package's own files are used as they are; a change of what it writes raises `revision`.
    """

    name: str
    package: str
    version: str
    files: tuple[SourceFile, ...]
    hub: str
    licence: str
    size_mb: int
    cache_mb: int
    modalities: tuple[str, ...]
    languages: tuple[str, ...]
    description: str
    extra: str = "offline"
    decoder: bool = False
    needs: tuple[str, ...] = ()
    whole: str = ""
    converter: str | None = None
    revision: int = 1

    @property
    def requirement(self) -> str:
        """What pip installs, in a shell; several packages as `name-part{1..22}==0.2.0`."""
        return f"{self.package.format(n=f'{{1..{len(self.files)}}}')}=={self.version}"

    @property
    def remedy(self) -> str:
        """The command that installs what is needed."""
        return f"pip install 'crosslens[{self.extra}]'"

    def name_package(self, file: SourceFile) -> str:
        """The package that one of the files is in, with its version."""
        return f"{self.package.format(n=file.part)}=={self.version}"

    @property
    def directory(self) -> Path:
        """Where its converted checkpoint is found again: by what it was made from, and by what made it."""
        digest = self.files[0].sha256
        if len(self.files) > 1:
            digest = hashlib.sha256("".join(file.sha256 for file in self.files).encode()).hexdigest()
        return locate_cache() / "offline" / f"{self.name}-{self.version}-{digest[:12]}-c{self.revision}"


def _read_files(table: dict[str, Any]) -> tuple[SourceFile, ...]:
    """The files that an entry lists, or those that its `parts` describe.

    In `module` and `path` of parts `{n}` is their number from 1 and `{i}` from 0, and `sha256` lists one a part.
    """
    files = [SourceFile(**file) for file in table.pop("files", ())]
    if parts := table.pop("parts", None):
        for i, sha256 in enumerate(parts["sha256"]):
            module, path = (parts[key].format(n=i + 1, i=i) for key in ("module", "path"))
            files.append(SourceFile(module, path, sha256, i + 1))
    return tuple(files)


MODELS = {
    name: OfflineModel(
        name,
        files=_read_files(table),
        modalities=tuple(table.pop("modalities")),
        languages=tuple(table.pop("languages", "").split()),
        needs=tuple(table.pop("needs", ())),
        **table,
    )
    for name, table in tomllib.loads(files(__package__).joinpath("models.toml").read_text("utf-8")).items()
}

DECODERS = tuple(name for name, model in MODELS.items() if model.decoder)


def locate_cache() -> Path:
    """Where converted checkpoints live: `CROSSLENS_CACHE`, else the platform's user cache; not created."""
    if chosen := os.environ.get("CROSSLENS_CACHE"):
        return Path(chosen).expanduser()
    import platformdirs

    return Path(platformdirs.user_cache_dir("crosslens", appauthor=False))


def find_model(name: str) -> OfflineModel:
    """The entry of that name in `MODELS`; InputError lists the known ones."""
    check_known(name, MODELS, "offline model")
    return MODELS[name]


def is_converted(folder: Path) -> bool:
    """Whether a directory is a checkpoint that was made here, which its name identifies."""
    return folder.parent == locate_cache() / "offline"


def is_available(name: str) -> bool:
    """Whether `make_checkpoint(name)` can work here: converted, or its package is installed (not yet checked)."""
    entry = find_model(name)
    return (entry.converter is not None and _is_finished(entry.directory)) or is_installed(name)


def is_installed(name: str) -> bool:
    """Whether the packages of a model are there, so that it can be converted (again)."""
    entry = find_model(name)
    return all(map(importlib.util.find_spec, entry.needs)) and all(file.locate() for file in entry.files)


def require_package(name: str) -> None:
    """`InputError`, which says how to install it, if a model is neither converted nor can be."""
    entry = find_model(name)
    if entry.converter is None or not _is_finished(entry.directory):
        _locate_files(entry)


def make_checkpoint(name: str) -> Path:
    """The directory of a converted checkpoint, made on first use: config, model.safetensors, tokenizer.

    Raises InputError if the package is missing, a file of it has another sha256 than the one pinned here, or the cache
    cannot be written.
    """
    entry = find_model(name)
    if entry.converter is None:
        return _check_files(entry)[0].parent
    target = entry.directory
    if _is_finished(target) and hold(target / WEIGHTS):
        return target
    paths = _check_files(entry)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(target.parent.with_suffix(".lock")):
            if not _is_finished(target):  # another process may just have made it
                log.info("converting offline:%s to %s (once, %s MB)", name, target, entry.cache_mb)
                _convert(entry, paths)
    except OSError as error:
        raise InputError(
            f"cannot write the checkpoint of offline:{name} ({entry.cache_mb} MB) under {target.parent}: "
            f"{error}; set CROSSLENS_CACHE to a directory with room"
        ) from error
    hold(target / WEIGHTS)
    return target


def keep_tensors(path: Path, names: Collection[str], what: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The tensors of these names from a safetensors file of the cache, made and written where it has not all of them.

    `InputError`, which says how large `what` is, if they cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file, save

    if path.is_file():
        try:
            held = load_file(path)
            hold(path)
            return {name: held[name] for name in names}
        except (OSError, SafetensorError, KeyError) as error:  # cut short by a full disk
            log.warning("%s is damaged (%s): it is made again", path, str(error))
    made = make()
    data = save(made)
    try:
        make_directory(path.parent)
        with place_atomically(path) as partial:
            partial.write_bytes(data)
    except InputError as error:
        size = f"{what} takes {len(data) / 1e6:.0f} MB"
        raise InputError(f"{error}: {size}; set CROSSLENS_CACHE to a directory with room") from None
    return made


class Cursor:
    """Values taken one after another from a package's file, which are little-endian and unaligned."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file

    def take(self, layout: str) -> tuple[Any, ...]:
        """The next values, in a layout of `struct`."""
        form = struct.Struct("<" + layout)
        return form.unpack(self.file.read(form.size))

    def text(self, size: str) -> str:
        """A UTF-8 text, before which its length in bytes stands, in the layout `size`."""
        return str(self.file.read(self.take(size)[0]), "utf-8")

    def array(self, dtype: str, count: int) -> np.ndarray:
        """The next values, all of a kind, read-only."""
        import numpy as np

        return np.frombuffer(self.file.read(count * np.dtype(dtype).itemsize), dtype)


def save_json(path: Path, value: object) -> None:
    """Write JSON into a checkpoint that is being made: its maker sees to errors, and gives the whole its name."""
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def write_tokenizer(
    directory: Path, tokenizer: Any, max_tokens: int, special: Mapping[str, str], **settings: str
) -> None:
    """Write a `tokenizers.Tokenizer`, and by which settings transformers' generic class loads it.

    `special` are the special tokens by their roles (`bos`).
    """
    tokenizer.save(str(directory / "tokenizer.json"), pretty=False)
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": max_tokens,
        "model_input_names": ["input_ids", "attention_mask"],
        "clean_up_tokenization_spaces": False,
        **settings,
        **{f"{role}_token": token for role, token in special.items()},
    }
    save_json(directory / "tokenizer_config.json", config)


def _is_finished(directory: Path) -> bool:
    return (directory / "config.json").is_file() and (directory / WEIGHTS).is_file()


def _locate_files(entry: OfflineModel) -> list[Path]:
    """Where the entry's files lie; `InputError` if a package is not installed."""
    missing = [need for need in entry.needs if importlib.util.find_spec(need) is None]
    found = [file.locate() for file in entry.files]
    lacking = (entry.name_package(file) for file, path in zip(entry.files, found, strict=True) if path is None)
    missing += dict.fromkeys(lacking)
    if missing:
        others = f" (nor are {len(missing) - 1} more)" if len(missing) > 1 else ""
        raise InputError(
            f"offline:{entry.name} needs the package {missing[0]}, which is not installed{others}: "
            f"{entry.remedy}, or use {entry.hub} where a model hub can be reached"
        )
    return [path for path in found if path]


def _check_files(entry: OfflineModel) -> list[Path]:
    """The entry's files, each with the pinned sha256."""
    paths = _locate_files(entry)
    whole = hashlib.sha256()
    for file, path in zip(entry.files, paths, strict=True):
        if (actual := _hash_part(path, whole)) != file.sha256:
            raise InputError(
                f"{path} is not the file that offline:{entry.name} expects: sha256 {actual[:12]}... instead "
                f"of {file.sha256[:12]}...; reinstall {entry.name_package(file)}"
            )
    if entry.whole and (actual := whole.hexdigest()) != entry.whole:
        raise InputError(
            f"the files of {entry.requirement} do not join to the one that offline:{entry.name} expects: sha256 "
            f"{actual[:12]}... instead of {entry.whole[:12]}..."
        )
    return paths


def _hash_part(path: Path, whole: Any) -> str:
    """The sha256 of a file, in hex; the hash of the `whole` that it is a part of goes on."""
    part = hashlib.sha256()
    with open_file(path) as file:
        while data := file.read(1 << 20):
            part.update(data)
            whole.update(data)
    return part.hexdigest()


def _convert(entry: OfflineModel, paths: Sequence[Path]) -> None:
    """Convert into a sibling directory and rename it: whoever sees the checkpoint sees it finished."""
    module, _, name = str(entry.converter).partition(":")
    convert: Callable[[Sequence[Path], Path], None] = getattr(importlib.import_module(module, __package__), name)
    partial = entry.directory.with_name(f".partial-{entry.directory.name}")
    shutil.rmtree(partial, ignore_errors=True)  # of a process that was killed
    partial.mkdir()
    try:
        convert(paths, partial)
        # safetensors writes for its user alone; a shared cache is for whoever the umask lets read it.
        mode = stat.S_IMODE((partial / "config.json").stat().st_mode)
        for path in partial.rglob("*"):
            if path.is_file():
                path.chmod(mode)
        shutil.rmtree(entry.directory, ignore_errors=True)  # out of which a cache cleaner took files
        partial.rename(entry.directory)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
