"""What an index holds, a short line for each document: read as a stream, without pictures and whole texts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ..media.language_codes import find_language
from .storage.card import FIRST
from .storage.filters import Where, join_conditions, write_sql
from .storage.rows import list_media
from .storage.storage import Storage

SNIPPET = 100  # characters
READ = 4 * SNIPPET  # characters of which they are made: white space goes
ROWS = 1024  # a block


@dataclass(frozen=True)
class Listed:
    """A document: what it holds (`text+image`), and the start of its text, or where its picture and other media are."""

    id: str
    lang: str | None
    modality: str
    snippet: str

    def to_json(self) -> dict[str, str | None]:
        return {"id": self.id, "lang": self.lang, "modality": self.modality, "snippet": self.snippet}


def list_documents(storage: Storage, where: Where | None = None) -> Iterator[Listed]:
    """The documents that `where` keeps, in the order in which they are stored; `InputError` for what it cannot be."""
    card, tables = storage.card, storage.tables
    condition = write_sql(where, card.keys, card.langs)
    if card.passages is not None:  # the first passage stands for its document
        condition = join_conditions(condition, f"id LIKE '%{FIRST}'")
    media = list_media(tables.documents.schema.names)
    columns = {name: name for name in ("id", "lang", "modality", *(f"{each}_path" for each in media))}
    columns["text"] = f"left(text, {READ})"
    for batch in tables.scan(columns, condition, ROWS):
        for row in batch.to_pylist():
            snippet = " ".join((row["text"] or "").split())[:SNIPPET]
            if not snippet:
                held = [each for each in media if each in row["modality"].split("+")]
                snippet = f"[{', '.join(row[f'{each}_path'] or f'stored {each}' for each in held)}]"
            id = row["id"].removesuffix(FIRST) if card.passages is not None else row["id"]
            yield Listed(id, find_language(row["lang"]), row["modality"], snippet)
