"""How the reranking benchmarks show what they found: tables for people, and quality drawn against cost."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from crosslens.errors import InputError
from crosslens.evaluation.table import Table
from crosslens.files import place_atomically
from measurements import show_p

MEASURE = "nDCG@10"
MEASURES = (MEASURE, "nDCG@20")
FIRST = "first stage"
COSTS = {"seconds": "seconds a query", "prompt_tokens": "prompt tokens computed a query"}
Point = tuple[float, float, str]  # cost, quality, name
SIZE = 8  # of the labels, in points


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows of a table as lines: the first column to the left, numbers to the right."""
    widths = [max(len(row[n]) for row in rows) for n in range(len(rows[0]))]
    return ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip() for row in rows]


def speed_rows(report: Mapping[str, Any]) -> list[list[str]]:
    """What `speed` found, a part a row, under the names of the columns."""
    parts = report["parts"]
    dtypes = list(next(iter(parts.values()))["loops"])
    factors = list(next(iter(parts.values()))["factors"])
    rows = [["part", "queries", "prompts", "rounds", "ours s"]]
    rows[0] += [f"loop {dtype} s" for dtype in dtypes] + [f"x {dtype}" for dtype in dtypes]
    rows[0] += [*factors, "largest difference", "rank correlation"]
    for part, found in parts.items():
        row = [part, *(str(found[count]) for count in ("queries", "prompts", "rounds"))]
        row.append(f"{found['seconds']:.1f}")
        for loop in found["loops"].values():
            error = loop["standard_error"]
            row.append(f"{loop['seconds']:.0f}" + ("" if error is None else f" ±{error:.0f}"))
        row += [f"{loop['ratio']:.1f}" for loop in found["loops"].values()]
        row += [f"{factor:.2f} x" for factor in found["factors"].values()]
        row.append(f"{found['agreement']['float32']['max_difference']:.1g}")
        row.append(str(found["agreement"]["as_run"]["spearman"]))
        rows.append(row)
    return rows


def speed_table(report: Mapping[str, Any]) -> str:
    """What `speed` found, and what its columns are."""
    parts = report["parts"]
    timed = sorted({loop["timed_on"] for found in parts.values() for loop in found["loops"].values()})
    return "\n".join(
        [
            *aligned(speed_rows(report)),
            f"{report['judge']} in {report['dtype']} on {report['device']}, {report['threads']} threads; "
            f"{report['fraction']:.0%} of the queries.",
            f"Ours is timed over all prompts; the loops over random samples of these ({', '.join(map(str, timed))} "
            f"prompts), extrapolated by their number, ± one standard error.",
            "The factors lead from the float32 loop to ours, one after the other: the judge's precision; length-sorted "
            "padded batches;",
            "the language-model head on needed positions and labels only; shared prefixes computed once.",
            "distinct is likelihood where every query has passages of its own, so that no prefix is shared.",
            "Largest difference of log-probabilities: both in float32. Rank correlation: ours as run, the loop in float32.",
            *(f"{'ok    ' if passed else 'MISSED'} {check}" for check, passed in report["checks"].items()),
        ]
    )


def quality_rows(
    records: Mapping[str, Any],
    compared: Table,
    weighted: Mapping[str, str],
    chosen: Mapping[str, float],
    names: Mapping[str, str],
) -> list[list[str]]:
    """Costs a query, the measures and their p, a method a row, under the names of the columns.

    `weighted` are systems with the weight that was `chosen` for their method, whose measures stand beside its own.
    """
    head = ["method", "calls", "batches in all", "prompt tokens", "generated", "seconds", "faults", MEASURE, "p"]
    if weighted:
        head += ["alpha", *(f"{each} {what}" for each in MEASURES for what in ("at alpha", "p"))]
    first = ["" for _ in head]
    first[0], first[head.index(MEASURE)] = FIRST, f"{compared.mean(FIRST, MEASURE):.3f}"
    if weighted:
        for each in MEASURES:
            first[head.index(f"{each} at alpha")] = f"{compared.mean(FIRST, each):.3f}"
    rows = [head, first]
    for name, found in records.items():
        count = found["queries"]
        row = [names[name], f"{found['calls'] / count:.1f}", str(found["rounds"])]
        row += [f"{found[tokens] / count:,.0f}" for tokens in ("prompt_tokens", "generated_tokens")]
        row += [f"{found['seconds'] / count:.2f}", str(found["faults_in_all"]), *_measure(compared, name, MEASURE)]
        if name in weighted:
            row.append(f"{chosen[name]:g}")
            row += [cell for each in MEASURES for cell in _measure(compared, weighted[name], each)]
        rows.append(row + [""] * (len(head) - len(row)))
    return rows


