"""`crosslens models`: what can be loaded on this machine."""

from __future__ import annotations

from typing import Any

from ..checkpoints.offline import packages as offline
from .console import emit, open_console
from .options import Json

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


def models_command(json: Json = False) -> None:
    """What can be loaded here: size, licence, modalities, languages."""
    catalogue = list_models()
    if json:
        emit(catalogue)
    else:
        print_models(catalogue)


def list_models() -> dict[str, Any]:
    """`offline`: the models that packages carry; `hub`: known-good checkpoints; `families`: what a SPEC may name."""
    from ..encoders.registry import FAMILIES, OFFLINE
    from ..multilingual.judges import JUDGES
    from ..multilingual.prompts import list_prompts
    from ..multilingual.reranking.registry import SORTERS
    from ..systems.stages import STAGES
    from ..training.data.registry import list_sources

    carried = []
    for model in offline.MODELS.values():
        users = {"efficientnet-lite2": "offline:conse"}.get(model.name, f"offline:{model.name}")
        carried.append(
            {
                "spec": users,
                "package": model.requirement,
                "install": model.remedy,
                "hub": model.hub,
                "size_mb": model.size_mb,
                "cache_mb": model.cache_mb,
                "licence": model.licence,
                "modalities": list(model.modalities) if users != "offline:conse" else ["text", "image"],
                "languages": list(model.languages),
                "description": model.description,
                "available": offline.is_available(model.name),
            }
        )
    return {
        "offline": carried,
        "hub": [dict(zip(("spec", "size", "licence", "modalities", "languages"), row, strict=True)) for row in HUB],
        "encoder_families": [*FAMILIES, *(f"offline:{name}" for name in OFFLINE)],
        "judge_families": list(JUDGES),
        "stages": {name: kind.needs for name, kind in STAGES.items()},
        "prompts": list_prompts(),
        "sorters": list(SORTERS),
        "sources": list_sources(),
    }


def print_models(catalogue: dict[str, Any]) -> None:
    """The catalogue as a table on stdout."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("SPEC", "size", "in the cache", "licence", "modalities", "languages", "here"):
        table.add_column(column, no_wrap=column in ("SPEC", "here"), overflow="fold")
    for row in catalogue["offline"]:
        count = str(len(row["languages"])) if row["languages"] else "-"
        here = "yes" if row["available"] else f"no: {row['install']}"
        sizes = (f"{row['size_mb']} MB", f"{row['cache_mb']} MB" if row["cache_mb"] else "-")
        table.add_row(row["spec"], *sizes, row["licence"], ", ".join(row["modalities"]), count, here)
    for row in catalogue["hub"]:
        table.add_row(
            row["spec"], row["size"], "", row["licence"], row["modalities"], row["languages"], "needs a network"
        )
    console = open_console()
    # Names are long: a narrow terminal wraps the lines, which reads better than folded cells.
    console.soft_wrap, console.width = True, max(console.width, 130)
    console.print(table)
    console.print(
        f"\nstages: {', '.join(catalogue['stages'])}\nreranking prompts: {', '.join(catalogue['prompts'])}\n"
        f"sorters: {', '.join(catalogue['sorters'])}\n"
        f"sources of synthesize: {', '.join(catalogue['sources'])}\n"
        "other checkpoints and directories load too, by the families that docs/encoders.md and docs/reranking.md list"
    )
