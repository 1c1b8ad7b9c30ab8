"""What a benchmark has measured so far, a line of JSON each in the file of `--out`: the next run goes on from there."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def add_out(parser: argparse.ArgumentParser) -> None:
    """Give a script the option `--out FILE`."""
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="JSON lines of what was measured; the next run goes on"
    )


def read_lines(path: Path | None) -> list[dict[str, Any]]:
    """The lines of a file that need not be there yet; what a kill cut short is left out, and said."""
    lines = []
    for line in path.read_text("utf-8").splitlines() if path is not None and path.exists() else ():
        try:
            lines.append(dict(json.loads(line)))
        except (ValueError, TypeError):
            print(f"{path}: left out a line that is not a result", file=sys.stderr)
    return lines


def append_line(path: Path | None, line: Mapping[str, Any]) -> None:
    """A line more; one that a kill cut short is ended first."""
    if path is not None:
        torn = path.exists() and not path.read_bytes().endswith(b"\n")
        with path.open("a", encoding="utf-8") as out:
            out.write("\n" * torn + json.dumps(line, ensure_ascii=False) + "\n")