def _measure(compared: Table, system: str, measure: str) -> list[str]:
    """The mean of a system and the corrected p of its difference to the first stage."""
    comparison = compared.comparison(system, measure)
    return [f"{compared.mean(system, measure):.3f}", show_p(comparison.corrected if comparison else None)]


def quality_table(
    records: Mapping[str, Any],
    failed: Mapping[str, str],
    compared: Table,
    weighted: Mapping[str, str],
    chosen: Mapping[str, float],
    ceilings: Mapping[str, Mapping[str, float]],
) -> str:
    """Costs a query and the measures, then means by group."""
    lines = aligned(quality_rows(records, compared, weighted, chosen, {name: name for name in records}))
    lines.append("Calls, tokens and seconds are for a query; batches and faults in the answers in all.")
    lines.append("p: two-sided paired randomisation test against the first stage, Holm-corrected over all systems.")
    lines += ceiling_lines(ceilings)
    lines += [f"{name} failed: {why}" for name, why in failed.items()]
    remarks: dict[str, list[str]] = {}
    for name, found in records.items():
        for remark in found["remarks"]:
            remarks.setdefault(remark, []).append(label(name))
    lines += [f"{', '.join(names)}: {remark}" for remark, names in remarks.items()]
    return "\n".join(lines) + "\n\n" + str(compared)


def ceiling_lines(ceilings: Mapping[str, Mapping[str, float]]) -> list[str]:
    """What an ideal judge would reach, a line a depth."""
    return [
        f"An ideal order of the first {depth} candidates has "
        + " and ".join(f"{measure} {value:.3f}" for measure, value in means.items())
        + "."
        for depth, means in ceilings.items()
    ]


def tune_table(found: Mapping[str, Any], compared: Table) -> str:
    """The curves over the weight, what was chosen, and what it does on the other set."""
    shown = range(0, len(found["alphas"]), 2)
    rows = [["alpha", *(f"{found['alphas'][n]:g}" for n in shown)]]
    rows += [[name, *(f"{curve[n]:.4f}" for n in shown)] for name, curve in found["curves"].items()]
    chosen = found["chosen"]
    lines = aligned(rows)
    lines.append(
        f"chosen on {found['tuned_on']['collection']} ({found['tuned_on']['queries']} queries): {chosen['spec']}, "
        f"fuse={chosen['fuse']}, alpha={chosen['alpha']:g}: {MEASURE} {chosen[MEASURE]:.4f}, "
        f"first stage {found['first_stage_tuned_on']:.4f}"
    )
    lines.append(f"on {found['reported_on']['collection']} ({found['reported_on']['queries']} queries):")
    assert compared.comparisons is not None
    for system in compared.systems[1:]:
        against = compared.comparisons[system, MEASURE]
        lines.append(
            f"  {system}: {against.difference:+.4f} over the first stage, p = {against.corrected:.3f} "
            f"(randomisation, Holm); better on {against.better} and worse on {against.worse} queries"
        )
    return "\n".join(lines) + "\n\n" + str(compared)


def draw(results: Iterable[Mapping[str, Any]], path: Path) -> None:
    """Write a PNG, SVG or PDF, by the ending of `path`: a row of panels for each task among the results.

    `InputError` if there is nothing to draw, if matplotlib is missing, or if it does not know the ending.
    """
    try:
        import matplotlib

        matplotlib.use("agg")
        import matplotlib.pyplot as plt
    except ImportError:
        raise InputError("a plot needs matplotlib: pip install 'crosslens[benchmark]'") from None
    tasks: dict[str, list[Mapping[str, Any]]] = {}
    for found in results:
        tasks.setdefault(json.dumps(found["task"], sort_keys=True), []).append(found)
    if not tasks:
        raise InputError("there are no results to draw")
    figure, axes = plt.subplots(len(tasks), 2, figsize=(13, 5.2 * len(tasks)), sharey="row", squeeze=False)
    known = figure.canvas.get_supported_filetypes()
    if path.suffix.lstrip(".") not in known:
        raise InputError(f"{path}: a plot is written as {', '.join(sorted(known))}")
    labels = []
    for row, found in zip(axes, tasks.values(), strict=True):
        for axis, (cost, title) in zip(row, COSTS.items(), strict=True):
            labels.append((axis, *_panel(axis, found, cost)))
            axis.set_xlabel(title)
        setting = found[0]["task"]
        row[0].set_ylabel(MEASURE)
        row[0].set_title(
            f"{setting['collection']}: {setting['queries']} queries, {setting['first_stage']} first stage, "
            f"depth {setting['depth']}",
            loc="left",
            fontsize=10,
        )
        row[1].set_title(
            ", ".join(sorted({name for each in found for name in each["judge"]})), loc="right", fontsize=10
        )
    figure.tight_layout()
    for axis, points, before in labels:
        _label(axis, points, before)
    try:
        with place_atomically(path) as partial:
            figure.savefig(partial, dpi=150, format=path.suffix.removeprefix(".") or None)
    finally:
        plt.close(figure)


