"""`crosslens verify`: damaged files found, and repaired where they can be."""

from __future__ import annotations

import typer

from .console import show
from .options import Device, Json, Location, Trust


def verify_command(
    directory: Location, device: Device = "auto", trust_remote_code: Trust = False, json: Json = False
) -> None:
    """Look for damage in an index or an experiment, and repair what can be made again; status 2 where some stays."""
    from ..evaluation.experiment.verify import verify_directory

    found = verify_directory(directory, device=device, trust_remote_code=trust_remote_code)
    show(found, json)
    if found.lasting:
        raise typer.Exit(2)
