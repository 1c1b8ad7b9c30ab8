"""`crosslens info`: what an index is and holds."""

from __future__ import annotations

from .console import show
from .options import Json, Location


def info_command(directory: Location, json: Json = False) -> None:
    """What an index holds, by which encoders, in which state, and the room that it takes; no model is loaded."""
    from ..indexes.info import read_info

    show(read_info(directory), json)
