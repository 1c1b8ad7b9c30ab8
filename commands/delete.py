"""`crosslens delete`: documents taken out of an index."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..errors import InputError
from ..files import read_lines
from .console import show
from .options import Device, Json, Location, Trust


def delete_command(
    directory: Location,
    ids: Annotated[list[str] | None, typer.Argument(metavar="ID...", help="Ids of documents.")] = None,
    file: Annotated[Path | None, typer.Option("--ids", help="A file of ids, one a line.")] = None,
    device: Device = "auto",
    trust_remote_code: Trust = False,
    json: Json = False,
) -> None:
    """Take documents out of an index; ids that it does not hold are counted and passed over."""
    from ..systems.indexing import remove_documents

    listed = (line.rstrip("\r\n") for line in read_lines(file)) if file else ()
    wanted = [*(ids or ()), *(id for id in listed if id)]
    if not wanted:
        raise InputError("no documents are named: give their ids, or a file of them with --ids")
    show(remove_documents(directory, wanted, device=device, trust_remote_code=trust_remote_code), json)
