"""Figures of matplotlib as SVG that stands in a page: its fonts and colours, no ids, the same bytes each time."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from rich.cells import cell_len

from ..grids import clean_line

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Colours to draw with, which stand for those of the page: it may set the variables, and has other ones for dark mode.
INK, GAIN, LOSS = "#010203", "#010204", "#010205"
_PAINTS = {INK: "currentColor", GAIN: "var(--gain, #2468b4)", LOSS: "var(--loss, #c2571a)"}
SIZE = 10.0  # of the letters, in points
RADIUS = 4.0  # of dots
_STYLE = {
    "svg.fonttype": "none",  # text stays text: the browser has fonts for every script
    "svg.hashsalt": "crosslens",
    "text.parse_math": False,  # a $ in a name is a $
    "axes.formatter.useoffset": False,
    "font.size": SIZE,
    "axes.labelsize": SIZE,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.alpha": 0.2,
    **dict.fromkeys(("axes.facecolor", "figure.facecolor", "savefig.facecolor"), "none"),
    **dict.fromkeys(
        ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color", "grid.color"), INK
    ),
}  # fmt: skip
_SVG = "{http://www.w3.org/2000/svg}"


@contextmanager
def open_figure(width: float, height: float) -> Iterator[Figure]:
    """A figure of so many points, to be drawn and rendered within the block."""
    import matplotlib.style
    from matplotlib.figure import Figure

    with matplotlib.style.context(["default", _STYLE]), warnings.catch_warnings():
        # matplotlib's font lacks many scripts; it only measures with it, and the browser's fonts write.
        warnings.filterwarnings("ignore", message="Glyph .* missing", category=UserWarning)
        yield Figure(figsize=(width / 72, height / 72), dpi=72)


def add_axes(figure: Figure, left: float, top: float, right: float, bottom: float) -> Axes:
    """Axes with margins in points."""
    width, height = figure.get_size_inches() * 72
    box = (left / width, bottom / height, (width - left - right) / width, (height - top - bottom) / height)
    axes = figure.add_axes(box)
    axes.tick_params(which="both", length=0)
    return axes


def add_dot(axes: Axes, x: float, y: float, colour: str | None, title: str) -> None:
    """A dot with a tooltip; without a colour an open one."""
    axes.scatter(
        x, y, (2 * RADIUS) ** 2, facecolor=colour or "none", edgecolor=colour or INK, linewidth=1.3, zorder=3,
        urls=[clean_line(title)],
    )  # fmt: skip


def add_bars(axes: Axes, heights: Sequence[float], titles: Sequence[str]) -> None:
    """Bars at 1, 2, ... with tooltips, in the colours of gain and loss; one without height is a thin line."""
    from matplotlib.collections import PolyCollection

    half = 0.425 if len(heights) < 100 else 0.5  # without a gap where they are many
    axes.add_collection(
        PolyCollection(
            [[(x - half, 0), (x - half, y), (x + half, y), (x + half, 0)] for x, y in enumerate(heights, 1)],
            facecolors=[GAIN if height > 0 else LOSS for height in heights],
            edgecolors=INK,
            linewidths=[0.0 if height else 1.5 for height in heights],
            urls=[clean_line(title) for title in titles],
        )
    )


def render_svg(figure: Figure, label: str) -> str:
    """The figure as one `<svg>` element, in the colour and font of the text around it; `label` says what it shows."""
    drawn = io.BytesIO()
    figure.savefig(drawn, format="svg", metadata={"Date": None})
    text = " ".join(drawn.getvalue().decode().split())
    for colour, paint in _PAINTS.items():
        text = text.replace(colour, paint)
    root = ElementTree.fromstring(text)
    for element in list(root.iter()):
        for child in list(element):
            # A style sheet would hold for the whole page. Everything lies within its axes: no clipping.
            if child.tag in (f"{_SVG}metadata", f"{_SVG}defs"):
                element.remove(child)
        _clean(element)
    root.attrib = {
        "viewBox": root.attrib["viewBox"],
        "role": "img",
        "aria-label": clean_line(label),
        "style": "stroke-linejoin: round; pointer-events: all",
    }
    ElementTree.register_namespace("", _SVG[1:-1])
    return ElementTree.tostring(root, encoding="unicode")


def _clean(element: ElementTree.Element) -> None:
    for name in ("id", "clip-path"):
        element.attrib.pop(name, None)
    style = re.sub(r"font-family: [^;]*;? ?", "", element.get("style", ""))
    if element.tag == f"{_SVG}a":  # what matplotlib takes for a link is a tooltip
        element.tag = f"{_SVG}g"
        title = ElementTree.Element(f"{_SVG}title")
        title.text = element.attrib.pop("{http://www.w3.org/1999/xlink}href")
        element.insert(0, title)
    if element.tag == f"{_SVG}use":  # a dot
        element.tag = f"{_SVG}circle"
        element.attrib = {"cx": element.attrib["x"], "cy": element.attrib["y"], "r": f"{RADIUS:g}"}
    if style:
        element.set("style", style)


def estimate_width(text: str) -> float:
    """About how wide a browser writes the text, in points."""
    return SIZE * 0.58 * cell_len(text)


def shorten(text: str, most: float) -> str:
    """The text, its middle left out where it is wider than `most` points: names often differ at the end."""
    text = clean_line(text)
    if estimate_width(text) <= most:
        return text
    for kept in range(len(text) - 1, 1, -1):
        short = f"{text[: (kept + 1) // 2].rstrip()}…{text[len(text) - kept // 2 :].lstrip()}"
        if estimate_width(short) <= most:
            return short
    return "…"