def _panel(axis: Any, found: Sequence[Mapping[str, Any]], cost: str) -> tuple[list[Point], float]:
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    before = found[0][f"{MEASURE} before"]
    shared = find_shared(each["spec"] for each in found)
    # What cost nothing, as all its answers came with another method's, has no place on a logarithmic axis.
    drawn = [each for each in found if each[cost]]
    points = [(each[cost] / each["queries"], each[MEASURE], label(each["spec"], shared)) for each in drawn]
    axis.set_xscale("log")
    axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.axhline(before, color="0.5", linestyle="--", linewidth=1)
    axis.plot([x for x, _, _ in points], [y for _, y, _ in points], "o", color="tab:blue", markersize=5)
    # Room at the right for the label of the rightmost point.
    least, most = min((x for x, _, _ in points), default=1.0), max((x for x, _, _ in points), default=1.0)
    axis.set_xlim(least / 1.6, most * max(4.0, (most / least) ** 0.4))
    axis.margins(y=0.12)
    axis.annotate(
        FIRST, (1, before), xycoords=("axes fraction", "data"), xytext=(-4, 3), textcoords="offset points",
        ha="right", fontsize=SIZE, color="0.4",
    )  # fmt: skip
    axis.grid(True, which="major", linewidth=0.4, alpha=0.6)
    return points, before


def _label(axis: Any, points: Sequence[Point], before: float) -> None:
    """A name right of each point, moved up or down until it covers no other name, point or line."""
    axis.figure.canvas.draw()
    scale = 72 / axis.figure.dpi  # from pixels to points of type
    spots = [tuple(float(value) * scale for value in axis.transData.transform(each[:2])) for each in points]
    line = float(axis.transData.transform((1, before))[1]) * scale
    # Left, right, bottom and top of what is taken.
    taken = [(x - 4, x + 4, y - 4, y + 4) for x, y in spots] + [(-1e9, 1e9, line - 1, line + 1)]
    for (x, y), (at, value, name) in sorted(zip(spots, points, strict=True), key=lambda each: each[0][1]):
        width, height = 0.6 * SIZE * len(name), SIZE
        for move in sorted(range(-90, 91, 2), key=abs):
            box = (x + 8, x + 8 + width, y + move - height / 2, y + move + height / 2)
            if not any(box[0] < r and left < box[1] and box[2] < t and b < box[3] for left, r, b, t in taken):
                break
        taken.append(box)
        axis.annotate(
            name, (at, value), xytext=(8, move), textcoords="offset points", va="center_baseline", fontsize=SIZE,
            arrowprops={"arrowstyle": "-", "linewidth": 0.5, "color": "0.5"} if abs(move) > 6 else None,
        )  # fmt: skip


def find_shared(specs: Iterable[str]) -> set[str]:
    """The options that all SPECs have, those in cascades among them, and the model if they have the same.

    No options where there is one SPEC alone.
    """
    parts = [part.partition("@")[2].partition("?") for spec in specs for part in spec.split(" >> ") if "@" in part]
    options = [set(options.split("&")) for _, _, options in parts]
    models = {f"@{model}" for model, _, _ in parts}
    return (set.intersection(*options) if len(options) > 1 else set()) | (models if len(models) == 1 else set())


def label(spec: str, shared: Collection[str] = ()) -> str:
    """A SPEC without the model and the options that all share: `setwise:heapsort, alpha=0.5`; a cascade with `>>`."""
    if " >> " in spec:
        return " >> ".join(label(part, shared) for part in spec.split(" >> "))
    method, at, rest = spec.partition("@")
    model, _, options = rest.partition("?")
    own = [model] if at and f"@{model}" not in shared else []
    return ", ".join([method, *own, *(each for each in options.split("&") if each and each not in shared)])
