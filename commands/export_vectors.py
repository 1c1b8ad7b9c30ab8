"""`crosslens export-vectors`: the vectors of an index for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .console import progress, show
from .options import Json, Location


def export_vectors_command(
    directory: Location,
    output: Annotated[Path, typer.Argument(metavar="OUT", help="OUT.parquet, or OUT.npy with OUT.ids.txt beside.")],
    encoder: Annotated[
        str | None, typer.Option(metavar="SPEC|FINGERPRINT", help="Whose vectors, where there are several encoders.")
    ] = None,
    json: Json = False,
) -> None:
    """Write the vectors of an index with the ids of their documents, float32, as the encoder made them."""
    from ..indexes.export import export_vectors
    from ..indexes.registry import open_index

    index = open_index(directory)
    with progress("writing", len(index)) as bar:
        made = export_vectors(index, output, encoder, progress=bar)
    show(made, json)
