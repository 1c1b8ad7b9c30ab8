"""A few queries of a collection with their first hits, for readers of a report: those on which systems differ most."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...errors import InputError
from ...items import Item
from ...media.images import thumbnail
from ...media.language_codes import find_language
from ...runs import Qrels, Run

if TYPE_CHECKING:
    from ..table import Table

QUERIES = 3  # of a collection
HITS = 3  # of a query, by each system
LETTERS = 160  # of a text
SIDE = 96  # pixels of a picture, at most
PICTURES = 24  # of a collection


@dataclass(frozen=True)
class ShownItem:
    """A query or a document as a report shows it; `picture` is the address of a small one, `data:`, or empty."""

    id: str
    lang: str
    text: str
    picture: str = ""
    grade: int | None = None  # None: not judged


@dataclass(frozen=True)
class ShownQuery:
    """A query, and for each system the value of the measure and its first hits."""

    query: ShownItem
    measure: str
    values: Mapping[str, float]
    hits: Mapping[str, tuple[ShownItem, ...]]


def choose_examples(
    queries: Sequence[Item],
    runs: Mapping[str, Run],
    table: Table,
    qrels: Qrels,
    fetch: Callable[[Sequence[str]], Iterable[Item]],
) -> tuple[ShownQuery, ...]:
    """The queries whose values of the first measure lie farthest apart; `fetch` gives documents by their ids."""
    measure = table.measures[0]
    values = {system: table.values[system][measure] for system in runs}

    def differ(query: Item) -> float:
        found = [of[query.id] for of in values.values()]
        return max(found) - min(found)

    measured = [query for query in queries if all(query.id in of for of in values.values())]
    chosen = sorted(measured, key=differ, reverse=True)[:QUERIES]
    ids = {hit.id for run in runs.values() for query in chosen for hit in run[query.id][:HITS]}
    documents = {item.id: item for item in fetch(sorted(ids))}
    shown: dict[str, ShownItem] = {}

    def show(item: Item, grade: int | None = None) -> ShownItem:
        pictures = sum(bool(each.picture) for each in shown.values())
        picture = "" if pictures >= PICTURES else _draw(item)
        text = " ".join((item.text or "").split())
        short = text if len(text) <= LETTERS else text[: LETTERS - 1].rstrip() + "…"
        lang = find_language(item.lang) or item.lang if item.lang else ""
        made = ShownItem(item.id, lang or "", short, picture, grade)
        shown[f"{item.id}\0{grade}"] = made
        return made

    def show_hits(run: Run, query: Item) -> tuple[ShownItem, ...]:
        grades = qrels.get(query.id, {})
        found = ((hit.id, grades.get(hit.id)) for hit in run[query.id][:HITS])
        return tuple(shown.get(f"{id}\0{grade}") or show(documents[id], grade) for id, grade in found)

    return tuple(
        ShownQuery(
            show(query), measure, {system: of[query.id] for system, of in values.items()},
            {system: show_hits(run, query) for system, run in runs.items()},
        )
        for query in chosen
    )  # fmt: skip


def _draw(item: Item) -> str:
    """The address of a small picture of an item, which holds all of it; empty where it has none, or a damaged one."""
    source = item.image
    if source is None:
        return ""
    try:
        return f"data:image/jpeg;base64,{b64encode(thumbnail(source, SIDE, name=item.id)).decode()}"
    except (InputError, OSError):
        return ""
