"""What an experiment found, drawn as inline SVG: quality against cost, means of groups, differences by query."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

from ..experiment.results import Part
from ..grids import one_line
from ..significance import Comparison
from ..table import Table
from .labels import Box, nearest, placed
from .svg import INK, SIZE, Mark, axes, extent, figure, inline, position, shortened

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_GROUPS = 24  # panels; a table holds the others
PANEL = 330.0  # points, about a telephone's width
ROW = 17.0


class Panel(NamedTuple):
    """One `<svg>` with what stands over it: a title (a system or a group; may be empty) and a remark."""

    title: str
    remark: str
    svg: str


class Plot(NamedTuple):
    """The panels of a plot and how to read them; without panels `said` is why there is no plot."""

    panels: tuple[Panel, ...]
    said: str


class Row(NamedTuple):
    """A line of `_dots`: a mean with its interval, if it has one."""

    label: str
    mean: float
    ends: tuple[float, float] | None
    paint: str
    title: str


def quality_against_cost(part: Part) -> Plot:
    """The first measure of every system against its seconds a query (log), with the front that none beats."""
    table = part.table
    measure = table.measures[0]
    points: dict[str, tuple[float, float]] = {}
    for system, outcome in part.outcomes.items():
        if outcome.queries and outcome.cost.seconds > 0 and system in table.systems:
            points[system] = (outcome.cost.seconds / outcome.queries, table.mean(system, measure))
    without = [system for system in table.systems if system not in points]
    if len(table.systems) < 2:
        return Plot((), "no plot of quality against cost: there is one system")
    if len(points) < 2:
        return Plot((), "no plot of quality against cost: fewer than two systems have measured seconds")
    best = _front(points)
    with figure(640, 400) as canvas:
        drawn = axes(canvas, left=52, top=24, right=14, bottom=42)
        seconds, values = zip(*points.values(), strict=True)
        drawn.set_xscale("log")
        drawn.set_xlim(min(seconds) / 1.7, max(seconds) * 1.7)
        ticks = _log_ticks(*drawn.get_xlim())
        drawn.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        drawn.set_xticks([], minor=True)
        pad = 0.12 * (max(values) - min(values)) or 0.02
        drawn.set_ylim(min(values) - pad, max(values) + pad)
        drawn.grid()
        drawn.set_xlabel("seconds a query (log scale)")
        drawn.set_title(one_line(measure), loc="left", fontsize=SIZE)
        if len(best) > 1:
            drawn.step(*zip(*(points[name] for name in best), strict=True), where="post", color=INK, lw=1, ls="--", alpha=0.6)  # fmt: skip
        places = [position(drawn, *point) for point in points.values()]
        names = [shortened(name, 230) for name in points]
        low, high = position(drawn, drawn.get_xlim()[0], drawn.get_ylim()[1]), position(drawn, drawn.get_xlim()[1], drawn.get_ylim()[0])  # fmt: skip
        sizes = [(extent(name), SIZE * 1.25) for name in names]
        steps = _steps([position(drawn, *points[name]) for name in best])
        boxes = placed(places, sizes, Box(*low, *high), radius=5, taken=steps)
        marks = []
        for (system, point), place, name, box in zip(points.items(), places, names, boxes, strict=True):
            _label(canvas, name, box, place)
            paint = "ink" if system == table.baseline else "gain" if system in best else "open"
            title = f"{system}: {measure} {point[1]:.4f}, {point[0]:.4g} seconds a query"
            marks.append(Mark("circle", {"cx": place[0], "cy": place[1], "r": 4.5}, paint, title))
        svg = inline(canvas, marks, f"{measure} against seconds a query, {len(points)} systems")
    said = f"The dashed line joins the systems that no other beats in both: {', '.join(best)}."
    if len(best) == 1:
        said = f"{best[0]} is the best and the fastest."
    if len(best) < len(points):
        said += " Open dots: another system is at least as good, and takes no longer."
    if table.baseline in points:
        said += f" The baseline is {table.baseline}: solid, in the colour of the text."
    if without:
        said += f" Without measured seconds, and so not drawn: {', '.join(without)}."
    return Plot((Panel("", "", svg),), said)


def by_group(table: Table) -> Plot:
    """The first measure in every group: a panel a group with a dot a system, all on one scale."""
    measure = table.measures[0]
    groups = table.groups[1:]
    if not groups:
        return Plot((), "no plot by group: the queries were not evaluated in groups")
    if not table.has_groups(measure):
        return Plot((), f"no plot per {table.per}: {measure} compares languages and has no value within one")
    shown = groups
    if len(groups) > MOST_GROUPS:
        most = sorted(groups, key=lambda group: -table.counts[group])[:MOST_GROUPS]
        shown = tuple(group for group in groups if group in most)
    keys = [(system, measure, group) for group in shown for system in table.systems]
    ends = [(table.intervals or {}).get(key, (math.nan, math.nan)) for key in keys]
    spread = [v for v in (*(table.means[key] for key in keys), *(e for pair in ends for e in pair)) if not math.isnan(v)]  # fmt: skip
    pad = 0.06 * (max(spread) - min(spread)) or 0.02
    limits = (min(spread) - pad, max(spread) + pad)
    if len(table.systems) == 1:
        rows = [_row(table, table.systems[0], measure, group, group) for group in shown]
        panels = [Panel(table.systems[0], "", _dots(rows, limits, None, f"{measure} per {table.per}"))]
    else:
        panels = []
        for group in shown:
            rows = [_row(table, system, measure, group, system) for system in table.systems]
            base = None if table.baseline is None else table.means[table.baseline, measure, group]
            svg = _dots(rows, limits, base, f"{measure} of {len(rows)} systems, {table.per} {group}")
            panels.append(Panel(group, f"{table.counts[group]} queries", svg))
    said = f"{measure} per {table.per}"
    if table.baseline is not None and len(table.systems) > 1:
        said += (
            f"; the dashed line and the solid dot are the baseline, {table.baseline}. In colour: significantly better "
            f"(blue) or worse (orange) over the queries of the group; open: no significant difference"
        )
    if table.intervals is not None:
        said += f". Lines are {table.level:.0%} intervals of the means"
    if len(shown) < len(groups):
        said += (
            f". Drawn are the {len(shown)} groups with the most queries of {len(groups)}; the table has all"
        )
    return Plot(tuple(panels), said + ".")


def by_query(table: Table) -> Plot:
    """The first measure's difference to the baseline for every query, sorted: a panel for each other system."""
    measure, baseline = table.measures[0], table.baseline
    if len(table.systems) < 2:
        return Plot((), "no plot of differences by query: there is one system")
    if baseline is None:
        return Plot((), "no plot of differences by query: the experiment has no baseline")
    base = table.values[baseline][measure]
    others = [system for system in table.systems if system != baseline]
    differences = {
        system: sorted(((table.values[system][measure][query] - base[query], query) for query in base), reverse=True)
        for system in others
    }  # fmt: skip
    most = max(abs(difference) for of in differences.values() for difference, _ in of) or 0.05
    panels = []
    for system, of in differences.items():
        comparison = table.comparison(system, measure)
        assert comparison is not None
        same = len(of) - comparison.better - comparison.worse
        remark = f"{comparison.better} better, {comparison.worse} worse, {same} the same"
        titles = [
            f"{query}: {table.values[system][measure][query]:.4f}, baseline {base[query]:.4f}"
            for _, query in of
        ]
        label = f"{measure} of {system} minus {baseline} for {len(of)} queries: {remark}"
        panels.append(Panel(system, remark, _bars([difference for difference, _ in of], titles, most, label)))
    return Plot(
        tuple(panels),
        f"{measure} minus that of {baseline}, a bar for each query, the largest gain first. Point at a bar for its "
        f"query and both values.",
    )


