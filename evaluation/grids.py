"""Grids of text as people read them: in Markdown, LaTeX, HTML and on a terminal."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import rich.console

# What XML forbids, and what would break a line of a table.
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufffe\uffff]")
# Where a < would begin a tag, an & an entity, and a _ would begin or end emphasis.
_MARKDOWN = re.compile(r"[\\`*|~$]|<(?=[A-Za-z/!?])|&(?=#|\w+;)|(?<!\w)_|_(?!\w)|(?<=\])(?=\()")
_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{",
    "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}",
    ">": r"\textgreater{}", "|": r"\textbar{}", '"': r"\textquotedbl{}", "`": r"\textasciigrave{}",
    "†": r"$^\dagger$", "-": "-{}",
}  # fmt: skip
_LATEX_SPECIAL = re.compile(r"-(?=-)|[\\&%$#_{}~^<>|\"`†]")  # two hyphens would become a dash
_LATEX_LINE, _LATEX_NAME = 130, 40  # letters of a line made small, and of a name that is not broken
PREAMBLE = r"""% needs \usepackage[T1]{fontenc} and \usepackage{booktabs,graphicx}; names beyond Latin letters need XeLaTeX or
% LuaLaTeX with fontspec in place of fontenc, and a font that has them (\setmainfont{Noto Serif CJK SC})
"""


class Cell(NamedTuple):
    """The text of a cell, and whether it is the best of its column."""

    text: str
    best: bool = False


@dataclass(frozen=True)
class Grid:
    """A table to read: the first column names the rows, the others are numbers and stand to the right.

    `notes` are what the reader must know who sees this grid alone, as in a paper.
    """

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    notes: tuple[str, ...] = ()


def one_line(text: str) -> str:
    """The text without line breaks and characters that cannot be printed, white space closed up."""
    return " ".join(_UNPRINTABLE.sub(" ", text).split())


def escaped_markdown(text: str) -> str:
    """Text that Markdown shows as it is, in a cell or a heading."""
    return _MARKDOWN.sub(r"\\\g<0>", one_line(text))


def escaped_latex(text: str) -> str:
    """Text that LaTeX shows as it is; † becomes a raised dagger, and the minus of a number a real one."""
    text = _LATEX_SPECIAL.sub(lambda found: _LATEX[found[0]], one_line(text))
    text = re.sub(r"(?<![\w.)\]}-])-(?=\d)", "$-$", text)
    # A row that begins with [ or * would be read as an argument of the \\ before it.
    return f"{{{text[0]}}}{text[1:]}" if text[:1] in ("[", "*") else text


def markdown(grid: Grid) -> str:
    """Without the grid's notes, and without a line break at the end."""
    lines = [f"**{escaped_markdown(grid.title)}**", ""] if grid.title else []
    lines += ["| " + " | ".join(map(escaped_markdown, grid.head)) + " |"]
    lines += ["|---" + "|---:" * (len(grid.head) - 1) + "|"]
    for row in grid.rows:
        texts = [
            f"**{escaped_markdown(cell.text)}**" if cell.best else escaped_markdown(cell.text) for cell in row
        ]
        lines.append("| " + " | ".join(texts) + " |")
    return "\n".join(lines)


