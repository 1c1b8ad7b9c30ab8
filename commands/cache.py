"""`crosslens cache`: what the vector cache holds."""

from __future__ import annotations

from typing import Annotated

import typer

from ..errors import InputError
from .console import show
from .options import Json


def cache_command(
    prune: Annotated[bool, typer.Option("--prune", help="Remove vectors: all, or what the other options say.")] = False,
    older_than: Annotated[
        int | None, typer.Option(metavar="DAYS", help="Those last used more than so many days ago.")
    ] = None,
    encoder: Annotated[str | None, typer.Option(metavar="FINGERPRINT|SPEC", help="Those of this encoder.")] = None,
    to: Annotated[
        str | None, typer.Option(metavar="SIZE", help="The longest unused, until this much is left: 5GB.")
    ] = None,
    json: Json = False,
) -> None:
    """What the vector cache holds, where and for which encoders; --prune makes it smaller."""
    from ..encoders.cache.contents import prune_cache, read_contents

    if not prune and (older_than, encoder, to) != (None, None, None):
        raise InputError("--older-than, --encoder and --to say what to remove: write --prune with them")
    show(prune_cache(older_than=older_than, encoder=encoder, to=to) if prune else read_contents(), json)
