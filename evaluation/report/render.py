"""The report of an experiment, in Markdown, in LaTeX, and as one HTML page that needs nothing else."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING
from urllib.parse import quote

from .. import grids
from ..experiment.results import Part, Results
from ..grids import Grid, escaped_markdown, one_line
from . import contents

if TYPE_CHECKING:
    from .plots import Plot

TEMPLATE = Path(__file__).parent / "report.html"


def markdown(results: Results) -> str:
    """A section for each collection: what it is, tables, p-values, costs; then the plan and the versions."""
    parts = [f"# {escaped_markdown(results.name)}"]
    if (summary := contents.summary(results)) is not None:
        parts += [grids.markdown(summary), *map(escaped_markdown, summary.notes)]
    for part in results.parts:
        parts += [f"## {escaped_markdown(part.collection)}", _list(contents.facts(part))]
        parts.append(part.table.markdown().rstrip())
        for measure in part.table.measures:
            parts += [grids.markdown(grid) for grid in contents.comparisons(part.table, measure)]
        costs = contents.costs(part)
        parts += [grids.markdown(costs), *map(escaped_markdown, costs.notes)]
        systems = [
            "; ".join(filter(None, (f"{name}: {of.pipeline}", f"run in {of.folder}", contents.reused(of))))
            for name, of in part.outcomes.items()
        ]
        parts.append(_list(systems))
    for name, told in contents.background(results).items():
        fence = "`" * (1 + max([2, *map(len, re.findall("`+", told))]))
        parts += [f"## {name.capitalize()}", f"{fence}json\n{told}\n{fence}"]
    return "\n\n".join(parts) + "\n"


def latex(results: Results) -> str:
    r"""Tables to `\input` (booktabs): the summary, and for each collection its tables, p-values and costs.

    What a paper does not print (pipelines, the plan, versions) stands in comments.
    """
    parts = [f"% {one_line(results.name)}\n{grids.PREAMBLE}"]
    if (summary := contents.summary(results)) is not None:
        parts.append(grids.latex([summary], label="tab:summary"))
    for part, name in zip(results.parts, anchors(part.collection for part in results.parts), strict=True):
        label = f"tab:{re.sub('[^a-z0-9]+', '-', name).strip('-') or 'collection'}"
        told = [one_line(part.collection), *contents.facts(part)]
        told += [f"{system}: {of.pipeline}" for system, of in part.outcomes.items()]
        parts.append("".join(f"% {one_line(line)}\n" for line in told))
        parts.append(grids.latex(part.table.grids(), caption=part.collection, label=label))
        compared = [grid for m in part.table.measures for grid in contents.comparisons(part.table, m)]
        parts.append(grids.latex(compared, caption=part.collection, label=f"{label}-p"))
        parts.append(grids.latex([contents.costs(part)], caption=part.collection, label=f"{label}-costs"))
    for name, told_json in contents.background(results).items():
        parts.append(f"% {name}\n" + "".join(f"% {line}\n" for line in told_json.split("\n")))
    return "\n".join(filter(str.strip, parts))


def html(results: Results) -> str:
    """One self-contained page: tables, plots as inline SVG, costs; no network, no script, the same bytes each time.

    Links to runs are relative: the page stands where `results.json` does.
    """
    names = anchors(part.collection for part in results.parts)
    summary = contents.summary(results)
    top = ""
    if summary is not None:
        links = {part.collection: f"#{name}" for part, name in zip(results.parts, names, strict=True)}
        top = grids.html(summary, links) + _paragraphs(summary.notes)
    systems = len({system for part in results.parts for system in part.table.systems})
    about = f"{contents.many(systems, 'system')} on {contents.many(len(results.parts), 'collection')}"
    if date := results.provenance.get("date"):
        about += f", {date}"
    return Template(TEMPLATE.read_text("utf-8")).substitute(
        title=escape(one_line(results.name)),
        about=escape(one_line(about)),
        navigation=" ".join(
            f'<a href="#{escape(name)}"><bdi>{escape(one_line(part.collection))}</bdi></a>'
            for part, name in zip(results.parts, names, strict=True)
        ),
        summary=top,
        sections="\n".join(_section(part, name) for part, name in zip(results.parts, names, strict=True)),
        **{name: escape(told) for name, told in contents.background(results).items()},
    )


def anchors(names: Iterable[str]) -> list[str]:
    """A distinct id for each name, readable in an address: `a & b` becomes `a-b`, a second one `a-b-2`."""
    found: list[str] = []
    for name in names:
        stem = re.sub(r"\W+", "-", name.casefold()).strip("-_") or "x"
        number, anchor = 1, stem
        while anchor in found:
            number += 1
            anchor = f"{stem}-{number}"
        found.append(anchor)
    return found


def _section(part: Part, name: str) -> str:
    from . import plots

    table = part.table
    ids = {
        system: f"{name}--{anchor}"
        for system, anchor in zip(part.outcomes, anchors(part.outcomes), strict=True)
    }
    links = {system: f"#{anchor}" for system, anchor in ids.items()}
    first, *others = table.measures
    shown = list(table.grids())
    by_group = {measure: f"{measure} per {table.per}" for measure in table.measures}
    later = {by_group[measure] for measure in others}
    costs = contents.costs(part)
    systems = "".join(
        f'<li id="{escape(ids[system])}"><b><bdi>{escape(one_line(system))}</bdi></b> '
        f"<code>{escape(one_line(of.pipeline))}</code> "
        f'<a href="{escape(quote(of.folder))}/">{escape(one_line(of.folder))}</a>'
        + (f" <small>{escape(one_line(contents.reused(of)))}</small>" if of.reused else "")
        + "</li>"
        for system, of in part.outcomes.items()
    )
    rest = [grid for grid in shown if grid.title in later]
    rest += [grid for measure in others for grid in contents.comparisons(table, measure)]
    return "\n".join(
        (
            f'<section id="{escape(name)}"><h2><bdi>{escape(one_line(part.collection))}</bdi></h2>',
            _items(contents.facts(part)),
            *(grids.html(grid, links) for grid in shown if grid.title not in later),
            _items(table.notes(), "notes"),
            *(grids.html(grid, links) for grid in contents.comparisons(table, first)),
            _folded("Other measures", rest, links),
            _plot("Quality against cost", plots.quality_against_cost(part), links),
            _plot("By group", plots.by_group(table), links),
            _plot("By query", plots.by_query(table), links),
            "<h3>Costs and systems</h3>",
            grids.html(costs, links),
            _items(costs.notes, "notes"),
            f'<ul class="systems">{systems}</ul>',
            "</section>",
        )
    )


def _plot(title: str, plot: Plot, links: Mapping[str, str]) -> str:
    heading = f"<h3>{title}</h3>"
    if not plot.panels:
        return f'{heading}\n<p class="notes">{escape(one_line(plot.said[:1].upper() + plot.said[1:]))}.</p>'
    figures = []
    for panel in plot.panels:
        name = f"<bdi>{escape(one_line(panel.title))}</bdi>"
        if panel.title in links:
            name = f'<a href="{escape(links[panel.title])}">{name}</a>'
        remark = f" <small>{escape(panel.remark)}</small>" if panel.remark else ""
        over = f"<figcaption>{name}{remark}</figcaption>" if panel.title else ""
        figures.append(f"<figure>{over}{panel.svg}</figure>")
    kind = "panels" if len(plot.panels) > 1 or plot.panels[0].title else "one"
    drawn = "\n".join(figures)
    return f'{heading}\n<p class="notes">{escape(one_line(plot.said))}</p>\n<div class="{kind}">{drawn}</div>'


def _folded(title: str, shown: Sequence[Grid], links: Mapping[str, str]) -> str:
    if not shown:
        return ""
    return (
        f"<details><summary>{title}</summary>{''.join(grids.html(grid, links) for grid in shown)}</details>"
    )


def _items(lines: Sequence[str], kind: str = "facts") -> str:
    if not lines:
        return ""
    return f'<ul class="{kind}">{"".join(f"<li>{escape(one_line(line))}</li>" for line in lines)}</ul>'


def _paragraphs(lines: Iterable[str]) -> str:
    return "".join(f'<p class="notes">{escape(one_line(line))}</p>' for line in lines)


def _list(lines: Iterable[str]) -> str:
    return "\n".join(f"- {escaped_markdown(line)}" for line in lines)
