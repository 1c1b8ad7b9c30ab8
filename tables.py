"""What an evaluation found: a frozen `Table`, as plain text, in colour, in Markdown and as JSON."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from .errors import InputError, nearest
from .measures import parse_measure
from .multilingual.fairness import UNKNOWN, Shares
from .runs import some
from .significance import LEVEL, RESAMPLES, Comparison, Correction, Test

if TYPE_CHECKING:
    import rich.console

ALL = "all"
DEEPEST = 1000  # hits a topic that TREC's tracks take

Values = Mapping[str, Mapping[str, Mapping[str, float]]]  # system -> measure -> query -> value


@dataclass(frozen=True)
class Table:
    """What `evaluate` found.

    `means` maps (system, measure, group) to the mean over the group's queries, the group `all` holding every
    query of the qrels. `values` maps system, measure and query to the value. `lacking` names, by system, the
    judged queries without a hit, which count as zero; `unjudged` those that the qrels do not have and that do
    not count; `deep` those with more than 1,000 hits. `intervals` maps (system, measure, group) to the ends
    of the mean's bootstrap interval at the confidence `level`. `shares` tells each language's share of the
    top where the table is per document language.
    """

    systems: tuple[str, ...]
    measures: tuple[str, ...]
    groups: tuple[str, ...]
    per: str | None
    counts: Mapping[str, int]
    means: Mapping[tuple[str, str, str], float]
    values: Mapping[str, Mapping[str, Mapping[str, float]]]
    lacking: Mapping[str, tuple[str, ...]]
    unjudged: Mapping[str, tuple[str, ...]]
    baseline: str | None = None
    test: Test = "t"
    comparisons: Mapping[tuple[str, str], Comparison] | None = None
    correction: Correction = "holm"
    intervals: Mapping[tuple[str, str, str], tuple[float, float]] | None = None
    level: float | None = None
    seed: int = 0
    shares: Shares | None = None
    deep: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def mean(self, system: str, measure: object, group: str = ALL) -> float:
        """`InputError` on an unknown system, measure or group; a measure may go by another name (`MAP`)."""
        measure = str(measure)
        if measure not in self.measures:
            with suppress(InputError):
                measure = str(parse_measure(measure))
        for given, known, what in (
            (system, self.systems, "system"),
            (measure, self.measures, "measure"),
            (group, self.groups, "group"),
        ):
            if given not in known:
                raise nearest(given, known, what)
        return self.means[system, measure, group]

    def to_json(self, *, per_query: bool = False) -> dict[str, object]:
        """A dict for JSON; nan becomes None. `per_query` adds every query's value."""
        systems: list[dict[str, object]] = []
        for system in self.systems:
            entry: dict[str, object] = {
                "name": system,
                "means": {
                    m: {g: _number(self.means[system, m, g]) for g in self.groups} for m in self.measures
                },
                "lacking": list(self.lacking[system]),
                "unjudged": list(self.unjudged[system]),
                "deep": list(self.deep.get(system, ())),
            }
            if self.intervals is not None:
                entry["intervals"] = {
                    m: {g: [_number(end) for end in self.intervals[system, m, g]] for g in self.groups}
                    for m in self.measures
                }
            if self.comparisons is not None and system != self.baseline:
                entry["against_baseline"] = {
                    m: {key: _number(value) for key, value in asdict(self.comparisons[system, m]).items()}
                    for m in self.measures
                }
            if per_query:
                entry["values"] = {m: dict(self.values[system][m]) for m in self.measures}
            systems.append(entry)
        return {
            "measures": list(self.measures),
            "per": self.per,
            "queries": dict(self.counts),
            "baseline": self.baseline,
            "test": self.test if self.baseline is not None else None,
            "correction": self.correction if self.baseline is not None else None,
            "level": self.level,
            "shares": self.shares.to_json() if self.shares is not None else None,
            "systems": systems,
        }

    def markdown(self, *, per_topic: bool = False) -> str:
        """The tables in Markdown: measures over all queries, then a table of groups for each measure.

        `per_topic` adds one of every topic for each measure.
        """
        parts = []
        for title, head, rows in self._tables(per_topic):
            lines = [f"**{_cell(title)}**", ""] if title else []
            lines += ["| " + " | ".join(_cell(h) for h in head) + " |"]
            lines += ["|---" + "|---:" * (len(head) - 1) + "|"]
            for row in rows:
                cells = [_cell(row[0][0]), *(f"**{text}**" if best else text for text, best in row[1:])]
                lines.append("| " + " | ".join(cells) + " |")
            parts.append("\n".join(lines))
        parts += [_cell(note) for note in self.notes()]
        return "\n\n".join(parts) + "\n"

    def notes(self) -> list[str]:
        """What a reader must know beside the numbers, one sentence a line."""
        notes = []
        if self.comparisons:
            name = {"t": "paired t-test", "randomisation": "paired randomisation test"}[self.test]
            correction = self.correction.capitalize()
            notes.append(
                f"† differs from {self.baseline} (two-sided {name}, {correction}-corrected over systems, p < {LEVEL})"
            )
        if self.intervals is not None:
            notes.append(
                f"[low, high] is the {self.level:.0%} interval of the mean: percentile bootstrap, "
                f"{RESAMPLES:,} resamples of the queries, seed {self.seed}"
            )
        for measure in self.measures:
            if measure.startswith("PEER"):
                notes.append(f"{measure} is 1 where languages are ranked alike, however badly")
        if self.shares is not None and UNKNOWN in self.shares.languages:
            notes.append(
                f"{UNKNOWN}: documents whose language nobody tells, and which stay in every language's ranking"
            )
        for system in self.systems:
            if deep := self.deep.get(system):
                notes.append(
                    f"{system} has more than {DEEPEST:,} hits for {len(deep)} queries, which TREC's tracks do not "
                    f"take; measures without a cutoff count them all: {some(deep)}"
                )
            if lacking := self.lacking[system]:
                notes.append(
                    f"{system} has no hit for {len(lacking)} judged queries, counted as 0: {some(lacking)}"
                )
            if unjudged := self.unjudged[system]:
                notes.append(f"{system} has queries without judgements, not counted: {some(unjudged)}")
        return notes

    def __rich__(self) -> rich.console.Group:
        return self._rich(per_topic=False)

    def _rich(self, *, per_topic: bool) -> rich.console.Group:
        import rich.console
        import rich.table
        from rich.text import Text

        parts: list[Any] = []
        for title, head, rows in self._tables(per_topic):
            table = rich.table.Table(title=Text(title) if title else None, title_justify="left")
            table.add_column(Text(head[0]), overflow="fold")
            for column in head[1:]:
                table.add_column(Text(column), justify="right")
            for row in rows:
                table.add_row(*(Text(text, style="bold" if best else "") for text, best in row))
            parts.append(table)
        return rich.console.Group(*parts, *map(Text, self.notes()))

    def show(self, *, per_topic: bool = False) -> None:
        """Print the tables on stdout: bold where that is a terminal, plain where it is not."""
        import rich.console

        width = None if sys.stdout.isatty() else self._width(per_topic)
        rich.console.Console(width=width).print(self._rich(per_topic=per_topic))

    def __str__(self) -> str:
        """The tables as plain text, without colour codes."""
        import io

        import rich.console

        out = io.StringIO()
        rich.console.Console(file=out, width=self._width(), color_system=None, force_terminal=False).print(
            self
        )
        return out.getvalue()

    def _width(self, per_topic: bool = False) -> int:
        """Columns enough for every table and note on lines of their own."""
        lines = [len(note) for note in self.notes()]
        for title, head, rows in self._tables(per_topic):
            cells = [head, *([text for text, _ in row] for row in rows)]
            columns = zip(*cells, strict=True)
            lines += [len(title), 1 + sum(max(map(len, column)) + 3 for column in columns)]
        return max(110, *lines)

    def _tables(
        self, per_topic: bool = False
    ) -> Iterator[tuple[str, list[str], list[list[tuple[str, bool]]]]]:
        """Title, head, and rows of cells; a cell is its text and whether it is the best of its column."""
        queries = f"{self.counts[ALL]} queries"
        yield (
            "",
            [f"system ({queries})", *self.measures],
            self._rows([(measure, ALL) for measure in self.measures]),
        )
        if len(self.groups) > 1:
            head = [f"{group} ({self.counts[group]})" for group in self.groups]
            for measure in self.measures:
                # One language alone has no value of a measure that compares languages.
                if not all(math.isnan(self.means[self.systems[0], measure, g]) for g in self.groups[1:]):
                    rows = self._rows([(measure, group) for group in self.groups])
                    yield f"{measure} per {self.per}", ["system", *head], rows
        if self.shares is not None:
            yield self._shares(self.shares)
        if per_topic and len(self.systems) == 1:
            columns = [(self.systems[0], measure) for measure in self.measures]
            yield f"{self.systems[0]} per topic", ["topic", *self.measures], self._topics(columns)
        elif per_topic:
            for measure in self.measures:
                columns = [(system, measure) for system in self.systems]
                yield f"{measure} per topic", ["topic", *self.systems], self._topics(columns, compare=True)

    def _rows(self, columns: Sequence[tuple[str, str]]) -> list[list[tuple[str, bool]]]:
        best = {c: max(self.means[system, *c] for system in self.systems) for c in columns}
        rows = []
        for system in self.systems:
            row = [(system, False)]
            for measure, group in columns:
                mean = self.means[system, measure, group]
                compared = (self.comparisons or {}).get((system, measure)) if group == ALL else None
                mark = "†" if compared is not None and compared.significant else ""
                ends = "" if self.intervals is None else _interval(*self.intervals[system, measure, group])
                row.append(
                    (f"{mean:.4f}{mark}{ends}", len(self.systems) > 1 and mean == best[measure, group])
                )
            rows.append(row)
        return rows

    def _topics(
        self, columns: Sequence[tuple[str, str]], *, compare: bool = False
    ) -> list[list[tuple[str, bool]]]:
        rows = []
        for topic in self.values[self.systems[0]][self.measures[0]]:
            values = [self.values[system][measure][topic] for system, measure in columns]
            best = max(values) if compare and min(values) < max(values) else None
            rows.append([(topic, False), *((f"{value:.4f}", value == best) for value in values)])
        return rows

    def _shares(self, shares: Shares) -> tuple[str, list[str], list[list[tuple[str, bool]]]]:
        title = f"languages among the first {shares.cutoff} hits, mean share over {shares.topics} queries"
        rows = [("relevant documents", shares.relevant), *shares.top.items()]
        return (
            title,
            ["", *shares.languages],
            [
                [(name, False), *((f"{of.get(lang, 0.0):.4f}", False) for lang in shares.languages)]
                for name, of in rows
            ],
        )


def _interval(low: float, high: float) -> str:
    return "" if math.isnan(low) else f" [{low:.3f}, {high:.3f}]"


def _number(value: object) -> object:
    return None if isinstance(value, float) and math.isnan(value) else value


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())
