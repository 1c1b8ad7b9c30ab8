"""`demo.html`: one self-contained page with every query, its results, their pictures, languages and scores."""

from __future__ import annotations

import base64
from functools import cache
from pathlib import Path

import jinja2

from ..files import write_atomically
from ..media.images import thumbnail
from ..multilingual.languages import find_direction, name_language
from .collection import list_photos
from .results import DemoReport

SHOWN = 5  # results a query


def write_contact_sheet(path: Path, report: DemoReport) -> None:
    """Write the page for the last system of the report; pictures are in it as JPEG thumbnails."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"direction": find_direction, "language": name_language, "thumbnail": _encode_thumbnail}
    system, run = list(report.runs.items())[-1]
    kinds: dict[str, list[tuple[object, ...]]] = {}
    for query, hits in run:
        results = zip(hits, run.items(query.id)[:SHOWN], strict=False)
        kinds.setdefault(str(query.meta["kind"]), []).append((query, list(results)))
    page = environment.get_template("contact_sheet.html")
    with write_atomically(path) as out:
        out.write(page.render(report=report, table=report.table, system=system, kinds=kinds, photos=list_photos()))


@cache
def _encode_thumbnail(image: Path | bytes) -> str:
    return base64.b64encode(thumbnail(image, 160)).decode()
