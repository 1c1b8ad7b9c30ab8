"""`demo.html`: one self-contained page with every query, its results, their pictures, languages and scores."""

from __future__ import annotations

import base64
from functools import cache
from html import escape
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING

from ..files import write_atomically
from ..items import Item
from ..media.images import thumbnail
from ..multilingual.languages import find_direction, name_language
from ..runs import Hit
from . import photos

if TYPE_CHECKING:
    from .tour import Report

SHOWN = 5  # results a query
PAGE = Template((Path(__file__).parent / "contact_sheet.html").read_text("utf-8"))


def write(path: Path, report: Report) -> None:
    """Write the page for the last system of the report; pictures are in it as JPEG thumbnails."""
    system, run = list(report.runs.items())[-1]
    kinds: dict[str, list[str]] = {}
    for query, hits in run:
        documents = run.items(query.id)[:SHOWN]
        grades = report.qrels.get(query.id, {})
        results = "".join(
            _result(rank, hit, document, grades.get(hit.id, 0))
            for rank, (hit, document) in enumerate(zip(hits, documents, strict=False), 1)
        )
        kinds.setdefault(str(query.meta["kind"]), []).append(
            f'<section class="query"><div class="asked">{_picture(query)}{_text(query.text, query.lang)}'
            f'<span class="tag">{escape(query.id)}{_lang(query)}</span></div><ol>{results}</ol></section>'
        )
    from .tour import p_value  # it imports this module

    sections = "".join(
        f'<h2 id="{_anchor(kind)}">{escape(kind)} <small>{len(queries)} queries</small></h2>{"".join(queries)}'
        for kind, queries in kinds.items()
    )
    with write_atomically(path) as out:
        out.write(
            PAGE.substitute(
                system=escape(system),
                navigation=" ".join(f'<a href="#{_anchor(kind)}">{escape(kind)}</a>' for kind in kinds),
                table=_table(report),
                steps="".join(
                    f"<li>{escape(step.system)} over {escape(step.over)}: {step.difference:+.3f} nDCG@10 "
                    f"({p_value(step.p)}), {step.verdict}</li>"
                    for step in report.steps
                ),
                sections=sections,
                credits="".join(
                    f"<li><b>{escape(photo.id)}</b> {escape(photo.shows)}. {escape(photo.licence)}; "
                    f"{escape(photo.source)}</li>"
                    for photo in photos()
                ),
            )
        )


def _result(rank: int, hit: Hit, document: Item, grade: int) -> str:
    title = _text(str(document.meta.get("title", "")), document.lang, "b") if document.text else ""
    body = _text((document.text or "").partition("\n")[2], document.lang, "p")
    return (
        f'<li class="grade{grade}" title="grade {grade}">{_picture(document)}{title}{body}'
        f'<span class="tag">{rank} · {hit.score:.3f}{_lang(document)} · {escape(hit.id)} · grade {grade}</span></li>'
    )


def _text(text: str | None, lang: str | None, element: str = "q") -> str:
    if not text:
        return ""
    where = f' lang="{escape(lang)}" dir="{find_direction(lang)}"' if lang else ' dir="auto"'
    return f"<{element}{where}>{escape(text)}</{element}>"


def _lang(item: Item) -> str:
    return f" · {escape(name_language(item.lang))}" if item.lang else ""


def _picture(item: Item) -> str:
    if item.image is None:
        return ""
    shows = str(item.meta.get("shows", item.meta.get("photo", "")))
    return f'<img alt="{escape(shows)}" src="data:image/jpeg;base64,{_encoded(item.image)}">'


@cache
def _encoded(image: Path | bytes) -> str:
    return base64.b64encode(thumbnail(image, 160)).decode()


def _table(report: Report) -> str:
    table = report.table
    head = "".join(
        f"<th>{escape(group)}<br><small>{table.counts[group]} queries</small></th>" for group in table.groups
    )
    parts = []
    for measure in table.measures:
        best = {
            group: max(table.mean(each, measure, group) for each in table.systems) for group in table.groups
        }
        rows = "".join(
            f"<tr><th>{escape(system)}</th>"
            + "".join(
                f'<td class="{"best" if (mean := table.mean(system, measure, group)) == best[group] else ""}">{mean:.3f}</td>'
                for group in table.groups
            )
            + "</tr>"
            for system in table.systems
        )
        parts.append(
            f"<table><thead><tr><th>{escape(measure)}</th>{head}</tr></thead><tbody>{rows}</tbody></table>"
        )
    return "".join(parts)


def _anchor(kind: str) -> str:
    return kind.replace(" ", "-").replace("+", "and")
