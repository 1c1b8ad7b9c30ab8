"""What an experiment found, drawn as inline SVG: quality against cost, means of groups, differences by query."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import NamedTuple

from ..experiment.results import Part
from ..grids import clean_line
from ..significance import Comparison
from ..table import Table
from . import svg
from .svg import GAIN, INK, LOSS

MOST_GROUPS = 24  # panels; a table holds the others
PANEL = 330.0  # points, about a telephone's width
ROW = 17.0


class Panel(NamedTuple):
    """One `<svg>` with what stands over it: a title (a system or a group; may be empty) and a remark."""

    title: str
    remark: str
    svg: str


class Plot(NamedTuple):
    """The panels of a plot and how to read them; without panels `caption` is why there is no plot.

    `legend` names the numbers at the marks, from 1: a system, and its values.
    """

    title: str
    caption: str
    panels: tuple[Panel, ...] = ()
    legend: tuple[tuple[str, str], ...] = ()


def explain_lack() -> str:
    """Why nothing can be drawn here, and what to do; empty where plots can be drawn."""
    if find_spec("matplotlib") is not None:
        return ""
    return (
        "no plots: matplotlib is not installed; pip install 'crosslens[report]', and run the experiment again: what is "
        "done is not computed again"
    )


def draw_plots(part: Part) -> list[Plot]:
    """All plots of a collection; none without matplotlib."""
    return [] if explain_lack() else [plot_costs(part), plot_groups(part.table), plot_queries(part.table)]


def plot_costs(part: Part) -> Plot:
    """The first measure of every system against its seconds a query (log), with the front that none beats."""
    table = part.table
    measure = table.measures[0]
    heading = "Quality against cost"
    if len(table.systems) < 2:
        return Plot(heading, "No plot of quality against cost: there is one system.")
    points = {
        system: (outcome.cost.seconds / outcome.queries, table.mean(system, measure))
        for system, outcome in part.outcomes.items()
        if outcome.queries and outcome.cost.seconds > 0
    }
    if len(points) < 2:
        return Plot(heading, "No plot of quality against cost: fewer than two systems have measured seconds.")
    from matplotlib.ticker import LogLocator, NullLocator

    best = find_front(points)
    texts = {
        system: f"{measure} {value:.4f}, {seconds:.4g} seconds a query" for system, (seconds, value) in points.items()
    }
    with svg.open_figure(640, 360) as canvas:
        drawn = svg.add_axes(canvas, left=52, top=24, right=14, bottom=42)
        seconds, values = zip(*points.values(), strict=True)
        pad = 0.12 * (max(values) - min(values)) or 0.02
        drawn.set(xscale="log", xlim=(min(seconds) / 3, max(seconds) * 3), xlabel="seconds a query (log scale)")
        drawn.set_ylim(min(values) - pad, max(values) + pad)
        drawn.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if max(seconds) < 1000 * min(seconds) else (1,)))
        drawn.xaxis.set_major_formatter("{x:g}")
        drawn.xaxis.set_minor_locator(NullLocator())
        drawn.grid()
        drawn.set_title(clean_line(measure), loc="left", fontsize=svg.SIZE)
        drawn.step(*zip(*map(points.get, best), strict=True), where="post", color=INK, lw=1, ls="--", alpha=0.6)
        numbers = defaultdict(list)
        for number, (system, point) in enumerate(points.items(), 1):
            numbers[point].append(str(number))
            colour = INK if system == table.baseline else GAIN if system in best else None
            svg.add_dot(drawn, *point, colour, f"{system}: {texts[system]}")
        for point, each in numbers.items():
            drawn.annotate(", ".join(each), point, (6, 4), textcoords="offset points")
        image = svg.render_svg(canvas, f"{measure} against seconds a query, {len(points)} systems")
    caption = f"The dashed line joins the systems that no other beats in both: {', '.join(best)}."
    if len(best) == 1:
        caption = f"{best[0]} is the best and the fastest."
    if len(best) < len(points):
        caption += " Open dots: another system is at least as good, and takes no longer."
    if table.baseline in points:
        caption += f" The baseline is {table.baseline}: solid, in the colour of the text."
    if without := [system for system in table.systems if system not in points]:
        caption += f" Without measured seconds, and so not drawn: {', '.join(without)}."
    return Plot(heading, caption, (Panel("", "", image),), tuple(texts.items()))


def plot_groups(table: Table) -> Plot:
    """The first measure in every group: a panel a group with a dot a system, all on one scale."""
    measure = table.measures[0]
    heading = "By group"
    groups = table.groups[1:]
    if not groups:
        return Plot(heading, "No plot by group: the queries were not evaluated in groups.")
    if not table.has_groups(measure):
        return Plot(heading, f"No plot per {table.per}: {measure} compares languages and has no value within one.")
    most = sorted(groups, key=lambda group: -table.counts[group])[:MOST_GROUPS]
    shown = [group for group in groups if group in most]
    keys = [(system, measure, group) for group in shown for system in table.systems]
    spread = [table.means[key] for key in keys]
    spread += [end for key in keys for end in (table.intervals or {}).get(key, ()) if not math.isnan(end)]
    pad = 0.06 * (max(spread) - min(spread)) or 0.02
    limits = (min(spread) - pad, max(spread) + pad)
    if len(table.systems) == 1:
        rows = {(table.systems[0], measure, group): group for group in shown}
        panels = [Panel(table.systems[0], "", _draw_dots(table, rows, limits, f"{measure} per {table.per}"))]
    else:
        panels = []
        for group in shown:
            rows = {(system, measure, group): system for system in table.systems}
            image = _draw_dots(table, rows, limits, f"{measure} of {len(rows)} systems, {table.per} {group}")
            panels.append(Panel(group, f"{table.counts[group]} queries", image))
    caption = f"{measure} per {table.per}"
    if table.baseline is not None and len(table.systems) > 1:
        caption += (
            f"; the dashed line and the solid dot are the baseline, {table.baseline}. In colour: significantly better "
            f"(blue) or worse (orange) over the queries of the group; open: no significant difference"
        )
    if table.intervals is not None:
        caption += f". Lines are {table.level:.0%} intervals of the means"
    if len(shown) < len(groups):
        caption += f". Drawn are the {len(shown)} groups with the most queries of {len(groups)}; the table has all"
    return Plot(heading, caption + ".", tuple(panels))


def plot_queries(table: Table) -> Plot:
    """The first measure's difference to the baseline for every query, sorted: a panel for each other system."""
    measure, baseline = table.measures[0], table.baseline
    heading = "By query"
    if len(table.systems) < 2:
        return Plot(heading, "No plot of differences by query: there is one system.")
    if baseline is None:
        return Plot(heading, "No plot of differences by query: the experiment has no baseline.")
    base = table.values[baseline][measure]
    values = {system: table.values[system][measure] for system in table.systems if system != baseline}
    differences = {
        system: sorted(((of[query] - base[query], query) for query in base), reverse=True)
        for system, of in values.items()
    }
    most = max(abs(difference) for of in differences.values() for difference, _ in of) or 0.05
    panels = []
    for system, of in differences.items():
        comparison = table.comparison(system, measure)
        assert comparison is not None
        same = len(of) - comparison.better - comparison.worse
        remark = f"{comparison.better} better, {comparison.worse} worse, {same} the same"
        titles = [f"{query}: {values[system][query]:.4f}, baseline {base[query]:.4f}" for _, query in of]
        label = f"{measure} of {system} minus {baseline} for {len(of)} queries: {remark}"
        panels.append(Panel(system, remark, _draw_bars([difference for difference, _ in of], titles, most, label)))
    caption = (
        f"{measure} minus that of {baseline}, a bar for each query, the largest gain first. Point at a bar for its "
        f"query and both values."
    )
    return Plot(heading, caption, tuple(panels))


