"""Hits as people read them: a row a hit, as wide as the terminal, and whole where they are piped."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import escape_controls

LONGEST_ID = 32  # columns of a terminal; longer ids push their snippet to the right


def print_hits(rows: Sequence[Mapping[str, Any]]) -> None:
    """Rank, score, language, id, and where the query's words stand in the text; control characters are escaped."""
    terminal = sys.stdout.isatty()
    width = shutil.get_terminal_size().columns if terminal else 0
    ids = [escape_controls(row["id"]) for row in rows]
    longest = min(LONGEST_ID, max(map(len, ids), default=0))
    for row, id in zip(rows, ids, strict=True):
        text = escape_controls(row["text"].replace("\n", " · "))
        line = f"{row['rank']:>3}  {row['score']:9.4f}  {row['lang'] or '   '}  {id:<{longest}}  {text}"
        print(_cut(line, width) if terminal else line)
        if len(stages := row.get("stages", ())) > 1:
            print(escape_controls(f"     {' > '.join(map(show_place, stages))}"))


def show_place(place: Mapping[str, Any]) -> str:
    """A stage, and where it ranked a document."""
    return f"{place['stage']}: " + (f"{place['rank']} ({place['score']:.4f})" if place["rank"] else "not found")


def _cut(line: str, width: int) -> str:
    """What fits into so many columns, of which Chinese characters take two."""
    from rich.cells import cell_len, set_cell_size

    return line if cell_len(line) <= width else set_cell_size(line, width - 1) + "…"