def _front(points: dict[str, tuple[float, float]]) -> list[str]:
    """The systems that no other equals in one and beats in the other, fastest first (Pareto)."""
    best: list[str] = []
    for name in sorted(points, key=lambda name: (points[name][0], -points[name][1])):
        if not best or points[name][1] > points[best[-1]][1]:
            best.append(name)
    return best


def _steps(corners: Sequence[tuple[float, float]]) -> list[Box]:
    """The lines between the points of a front, first across and then up, as thin boxes."""
    found = []
    for (left, low), (right, high) in pairwise(corners):
        found += [Box(left, low - 1, right, low + 1), Box(right - 1, high, right + 1, low)]
    return found


def _log_ticks(low: float, high: float) -> list[float]:
    """At least three round numbers between the ends, where those differ by a factor of 2.5 or more."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    found: list[float] = []
    for steps in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9)):
        found = [step * 10.0**decade for decade in decades for step in steps]
        found = [tick for tick in found if low <= tick <= high]
        if len(found) >= 3:
            break
    return found[:: math.ceil(len(found) / 8)]


def _label(canvas: Figure, name: str, box: Box, mark: tuple[float, float]) -> None:
    from matplotlib.lines import Line2D

    width, height = canvas.get_size_inches() * 72
    # A label that stands to the left ends at its mark, however wide the browser's font is.
    align, x = ("right", box.right) if box.right < mark[0] else ("left", box.left)
    if box.left < mark[0] < box.right:
        align, x = "center", (box.left + box.right) / 2
    canvas.text(x / width, 1 - (box.bottom - 3) / height, name, ha=align, va="baseline")
    end = nearest(box, *mark)
    if math.dist(end, mark) > 14:
        ends = ((mark[0] / width, end[0] / width), (1 - mark[1] / height, 1 - end[1] / height))
        canvas.add_artist(Line2D(*ends, color=INK, lw=0.7, alpha=0.5))


def _row(table: Table, system: str, measure: str, group: str, label: str) -> Row:
    mean = table.means[system, measure, group]
    ends = (table.intervals or {}).get((system, measure, group))
    if ends is not None and math.isnan(ends[0]):
        ends = None
    comparison = table.comparison(system, measure, group)
    title = f"{group}, {system}: {mean:.4f}" + (f" [{ends[0]:.3f}, {ends[1]:.3f}]" if ends else "")
    if comparison is not None and not math.isnan(comparison.corrected):
        title += f", {comparison.difference:+.4f}, corrected p {comparison.corrected:.4f}"
    return Row(label, mean, ends, _paint(comparison, system == table.baseline), title)


def _paint(comparison: Comparison | None, is_baseline: bool) -> str:
    if comparison is None:
        return "ink" if is_baseline else "gain"
    if not comparison.significant:
        return "open"
    return "gain" if comparison.difference > 0 else "loss"


def _dots(rows: Sequence[Row], limits: tuple[float, float], base: float | None, label: str) -> str:
    """A line for each row, the first on top, on a scale from `limits[0]` to `limits[1]`."""
    names = [shortened(row.label, 150) for row in rows]
    left = 12 + max(map(extent, names))
    with figure(PANEL, 30 + ROW * len(rows)) as canvas:
        drawn = axes(canvas, left=left, top=4, right=10, bottom=24)
        drawn.set_xlim(*limits)
        drawn.set_ylim(len(rows) - 0.5, -0.5)
        drawn.set_yticks(range(len(rows)), names)
        drawn.locator_params(axis="x", nbins=5)
        drawn.spines["left"].set_visible(False)
        drawn.grid(axis="x")
        if base is not None:
            drawn.axvline(base, color=INK, lw=1, ls="--", alpha=0.6)
        for place, row in enumerate(rows):
            if row.ends is not None:
                drawn.plot(row.ends, (place, place), color=INK, lw=1.5, alpha=0.45)
        marks = []
        for place, row in enumerate(rows):
            x, y = position(drawn, row.mean, place)
            marks.append(Mark("circle", {"cx": x, "cy": y, "r": 4}, row.paint, row.title))
        return inline(canvas, marks, label)


def _bars(differences: Sequence[float], titles: Sequence[str], most: float, label: str) -> str:
    """A bar for each difference, side by side, on a scale from -`most` to `most`; zero is a thin one."""
    with figure(PANEL, 180) as canvas:
        drawn = axes(canvas, left=42, top=6, right=6, bottom=8)
        drawn.set_xlim(0, len(differences))
        drawn.set_ylim(-1.05 * most, 1.05 * most)
        drawn.set_xticks([])
        drawn.locator_params(axis="y", nbins=5)
        drawn.spines["bottom"].set_visible(False)
        drawn.grid(axis="y")
        drawn.axhline(0, color=INK, lw=0.8)
        marks = []
        for place, (difference, title) in enumerate(zip(differences, titles, strict=True)):
            left, top = position(drawn, place, max(difference, 0))
            right, bottom = position(drawn, place + 1, min(difference, 0))
            if difference == 0:
                top, bottom = top - 0.75, bottom + 0.75
            gap = 0.15 * (right - left) if right - left > 3 else 0  # bars without a gap where they are many
            geometry = {"x": left + gap / 2, "y": top, "width": right - left - gap, "height": bottom - top}
            paint = "gain" if difference > 0 else "loss" if difference < 0 else "ink"
            marks.append(Mark("rect", geometry, paint, title))
        return inline(canvas, marks, label)