def find_front(points: dict[str, tuple[float, float]]) -> list[str]:
    """Of systems at (seconds, quality) those that no other equals in one and beats in the other, fastest first."""
    best: list[str] = []
    for name in sorted(points, key=lambda name: (points[name][0], -points[name][1])):
        if not best or points[name][1] > points[best[-1]][1]:
            best.append(name)
    return best


def _draw_dots(table: Table, rows: Mapping[tuple[str, str, str], str], limits: tuple[float, float], label: str) -> str:
    """The means of (system, measure, group), each on a line of its own with a name, on a scale of these limits."""
    names = [svg.shorten(name, 150) for name in rows.values()]
    with svg.open_figure(PANEL, 30 + ROW * len(rows)) as canvas:
        drawn = svg.add_axes(canvas, left=12 + max(map(svg.estimate_width, names)), top=4, right=10, bottom=24)
        drawn.set(xlim=limits, ylim=(len(rows) - 0.5, -0.5), yticks=range(len(rows)), yticklabels=names)
        drawn.locator_params(axis="x", nbins=5)
        drawn.spines["left"].set_visible(False)
        drawn.grid(axis="x")
        for place, key in enumerate(rows):
            system, _, group = key
            if system == table.baseline and len(table.systems) > 1:
                drawn.axvline(table.means[key], color=INK, lw=1, ls="--", alpha=0.6)
            if not math.isnan((ends := (table.intervals or {}).get(key, (math.nan, math.nan)))[0]):
                drawn.plot(ends, (place, place), color=INK, lw=1.5, alpha=0.45)
            title = f"{group}, {system}: {table.cell(*key).text}"
            comparison = table.comparison(*key)
            if comparison is not None and not math.isnan(comparison.corrected):
                title += f", {comparison.difference:+.4f}, corrected p {comparison.corrected:.4f}"
            colour = _choose_colour(comparison, system == table.baseline)
            svg.add_dot(drawn, table.means[key], place, colour, title)
        return svg.render_svg(canvas, label)


def _choose_colour(comparison: Comparison | None, is_baseline: bool) -> str | None:
    """None, an open dot, for what does not differ from the baseline."""
    if comparison is None:
        return INK if is_baseline else GAIN
    if not comparison.significant:
        return None
    return GAIN if comparison.difference > 0 else LOSS


def _draw_bars(heights: Sequence[float], titles: Sequence[str], most: float, label: str) -> str:
    """A bar for each height and its title, side by side, on a scale from -`most` to `most`; zero is a thin one."""
    with svg.open_figure(PANEL, 180) as canvas:
        drawn = svg.add_axes(canvas, left=42, top=6, right=6, bottom=8)
        drawn.set(xlim=(0.5, len(heights) + 0.5), ylim=(-1.05 * most, 1.05 * most), xticks=[])
        drawn.locator_params(axis="y", nbins=5)
        drawn.spines["bottom"].set_visible(False)
        drawn.grid(axis="y")
        drawn.axhline(0, color=INK, lw=0.8)
        svg.add_bars(drawn, heights, titles)
        return svg.render_svg(canvas, label)
