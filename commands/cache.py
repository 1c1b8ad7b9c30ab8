"""`crosslens cache`: what the cache holds."""

from __future__ import annotations

from typing import Annotated

import typer

from ..errors import InputError
from .console import show
from .options import Json


def cache_command(
    prune: Annotated[
        bool, typer.Option("--prune", help="Remove what is not in use: all, or what the other options say.")
    ] = False,
    kind: Annotated[
        list[str] | None,
        typer.Option(
            help="Of this kind alone: vectors, models, int8, openvino, classes, languages, texts, demo or leftovers; "
            "repeatable."
        ),
    ] = None,
    unused: Annotated[
        bool, typer.Option("--unused", help="What nothing installed needs, as a model whose package is gone.")
    ] = False,
    older_than: Annotated[
        int | None, typer.Option(metavar="DAYS", help="What was last used more than so many days ago.")
    ] = None,
    encoder: Annotated[
        str | None, typer.Option(metavar="FINGERPRINT|SPEC", help="The vectors of this encoder.")
    ] = None,
    to: Annotated[
        str | None,
        typer.Option(metavar="SIZE", help="What nothing needs, then the longest unused, until this is left: 5GB."),
    ] = None,
    json: Json = False,
) -> None:
    """What the cache holds, by kind: vectors, converted models and others; --prune makes it smaller."""
    from ..systems.cached import prune_all, read_cache

    if not prune and (kind or unused or (older_than, encoder, to) != (None, None, None)):
        raise InputError(
            "--kind, --unused, --older-than, --encoder and --to say what to remove: write --prune with them"
        )
    options = {"kinds": kind or (), "unused": unused, "older_than": older_than, "encoder": encoder, "to": to}
    show(prune_all(**options) if prune else read_cache(), json)  # type: ignore[arg-type]
