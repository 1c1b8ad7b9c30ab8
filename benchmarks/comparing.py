"""What scripts share that compare searches over several collections: their arguments, encoder, rows and times."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from crosslens.encoders.base import Encoder
from crosslens.encoders.cache.encoder import CachedEncoder
from crosslens.encoders.registry import load_encoder
from crosslens.evaluation.significance import holm
from crosslens.items import Item
from measurements import add_save

Row = dict[str, Any]


def make_parser(doc: str | None, encoder: str) -> argparse.ArgumentParser:
    """The arguments of all: collections, `--encoder`, `--device` and `--save`."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("collections", nargs="+", type=Path, metavar="COLLECTION")
    parser.add_argument("--encoder", default=encoder, help="(%(default)s)")
    parser.add_argument("--device", default="auto")
    add_save(parser)
    return parser


def open_encoder(given: argparse.Namespace) -> Encoder:
    """The encoder that was asked for; its vectors are kept for the next time."""
    return CachedEncoder(load_encoder(given.encoder, device=given.device))


def note(rows: list[Row], *parts: Row) -> None:
    """Add a row of these parts, and show it."""
    rows.append({key: value for part in parts for key, value in part.items()})
    print(json.dumps(rows[-1]), file=sys.stderr, flush=True)


def adjust(rows: Sequence[Row], find_p: Callable[[Row], float]) -> None:
    """Give each row its p-value, Holm-corrected over all of them, as `p adjusted`."""
    for row, p in zip(rows, holm(list(map(find_p, rows))), strict=True):
        row["p adjusted"] = p


def time_queries(queries: Sequence[Item], search: Callable[[list[Item]], object]) -> float:
    """Median milliseconds of CPU time of a search for one query."""
    times = []
    for query in queries:
        began = time.process_time()
        search([query])
        times.append(1000 * (time.process_time() - began))
    return sorted(times)[len(times) // 2]
