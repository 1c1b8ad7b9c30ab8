"""`crosslens serve`: indexes behind HTTP, and a page to search with."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..errors import InputError
from . import options
from .console import Terminated, progress, say


def serve_command(
    directories: Annotated[
        list[str],
        typer.Argument(metavar="DIR...", help="Indexes, each as DIR or NAME=DIR; `demo` is the built-in collection."),
    ],
    system: Annotated[
        list[str] | None,
        typer.Option(
            "--system",
            metavar="LINE",
            help="What searches, in one line as in `search`, as LINE or NAME=LINE; repeatable, the first is the "
            "default one. --mode and --rerank are shorthand for such a line.",
        ),
    ] = None,
    mode: options.Mode = "hybrid",
    rerank: options.Rerank = None,
    host: Annotated[str, typer.Option(help="Where to listen; others than this machine need a key.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free.")] = 8000,
    workers: Annotated[int, typer.Option(min=1, max=64, help="Processes.")] = 1,
    writable: Annotated[
        bool, typer.Option("--writable", help="Let who has the token in CROSSLENS_WRITE_TOKEN change documents.")
    ] = False,
    api_key: Annotated[
        bool, typer.Option("--api-key", help="Refuse to start without a key in CROSSLENS_API_KEY.")
    ] = False,
    insecure: Annotated[bool, typer.Option("--insecure", help="Let others search without a key.")] = False,
    cors: Annotated[
        list[str] | None, typer.Option(metavar="ORIGIN", help="Let pages of this origin search; repeatable.")
    ] = None,
    max_requests: Annotated[int, typer.Option(min=1, help="Requests at once; above: status 429.")] = 512,
    timeout_ms: Annotated[int, typer.Option(min=1, help="The longest that a request may take.")] = 30_000,
    query_tokens: Annotated[int, typer.Option(min=1, help="The longest query.")] = 512,
    device: options.Device = "auto",
    trust_remote_code: options.Trust = False,
) -> None:
    """Serve indexes over HTTP, with a page to search with; SIGTERM lets requests end."""
    import os

    try:
        from ..service.processes import KEY, Settings, place_demo, serve
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("crosslens"):
            raise
        raise InputError(f"serving needs {error.name}: pip install 'crosslens[serve]'") from None
    from ..service.quotas import Quotas
    from ..service.systems import name_indexes
    from ..systems.search import choose_line

    if system and (mode != "hybrid" or rerank):
        raise InputError("--system describes the whole system: leave out --mode and --rerank")
    if api_key and not os.environ.get(KEY):
        raise InputError(f"--api-key: there is no key in the environment variable {KEY}")
    named = {
        name: str(place_demo(device, progress)) if path == "demo" and not Path(path).exists() else path
        for name, path in name_indexes(directories).items()
    }
    lines = tuple(system or [choose_line(None, mode, None, True, rerank)])
    limits = Quotas(requests=max_requests, timeout_ms=timeout_ms, query_tokens=query_tokens)
    settings = Settings(
        named, lines, host, port, workers, writable, insecure, tuple(cors or ()), limits, device, trust_remote_code
    )
    try:
        serve(settings)
    except KeyboardInterrupt as stop:  # a service has nothing to go on with, as other commands do
        say("crosslens: ended")
        raise typer.Exit(143 if isinstance(stop, Terminated) else 1) from None
