"""`crosslens delete`: documents taken out of an index."""

from __future__ import annotations

from .console import show
from .options import Device, Ids, IdsFile, Json, Location, Trust, list_ids


def delete_command(
    directory: Location,
    ids: Ids = None,
    file: IdsFile = None,
    device: Device = "auto",
    trust_remote_code: Trust = False,
    json: Json = False,
) -> None:
    """Take documents out of an index; ids that it does not hold are counted and passed over."""
    from ..systems.indexing import remove_documents

    wanted = list_ids(ids, file)
    show(remove_documents(directory, wanted, device=device, trust_remote_code=trust_remote_code), json)
