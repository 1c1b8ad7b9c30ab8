"""The commands about this machine: what is kept here, what can be loaded, what works."""

from __future__ import annotations

from typing import Annotated

import typer

from ..errors import InputError
from .console import emit
from .options import Device, Json

app = typer.Typer()


@app.command()
def cache(
    prune: Annotated[
        bool, typer.Option("--prune", help="Remove vectors: all, or what the other options say.")
    ] = False,
    older_than: Annotated[
        int | None, typer.Option(metavar="DAYS", help="Those last used more than so many days ago.")
    ] = None,
    encoder: Annotated[
        str | None, typer.Option(metavar="FINGERPRINT|SPEC", help="Those of this encoder.")
    ] = None,
    to: Annotated[
        str | None, typer.Option(metavar="SIZE", help="The longest unused, until no more is left: 5GB.")
    ] = None,
    json: Json = False,
) -> None:
    """What the vector cache holds, where and for which encoders; --prune makes it smaller."""
    from ..encoders.cache_files import pruned, survey

    if not prune and (older_than, encoder, to) != (None, None, None):
        raise InputError("--older-than, --encoder and --to say what to remove: write --prune with them")
    found = pruned(older_than=older_than, encoder=encoder, to=to) if prune else survey()
    if json:
        emit(found.to_json())
    else:
        print(found)


@app.command()
def models(json: Json = False) -> None:
    """What can be loaded here: size, licence, modalities, languages."""
    from .doctor import catalogue, show_catalogue

    found = catalogue()
    if json:
        emit(found)
    else:
        show_catalogue(found)


@app.command()
def doctor(device: Device = "auto", json: Json = False) -> None:
    """What works on this machine and what to install."""
    from .doctor import examine, show_findings

    findings = examine(device)
    if json:
        emit({"ok": all(f.ok is not False for f in findings), "findings": [f.to_json() for f in findings]})
    else:
        show_findings(findings)
