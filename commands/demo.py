"""`crosslens demo`: the main job end to end, offline."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer

from .console import emit, open_console, progress
from .options import Device, Json


def demo_command(
    directory: Annotated[Path | None, typer.Option("--dir", help="Keep the index here (default: temporary).")] = None,
    html: Annotated[Path, typer.Option(help="Where the contact sheet goes.")] = Path("demo.html"),
    best: Annotated[
        bool | None,
        typer.Option(
            help="Also rerank with `best`, minutes more (default: if offline-llm is there).", show_default=False
        ),
    ] = None,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """The main job end to end, offline: index texts and photos, search across languages, rerank, evaluate."""
    from dataclasses import replace
    from tempfile import TemporaryDirectory

    from ..checkpoints.offline.packages import is_available
    from ..demo.tour import tour

    if best is None:
        best = is_available("qwen-1.5b")

    with TemporaryDirectory(prefix="crosslens-demo-") if directory is None else nullcontext(directory) as where:
        report = tour(Path(where), html, device=device, best=best, progress=progress)
        if directory is None:
            report = replace(report, index="temporary, removed; --dir DIR keeps it")
        if json:
            emit(report.to_json())
        else:
            report.print(open_console())
            # As it was called: in a virtual environment that is not active, the name alone would not be found.
            print(f"Search it in a browser: {sys.argv[0]} serve demo --rerank default")