def latex(grids: Iterable[Grid], *, caption: str = "", label: str = "") -> str:
    """A `table` of booktabs for each grid, its notes below it; one with very many columns becomes several.

    The captions are `caption` and the grid's title; the labels `label`, `label-2`, ... One wider than the line
    is made smaller. `PREAMBLE` is the comment that says what they need of a document.
    """
    parts = []
    for number, grid in enumerate((page for each in grids for page in _pages(each)), 1):
        lines = [r"\begin{table}[htbp]", r"\centering"]
        if title := ": ".join(text for text in (caption, grid.title) if text):
            lines.append(rf"\caption{{{escaped_latex(title)}}}")
        if label:
            lines.append(rf"\label{{{label if number == 1 else f'{label}-{number}'}}}")
        longest = max(len(one_line(text)) for text in (grid.head[0], *(row[0].text for row in grid.rows)))
        # Long names are broken into lines.
        name, ragged = (
            (rf"p{{{_LATEX_NAME / 2:g}em}}", r"\raggedright ") if longest > _LATEX_NAME else ("l", "")
        )
        lines += [
            r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
            rf"\begin{{tabular}}{{@{{}}{name}{'r' * (len(grid.head) - 1)}@{{}}}}",
            r"\toprule",
            " & ".join(map(escaped_latex, grid.head)) + r" \\",
            r"\midrule",
        ]
        for row in grid.rows:
            cells = (
                rf"\textbf{{{escaped_latex(c.text)}}}" if c.best else escaped_latex(c.text) for c in row[1:]
            )
            lines.append(" & ".join((ragged + escaped_latex(row[0].text), *cells)) + r" \\")
        lines += [r"\bottomrule", r"\end{tabular}}"]
        if grid.notes:
            notes = (rf"\par {escaped_latex(note)}" for note in grid.notes)
            lines += [
                r"\par\smallskip",
                r"\begin{minipage}{\linewidth}\footnotesize",
                *notes,
                r"\end{minipage}",
            ]
        lines.append(r"\end{table}")
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


def _pages(grid: Grid) -> list[Grid]:
    """The grid in as many even parts as the width of a page needs, each with the first column."""
    texts = [grid.head, *([cell.text for cell in row] for row in grid.rows)]
    first, *widths = (max(map(len, column)) + 2 for column in zip(*texts, strict=True))
    columns = len(widths)
    parts = min(columns, -(-sum(widths) // (_LATEX_LINE - min(first, _LATEX_NAME))))
    if parts < 2:
        return [grid]
    ends = [1 + columns * part // parts for part in range(parts + 1)]
    return [
        replace(
            grid,
            title=f"{grid.title} ({number} of {parts})".strip(),
            head=(grid.head[0], *grid.head[start:end]),
            rows=tuple((row[0], *row[start:end]) for row in grid.rows),
        )
        for number, (start, end) in enumerate(pairwise(ends), 1)
    ]


def html(grid: Grid, links: Mapping[str, str] | None = None) -> str:
    """A `<table>` with a caption, in a box that scrolls; `links` maps names of rows or columns to addresses."""
    links = links or {}

    def named(text: str) -> str:
        shown = f"<bdi>{escape(one_line(text))}</bdi>"
        return f'<a href="{escape(links[text])}">{shown}</a>' if text in links else shown

    head = "".join(f'<th scope="col">{named(text)}</th>' for text in grid.head)
    rows = "".join(
        f'<tr><th scope="row">{named(row[0].text)}</th>'
        + "".join(f"<td{' class=best' if c.best else ''}>{escape(one_line(c.text))}</td>" for c in row[1:])
        + "</tr>\n"
        for row in grid.rows
    )
    caption = f"<caption>{escape(one_line(grid.title))}</caption>" if grid.title else ""
    return f'<div class="wide"><table>{caption}<thead><tr>{head}</tr></thead>\n<tbody>{rows}</tbody></table></div>'


def terminal(grids: Iterable[Grid], notes: Iterable[str]) -> rich.console.Group:
    """For rich: the best of a column bold, names never cut."""
    import rich.console
    import rich.table
    from rich.text import Text

    parts: list[Any] = []
    for grid in grids:
        table = rich.table.Table(title=Text(grid.title) if grid.title else None, title_justify="left")
        table.add_column(Text(grid.head[0]), overflow="fold")
        for column in grid.head[1:]:
            table.add_column(Text(column), justify="right")
        for row in grid.rows:
            table.add_row(*(Text(cell.text, style="bold" if cell.best else "") for cell in row))
        parts.append(table)
    return rich.console.Group(*parts, *map(Text, notes))


def width(grids: Iterable[Grid], notes: Sequence[str]) -> int:
    """Columns of a terminal enough for every grid and note on lines of their own."""
    lines = [len(note) for note in notes]
    for grid in grids:
        columns = zip(grid.head, *([cell.text for cell in row] for row in grid.rows), strict=True)
        lines += [len(grid.title), 1 + sum(max(map(len, column)) + 3 for column in columns)]
    return max(110, *lines)
