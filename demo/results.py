"""What the tour of the demo finds, and how people read it: on a terminal, and as a page with every query."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import rich.table
from rich import box
from rich.console import Console
from rich.text import Text

from ..evaluation.significance import LEVEL
from ..evaluation.table import Table
from ..items import Item
from ..runs import Qrels, Run
from .collection import list_photos
from .pages import write_page

SHOWN = 5  # results a query on the page


@dataclass(frozen=True)
class DemoStep:
    """What one system adds to another: the difference in nDCG@10 and its p-value (paired t-test)."""

    system: str
    over: str
    difference: float
    p: float

    @property
    def verdict(self) -> str:
        if self.p >= LEVEL:
            return "no significant difference"
        return "significantly better" if self.difference > 0 else "significantly worse"

    @property
    def p_value(self) -> str:
        """The p-value as people print it."""
        return "p < 0.001" if self.p < 0.001 else f"p = {self.p:.3f}"


@dataclass(frozen=True)
class DemoReport:
    """What the tour found: the table, the steps, one run a system, and the seconds of each part."""

    table: Table
    steps: tuple[DemoStep, ...]
    runs: dict[str, Run]
    qrels: Qrels
    seconds: dict[str, float]
    index: str
    html: str

    def to_json(self) -> dict[str, Any]:
        return {
            "table": self.table.to_json(),
            "steps": [vars(step) | {"verdict": step.verdict} for step in self.steps],
            "seconds": self.seconds,
            "stages": {name: run.manifest.to_json() for name, run in self.runs.items()},
            "index": self.index,
            "html": self.html,
        }

    def print(self, console: Console) -> None:
        """The table, what each stage adds, and the first results of one query of each kind."""
        # Numbers cut short by a narrow terminal would be wrong numbers: better a line that the terminal breaks.
        console.width = max(console.width if console.is_terminal else 0, 120)
        console.print(self._draw_table())
        console.out("\n".join(self._list_lines()), highlight=False)

    def _list_lines(self) -> Iterator[str]:
        yield from self.table.notes()
        yield "What each stage adds, in nDCG@10 over all queries:"
        for step in self.steps:
            yield f"  {step.system} over {step.over}: {step.difference:+.3f} ({step.p_value}): {step.verdict}"
        run = list(self.runs.values())[-1]
        examples = {query.meta["kind"]: query for query in reversed(run.queries)}
        for query in (query for query in run.queries if query is examples[query.meta["kind"]]):
            yield f"\n{query.meta['kind']}: {_describe_query(query)}"
            hits = run[query.id][:3]
            for rank, (hit, item) in enumerate(zip(hits, run.items(query.id)[:3], strict=True), 1):
                grade = self.qrels[query.id].get(hit.id, 0)
                title = item.meta.get("title") or item.meta.get("shows") or ""
                yield f"  {rank}. [{grade}] {item.lang or 'photo'}  {hit.id}  {title}"
        yield (
            f"\nThe reranker reads text only: {int(run.manifest.total('unseen'))} candidates that are photos, "
            "or under photo queries, kept their ranks."
        )
        parts = ", ".join(f"{part} {spent:.1f}" for part, spent in self.seconds.items())
        yield f"{sum(self.seconds.values()):.0f} s: {parts}"
        yield f"Contact sheet: {self.html}   Index: {self.index}"

    def _draw_table(self) -> rich.table.Table:
        """A row a system, for every kind of query both measures; the best of a column is bold."""
        table = self.table
        grid = rich.table.Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
        grid.add_column("system", vertical="bottom", no_wrap=True)
        columns = [(measure, group) for group in table.groups for measure in table.measures]
        for measure, group in columns:
            first, _, rest = group.partition(" ")
            title = (first, rest, f"({table.counts[group]})") if measure == table.measures[0] else ("",) * 3
            grid.add_column("\n".join((*title, measure)), justify="right", no_wrap=True)
        for system in table.systems:
            cells = (
                Text(f"{table.mean(system, *column):.3f}", "bold" if table.cell(system, *column).best else "")
                for column in columns
            )
            grid.add_row(system, *cells)
        return grid


def _describe_query(query: Item) -> str:
    """Its text, its language, and its photo."""
    text = [f"{query.text} ({query.lang})"] if query.text else []
    return " + ".join([*text, *([f"[{query.meta['photo']}]"] if "photo" in query.meta else [])])


def write_contact_sheet(path: Path, report: DemoReport) -> None:
    """Write one self-contained page for the last system of the report, with its pictures as JPEG thumbnails."""
    system, run = list(report.runs.items())[-1]
    kinds: dict[str, list[tuple[object, ...]]] = {}
    for query, hits in run:
        results = zip(hits, run.items(query.id)[:SHOWN], strict=False)
        kinds.setdefault(str(query.meta["kind"]), []).append((query, list(results)))
    write_page(
        path, "contact_sheet.html", report=report, table=report.table, system=system, kinds=kinds, photos=list_photos()
    )
