"""The report of an experiment, in Markdown, in LaTeX, and as one HTML page that needs nothing else."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import quote

import jinja2

from ...files import write_atomically
from ..experiment.results import Part, Results
from ..grids import PREAMBLE, clean_line, escape_markdown, format_latex
from . import contents
from .plots import draw_plots, explain_lack


def write_report(results: Results, out: Path) -> None:
    """Write results.json, tables.md, tables.tex and report.html into `out`, each in one piece.

    Without matplotlib the page has no plots, and says how to get them.
    """
    for name, render in (
        ("results.json", lambda results: json.dumps(results.to_json(), indent=2, ensure_ascii=False)),
        ("tables.md", render_markdown),
        ("tables.tex", render_latex),
        ("report.html", render_html),
    ):
        with write_atomically(out / name) as file:
            file.write(render(results))


def render_markdown(results: Results) -> str:
    """A section for each collection: what it is, tables, p-values, costs; then the plan and the versions."""
    parts = [f"# {escape_markdown(results.name)}"]
    if (summary := contents.summarise(results)) is not None:
        parts += [summary.markdown(), *map(escape_markdown, summary.notes)]
    for part in results.parts:
        parts += [
            f"## {escape_markdown(part.collection)}",
            _list_markdown(contents.describe_collection(part)),
        ]
        parts.append(part.table.markdown().rstrip())
        for measure in part.table.measures:
            parts += [grid.markdown() for grid in contents.tabulate_differences(part.table, measure)]
        costs = contents.tabulate_costs(part)
        parts += [costs.markdown(), *map(escape_markdown, costs.notes)]
        systems = [
            (f"{system}: {of.pipeline}", f"run in {of.folder}", contents.describe_reuse(of))
            for system, of in part.outcomes.items()
        ]
        parts.append(_list_markdown("; ".join(filter(None, facts)) for facts in systems))
    for name, text in contents.dump_background(results).items():
        fence = "`" * (1 + max([2, *map(len, re.findall("`+", text))]))
        parts += [f"## {name.capitalize()}", f"{fence}json\n{text}\n{fence}"]
    return "\n\n".join(parts) + "\n"


def render_latex(results: Results) -> str:
    r"""Tables to `\input` (booktabs): the summary, and for each collection its tables, p-values and costs.

    What a paper does not print (pipelines, the plan, versions) stands in comments.
    """
    parts = [_comment(results.name) + PREAMBLE]
    if (summary := contents.summarise(results)) is not None:
        parts.append(format_latex([summary], label="tab:summary"))
    for part, anchor in zip(
        results.parts, make_anchors(each.collection for each in results.parts), strict=True
    ):
        label = f"tab:{re.sub('[^a-z0-9]+', '-', anchor).strip('-') or 'collection'}"
        systems = [f"{system}: {of.pipeline}" for system, of in part.outcomes.items()]
        parts.append(_comment(part.collection, *contents.describe_collection(part), *systems))
        parts.append(format_latex(part.table.grids(), caption=part.collection, label=label))
        differences = (
            grid for m in part.table.measures for grid in contents.tabulate_differences(part.table, m)
        )
        parts.append(format_latex(differences, caption=part.collection, label=f"{label}-p"))
        parts.append(
            format_latex([contents.tabulate_costs(part)], caption=part.collection, label=f"{label}-costs")
        )
    for name, text in contents.dump_background(results).items():
        parts.append(f"% {name}\n" + "".join(f"% {line}\n" for line in text.split("\n")))
    return "\n".join(filter(str.strip, parts))


def render_html(results: Results) -> str:
    """One self-contained page: tables, plots as inline SVG, costs; no network, no script, the same bytes each time.

    Links to runs are relative: the page stands where `results.json` does.
    """
    pages = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined,
    )  # fmt: skip
    pages.filters["line"] = clean_line
    anchors = make_anchors(part.collection for part in results.parts)
    systems = len({system for part in results.parts for system in part.table.systems})
    about = f"{contents.count_nouns(systems, 'system')} on {contents.count_nouns(len(results.parts), 'collection')}"
    if date := results.provenance.get("date"):
        about += f", {date}"
    return pages.get_template("report.html").render(
        title=results.name,
        about=about,
        lack=explain_lack(),
        anchors={part.collection: f"#{anchor}" for part, anchor in zip(results.parts, anchors, strict=True)},
        summary=contents.summarise(results),
        sections=[_section(part, anchor) for part, anchor in zip(results.parts, anchors, strict=True)],
        **contents.dump_background(results),
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
    """What the template shows of a collection."""
    table = part.table
    first, *others = table.measures
    later = {f"{measure} per {table.per}" for measure in others}
    grids = list(table.grids())
    anchors = dict(zip(part.outcomes, make_anchors(part.outcomes), strict=True))
    return {
        "anchor": anchor,
        "title": part.collection,
        "facts": contents.describe_collection(part),
        "grids": [grid for grid in grids if grid.title not in later],
        "notes": table.notes(),
        "differences": contents.tabulate_differences(table, first),
        "others": [
            *(grid for grid in grids if grid.title in later),
            *(grid for measure in others for grid in contents.tabulate_differences(table, measure)),
        ],
        "plots": draw_plots(part),
        "costs": contents.tabulate_costs(part),
        "links": {system: f"#{anchor}--{each}" for system, each in anchors.items()},
        "systems": [
            (system, of.pipeline, of.folder, quote(of.folder), contents.describe_reuse(of))
            for system, of in part.outcomes.items()
        ],
    }


def _comment(*lines: str) -> str:
    return "".join(f"% {clean_line(line)}\n" for line in lines)


def _list_markdown(lines: Iterable[str]) -> str:
    return "\n".join(f"- {escape_markdown(line)}" for line in lines)
