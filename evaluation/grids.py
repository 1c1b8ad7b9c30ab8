"""Grids of text as people read them: in Markdown, in LaTeX and on a terminal (HTML is the report's template)."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import count, repeat
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import rich.table

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
PREAMBLE = r"""% needs \usepackage[T1]{fontenc} and \usepackage{booktabs,graphicx}; names beyond Latin letters need
% XeLaTeX or LuaLaTeX with fontspec in place of fontenc, and a font that has them (\setmainfont{Noto Serif CJK SC})
"""


class Cell(NamedTuple):
    """The text of a cell, and whether it is the best of those it is compared with."""

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

    def markdown(self) -> str:
        """Without the notes, and without a line break at the end."""
        lines = [f"**{escape_markdown(self.title)}**", ""] if self.title else []
        lines += ["| " + " | ".join(map(escape_markdown, self.head)) + " |"]
        lines += ["|---" + "|---:" * (len(self.head) - 1) + "|"]
        for row in self.rows:
            cells = (f"{'**' * cell.best}{escape_markdown(cell.text)}{'**' * cell.best}" for cell in row)
            lines.append("| " + " | ".join(cells) + " |")
        return "\n".join(lines)

    def latex(self, caption: str = "", label: str = "") -> str:
        r"""A `table` of booktabs with the notes below it, made smaller where it is wider than the line.

        One with very many columns has them as its rows. See `PREAMBLE` for what it needs of a document.
        """
        if self.width > _LATEX_LINE and (turned := self.transpose()).width < self.width:
            return turned.latex(caption, label)
        lines = [r"\begin{table}[htbp]", r"\centering"]
        if title := ": ".join(text for text in (caption, self.title) if text):
            lines.append(rf"\caption{{{escape_latex(title)}}}")
        if label:
            lines.append(rf"\label{{{label}}}")
        name, ragged = "l", ""
        if max(len(clean_line(text)) for text in (self.head[0], *(row[0].text for row in self.rows))) > _LATEX_NAME:
            name, ragged = (rf"p{{{_LATEX_NAME / 2:g}em}}", r"\raggedright ")  # long names are broken into lines
        lines += [
            r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
            rf"\begin{{tabular}}{{@{{}}{name}{'r' * (len(self.head) - 1)}@{{}}}}",
            r"\toprule",
            " & ".join(map(escape_latex, self.head)) + r" \\",
            r"\midrule",
        ]
        for first, *cells in self.rows:
            texts = (rf"\textbf{{{escape_latex(c.text)}}}" if c.best else escape_latex(c.text) for c in cells)
            lines.append(" & ".join((ragged + escape_latex(first.text), *texts)) + r" \\")
        lines += [r"\bottomrule", r"\end{tabular}}"]
        if self.notes:
            lines += [r"\par\smallskip", r"\begin{minipage}{\linewidth}\footnotesize"]
            lines += [rf"\par {escape_latex(note)}" for note in self.notes]
            lines += [r"\end{minipage}"]
        return "\n".join([*lines, r"\end{table}"])

    def rich(self) -> rich.table.Table:
        """For a terminal: the best of a column bold, names never cut."""
        import rich.table
        from rich.text import Text

        table = rich.table.Table(title=Text(self.title) if self.title else None, title_justify="left")
        table.add_column(Text(self.head[0]), overflow="fold")
        for column in self.head[1:]:
            table.add_column(Text(column), justify="right")
        for row in self.rows:
            table.add_row(*(Text(cell.text, style="bold" if cell.best else "") for cell in row))
        return table

    @property
    def width(self) -> int:
        """About how many letters wide it is printed."""
        columns = zip(self.head, *([cell.text for cell in row] for row in self.rows), strict=True)
        first, *others = (max(map(len, column)) for column in columns)
        return min(first, _LATEX_NAME) + sum(width + 2 for width in others)

    def transpose(self) -> Grid:
        """Rows and columns exchanged."""
        columns = zip(*(row[1:] for row in self.rows), strict=True)
        head = (self.head[0], *(row[0].text for row in self.rows))
        rows = tuple((Cell(name), *column) for name, column in zip(self.head[1:], columns, strict=True))
        return replace(self, head=head, rows=rows)


def format_latex(grids: Iterable[Grid], *, caption: str = "", label: str = "") -> str:
    """All of them; the captions are `caption` and the grid's title, the labels `label`, `label-2`, ..."""
    labels = (f"{label}-{number}" if label and number > 1 else label for number in count(1))
    return "\n\n".join(map(Grid.latex, grids, repeat(caption), labels)) + "\n"


def format_p(p: float) -> str:
    """A p-value with four digits; – where there was no test."""
    return "–" if math.isnan(p) else "< 0.0001" if p < 0.0001 else f"{p:.4f}"


def clean_line(text: str) -> str:
    """The text without line breaks and characters that cannot be printed, white space closed up."""
    return " ".join(_UNPRINTABLE.sub(" ", text).split())


def escape_markdown(text: str) -> str:
    """Text that Markdown shows as it is, in a cell or a heading."""
    return _MARKDOWN.sub(r"\\\g<0>", clean_line(text))


def escape_latex(text: str) -> str:
    """Text that LaTeX shows as it is; † becomes a raised dagger, and the minus of a number a real one."""
    text = _LATEX_SPECIAL.sub(lambda found: _LATEX[found[0]], clean_line(text))
    text = re.sub(r"(?<![\w.)\]}-])-(?=\d)", "$-$", text)
    # A row that begins with [ or * would be read as an argument of the \\ before it.
    return f"{{{text[0]}}}{text[1:]}" if text[:1] in ("[", "*") else text
