"""Figures of matplotlib as SVG that stands in a page: its fonts and colours, no ids, the same bytes each time."""

from __future__ import annotations

import io
import re
import unicodedata
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple
from xml.etree import ElementTree

from ..grids import one_line

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SVG = "http://www.w3.org/2000/svg"
INK = "#010203"  # stands for the colour of the page's text
# What marks are painted with; a page may set the variables, and has other ones for dark mode.
PAINTS = {
    "gain": "fill: var(--gain, #2468b4)",
    "loss": "fill: var(--loss, #c2571a)",
    "ink": "fill: currentColor",
    "open": "fill: currentColor; fill-opacity: 0.001; stroke: currentColor; stroke-width: 1.3",
}
SIZE = 10.0  # of the letters, in points
_STYLE = {
    "svg.fonttype": "none",  # text stays text: the browser has fonts for every script
    "svg.hashsalt": "crosslens",
    "text.parse_math": False,  # a $ in a name is a $
    "axes.formatter.useoffset": False,
    "font.size": SIZE,
    "axes.labelsize": SIZE,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "savefig.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.alpha": 0.2,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "xtick.minor.size": 0,
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color", "grid.color"), INK),
}  # fmt: skip


class Mark(NamedTuple):
    """A shape with a tooltip: `shape` is `rect` or `circle`, its geometry in points from the upper left corner."""

    shape: str
    geometry: Mapping[str, float]
    paint: str
    title: str


@contextmanager
def figure(width: float, height: float) -> Iterator[Figure]:
    """A figure of so many points, to be drawn and made `inline` within the block."""
    import matplotlib.style
    from matplotlib.figure import Figure

    with matplotlib.style.context(["default", _STYLE]), warnings.catch_warnings():
        # matplotlib's font lacks many scripts; it only measures with it, and the browser's fonts write.
        warnings.filterwarnings("ignore", message="Glyph .* missing", category=UserWarning)
        yield Figure(figsize=(width / 72, height / 72), dpi=72)


def axes(figure: Figure, left: float, top: float, right: float, bottom: float) -> Axes:
    """Axes with margins in points."""
    width, height = figure.get_size_inches() * 72
    box = (left / width, bottom / height, (width - left - right) / width, (height - top - bottom) / height)
    drawn = figure.add_axes(box)
    drawn.tick_params(which="both", left=False, bottom=False)
    return drawn


def position(axes: Axes, x: float, y: float) -> tuple[float, float]:
    """Where a value lies, in points from the upper left corner."""
    right, up = axes.transData.transform((x, y))
    return float(right), float(axes.figure.bbox.height - up)


def inline(figure: Figure, marks: Sequence[Mark], label: str) -> str:
    """The figure with the marks on top of it, as one `<svg>` element; `label` says what it shows.

    It takes the colour and the font of the text around it.
    """
    drawn = io.BytesIO()
    figure.savefig(drawn, format="svg", metadata={"Date": None})
    root = ElementTree.fromstring(drawn.getvalue())
    for parent in list(root.iter()):
        for child in list(parent):
            # Its style sheet would hold for the whole page. Everything lies within its axes: no clipping.
            if child.tag in (f"{{{SVG}}}metadata", f"{{{SVG}}}defs"):
                parent.remove(child)
    for element in root.iter():
        _cleaned(element)
    root.attrib = {
        "viewBox": root.attrib["viewBox"],
        "role": "img",
        "aria-label": one_line(label),
        "style": "stroke-linejoin: round",
    }
    for paint in dict.fromkeys(mark.paint for mark in marks):
        group = ElementTree.SubElement(root, f"{{{SVG}}}g", {"style": PAINTS[paint]})
        for mark in marks:
            if mark.paint == paint:
                geometry = {key: f"{value:.6g}" for key, value in mark.geometry.items()}
                shape = ElementTree.SubElement(group, f"{{{SVG}}}{mark.shape}", geometry)
                ElementTree.SubElement(shape, f"{{{SVG}}}title").text = one_line(mark.title)
    ElementTree.register_namespace("", SVG)
    return ElementTree.tostring(root, encoding="unicode")


def _cleaned(element: ElementTree.Element) -> None:
    for key in ("id", "clip-path"):
        element.attrib.pop(key, None)
    if element.get("transform", "").startswith("rotate(-0 "):
        del element.attrib["transform"]
    if "d" in element.attrib:
        element.set("d", " ".join(element.attrib["d"].split()))
    if "style" in element.attrib:
        style = re.sub(r"font-family: [^;]*;? ?", "", element.attrib["style"])
        element.set("style", style.replace(INK, "currentColor"))
    for where in ("text", "tail"):
        if not (getattr(element, where) or "").strip():
            setattr(element, where, None)


def extent(text: str, size: float = SIZE) -> float:
    """About how wide a browser writes the text, in points."""
    widths = {"W": 1.0, "F": 1.0}
    return size * sum(
        0.0 if unicodedata.combining(letter) else widths.get(unicodedata.east_asian_width(letter), 0.58)
        for letter in text
    )


def shortened(text: str, most: float, size: float = SIZE) -> str:
    """The text, its middle left out where it is wider than `most` points: names often differ at the end."""
    text = one_line(text)
    if extent(text, size) <= most:
        return text
    for kept in range(len(text) - 1, 1, -1):
        short = f"{text[: (kept + 1) // 2].rstrip()}…{text[len(text) - kept // 2 :].lstrip()}"
        if extent(short, size) <= most:
            return short
    return "…"
