"""The report of a training, whatever it trained: one page with its curves and what went in, as experiments have it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jinja2

from ..evaluation.grids import clean_line
from ..evaluation.report import svg
from ..files import write_atomically

LACK = "No plots: matplotlib is not installed; pip install 'crosslens[report]'."
HIDDEN = ("curve", "dev", "recipe", "examples", "call")
# What is drawn of the curve, and how it is called; where a training has it.
DRAWN = {
    "loss": "Loss",
    "reward": "Reward",
    "spread": "Spread of rewards",
    "kl": "KL to the base",
    "rate": "Learning rate",
}


def write_training_page(card: Mapping[str, Any], path: Path) -> None:
    """Write the card of a training (`training.json`) as a page; no network, no script.

    Without matplotlib it has no plots, and says how to get them.
    """
    engine = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True, lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )  # fmt: skip
    engine.filters["line"] = clean_line
    counted = {key: value for key, value in card["examples"].items() if not isinstance(value, Mapping)}
    facts = {key: value for key, value in card.items() if key not in HIDDEN} | {"examples": counted}
    tables = {"What came of it": facts, "Recipe": card["recipe"], "Pairs of languages": card["examples"].get("pairs")}
    shown = {name: [(key, _show(value)) for key, value in rows.items()] for name, rows in tables.items() if rows}
    lack = "" if find_spec("matplotlib") else LACK
    with write_atomically(path) as out:
        template = engine.get_template("training.html")
        out.write(template.render(card=card, plots=draw_curves(card), lack=lack, tables=shown))


def draw_curves(card: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Titles and SVG of what changed with the steps: loss, the dev data's measure, and what there is of `DRAWN`."""
    if not find_spec("matplotlib") or not card["curve"]:
        return []
    drawn = []
    for key, title in DRAWN.items():
        if points := [point for point in card["curve"] if key in point]:
            steps = [point["step"] for point in points]
            drawn.append((title, draw_curve(title, steps, [point[key] for point in points])))
    if dev := card["dev"]:
        at = [0, *(check["step"] for check in dev["checks"])]
        values = [dev["base"], *(check["value"] for check in dev["checks"])]
        drawn.insert(1, (f"{dev['measure']} on {dev['collection']}", draw_curve(dev["measure"], at, values, dots=True)))
    return drawn


def draw_curve(what: str, steps: Sequence[int], values: Sequence[float], dots: bool = False) -> str:
    """One curve over the steps as SVG, with dots that name their values if these are few."""
    with svg.open_figure(640, 260) as canvas:
        axes = svg.add_axes(canvas, left=62, top=14, right=14, bottom=42)
        axes.set(xlabel="step", ylabel=clean_line(what))
        axes.grid()
        axes.plot(steps, values, color=svg.GAIN, lw=1.3)
        for step, value in zip(steps, values, strict=True) if dots else ():
            svg.add_dot(axes, step, value, svg.GAIN, f"step {step:.0f}: {value:.4f}")
        return svg.render_svg(canvas, f"{what} over {steps[-1]:.0f} steps")


def _show(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
