"""The report of an experiment: templates in Markdown, in LaTeX, and of one HTML page that needs nothing else."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import jinja2

from ...files import write_atomically, write_json
from ..experiment.results import Part, Results
from ..grids import PREAMBLE, clean_line, escape_markdown, format_latex
from . import contents
from .plots import draw_plots, explain_lack

TEMPLATES = ("tables.md", "tables.tex", "report.html")


def write_report(results: Results, out: Path) -> None:
    """Write results.json, tables.md, tables.tex and report.html into `out`, each in one piece.

    Without matplotlib the page has no plots, and says how to get them.
    """
    write_json(out / "results.json", results.to_json())
    for name in TEMPLATES:
        with write_atomically(out / name) as file:
            file.write(render_report(results, name))


def render_report(results: Results, template: str) -> str:
    r"""One of `TEMPLATES`, the same bytes each time.

    `tables.md` and `tables.tex`, to `\input` (booktabs), have the summary, and for each collection what it is, its
    tables, p-values and costs; then the plan and the versions. The page has plots too, as inline SVG; no network, no
    script. Its links to runs are relative: it stands where `results.json` does.
    """
    engine = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=jinja2.select_autoescape(["html"]),
        keep_trailing_newline=True, lstrip_blocks=True, trim_blocks=True, undefined=jinja2.StrictUndefined,
    )  # fmt: skip
    engine.filters |= {"line": clean_line, "markdown": escape_markdown, "fence": _fence}
    engine.globals |= {
        "contents": contents, "draw_plots": draw_plots, "explain_lack": explain_lack,
        "format_latex": format_latex, "preamble": PREAMBLE,
    }  # fmt: skip
    anchors = make_anchors(part.collection for part in results.parts)
    return engine.get_template(template).render(
        results=results,
        summary=contents.summarise(results),
        addresses={part.collection: f"#{anchor}" for part, anchor in zip(results.parts, anchors, strict=True)},
        sections=[_section(part, anchor) for part, anchor in zip(results.parts, anchors, strict=True)],
        background=contents.dump_background(results),
    )


def make_anchors(names: Iterable[str]) -> list[str]:
    """A distinct id for each name, readable in an address: `a & b` becomes `a-b`, a second one `a-b-2`."""
    anchors: list[str] = []
    for name in names:
        stem = re.sub(r"\W+", "-", name.casefold()).strip("-_") or "x"
        number, anchor = 1, stem
        while anchor in anchors:
            number += 1
            anchor = f"{stem}-{number}"
        anchors.append(anchor)
    return anchors


def _section(part: Part, anchor: str) -> dict[str, object]:
    """What templates show of a collection; the page folds away all but the first measure."""
    measures = part.table.measures
    grids = list(part.table.grids())
    differences = [contents.tabulate_differences(part.table, measure) for measure in measures]
    later = {f"{measure} per {part.table.per}" for measure in measures[1:]}
    anchors = zip(part.outcomes, make_anchors(part.outcomes), strict=True)
    return {
        "part": part,
        "anchor": anchor,
        "label": f"tab:{re.sub('[^a-z0-9]+', '-', anchor).strip('-') or 'collection'}",
        "links": {system: f"#{anchor}--{each}" for system, each in anchors},
        "grids": [grid for grid in grids if grid.title not in later],
        "differences": differences,
        "folded": [
            *(grid for grid in grids if grid.title in later),
            *(grid for each in differences[1:] for grid in each),
        ],
        "costs": contents.tabulate_costs(part),
    }


def _fence(text: str) -> str:
    """A block of JSON in Markdown, whatever it holds."""
    fence = "`" * (1 + max([2, *map(len, re.findall("`+", text))]))
    return f"{fence}json\n{text}\n{fence}"
