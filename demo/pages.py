"""Pages of results, each one file that holds its pictures as small JPEGs."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import jinja2

from ..errors import InputError
from ..files import write_atomically
from ..items import Item
from ..media.images import thumbnail
from ..multilingual.languages import find_direction, name_language
from ..multilingual.snippets import make_snippet
from ..runs import Hit

SIDE = 160  # pixels of a picture's longer side


def write_hits_page(path: Path, query: Item, found: Sequence[tuple[Hit, Item]], *, words: str, system: str) -> None:
    """The page of one search: each hit with its picture and where the `words` stand in its text."""
    results = [(hit, item, list(_mark(item.text or "", words))) for hit, item in found]
    write_page(path, "hits.html", query=query, results=results, system=system)


def write_page(path: Path, template: str, **values: Any) -> None:
    """A page by one of the templates beside this file; all that it shows is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"direction": find_direction, "language": name_language, "thumbnail": _encode_thumbnail}
    with write_atomically(path) as out:
        out.write(environment.get_template(template).render(**values))


def _mark(text: str, words: str) -> Iterator[tuple[str, bool]]:
    """The parts of a snippet, and whether they are words of the query."""
    snippet, spans = make_snippet(text, words)
    at = 0
    for start, end in spans:
        yield from ((snippet[at:start], False), (snippet[start:end], True))
        at = end
    if snippet[at:]:
        yield snippet[at:], False


@cache
def _encode_thumbnail(image: Path | bytes) -> str | None:
    """A picture in base64; None where it cannot be read any more."""
    try:
        return base64.b64encode(thumbnail(image, SIDE)).decode()
    except (InputError, OSError):
        return None
