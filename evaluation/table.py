"""What an evaluation found: a frozen `Table`, as plain text, in colour, in Markdown, in LaTeX and as JSON."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

from ..errors import InputError, list_few, unknown_name
from ..multilingual.fairness import UNKNOWN, LanguageShares
from . import grids
from .grids import Cell, Grid
from .measures import parse_measure
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
    not count; `deep` those with more than 1,000 hits. `comparisons` maps (system, measure) to the test against
    the `baseline` over all queries, `group_comparisons` (system, measure, group) to that over the queries of a
    group. `intervals` maps (system, measure, group) to the ends of the mean's bootstrap interval at the
    confidence `level`. `shares` tells each language's share of the top where the table is per document
    language.
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
    shares: LanguageShares | None = None
    deep: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    group_comparisons: Mapping[tuple[str, str, str], Comparison] = field(default_factory=dict)

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
                raise unknown_name(given, known, what)
        return self.means[system, measure, group]

    def comparison(self, system: str, measure: str, group: str = ALL) -> Comparison | None:
        """The test against the baseline; None for the baseline itself, and where there is none or no value."""
        if group == ALL:
            return (self.comparisons or {}).get((system, measure))
        return self.group_comparisons.get((system, measure, group))

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
                entry["against_baseline"] = {m: self._against(system, m) for m in self.measures}
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
        parts = [grids.markdown(grid) for grid in self.grids(per_topic=per_topic)]
        parts += [grids.escaped_markdown(note) for note in self.notes()]
        return "\n\n".join(parts) + "\n"

    def latex(self, *, caption: str = "", label: str = "") -> str:
        """The same tables in LaTeX (booktabs), to `\\input`: see `grids.latex`."""
        return grids.PREAMBLE + grids.latex(self.grids(), caption=caption, label=label)

    def notes(self) -> list[str]:
        """What a reader must know beside the numbers, one sentence a line."""
        grouped = self._marks(grouped=True) if self.group_comparisons else []
        return [*self._marks(), *grouped, *self._ends(), *self._remarks()]

    def _remarks(self) -> list[str]:
        """What is odd about measures, documents and runs."""
        notes = []
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
                    f"take; measures without a cutoff count them all: {list_few(deep)}"
                )
            if lacking := self.lacking[system]:
                notes.append(
                    f"{system} has no hit for {len(lacking)} judged queries, counted as 0: {list_few(lacking)}"
                )
            if unjudged := self.unjudged[system]:
                notes.append(f"{system} has queries without judgements, not counted: {list_few(unjudged)}")
        return notes

    def __rich__(self) -> rich.console.Group:
        return grids.terminal(self.grids(), self.notes())

    def show(self, *, per_topic: bool = False) -> None:
        """Print the tables on stdout: bold where that is a terminal, plain where it is not."""
        import rich.console

        shown, notes = list(self.grids(per_topic=per_topic)), self.notes()
        width = None if sys.stdout.isatty() else grids.width(shown, notes)
        rich.console.Console(width=width).print(grids.terminal(shown, notes))

    def __str__(self) -> str:
        """The tables as plain text, without colour codes."""
        import io

        import rich.console

        out = io.StringIO()
        width = grids.width(self.grids(), self.notes())
        rich.console.Console(file=out, width=width, color_system=None, force_terminal=False).print(self)
        return out.getvalue()

    def grids(self, *, per_topic: bool = False) -> Iterator[Grid]:
        """What is shown: all queries, the groups of each measure, languages' shares, and on demand every topic."""
        yield Grid(
            "",
            (f"system ({self.counts[ALL]} queries)", *self.measures),
            self._rows([(measure, ALL) for measure in self.measures]),
            (*self._marks(), *self._ends(), *self._remarks()),
        )
        for measure in self.measures if len(self.groups) > 1 else ():
            if self.has_groups(measure):
                yield Grid(
                    f"{measure} per {self.per}",
                    ("system", *(f"{group} ({self.counts[group]})" for group in self.groups)),
                    self._rows([(measure, group) for group in self.groups]),
                    (*self._marks(), *self._marks(grouped=True), *self._ends()),
                )
        if self.shares is not None:
            yield self._shares(self.shares)
        if per_topic and len(self.systems) == 1:
            columns = [(self.systems[0], measure) for measure in self.measures]
            yield Grid(f"{self.systems[0]} per topic", ("topic", *self.measures), self._topics(columns))
        elif per_topic:
            for measure in self.measures:
                columns = [(system, measure) for system in self.systems]
                yield Grid(
                    f"{measure} per topic", ("topic", *self.systems), self._topics(columns, compare=True)
                )

    def has_groups(self, measure: str) -> bool:
        """Whether groups have means: one language alone has none of a measure that compares languages."""
        return not all(math.isnan(self.means[self.systems[0], measure, g]) for g in self.groups[1:])

    def _against(self, system: str, measure: str) -> dict[str, object]:
        """A comparison for JSON, with those within groups where there are groups."""
        told = _comparison(self.comparison(system, measure))
        if len(self.groups) > 1:
            told["groups"] = {
                group: _comparison(found)
                for group in self.groups[1:]
                if (found := self.comparison(system, measure, group)) is not None
            }
        return told

    def _marks(self, *, grouped: bool = False) -> list[str]:
        """What † says in the table over all queries, and what else it says in one of groups."""
        if not self.comparisons:
            return []
        if not grouped:
            name = {"t": "paired t-test", "randomisation": "paired randomisation test"}[self.test]
            correction = self.correction.capitalize()
            return [
                f"† differs from {self.baseline} (two-sided {name}, {correction}-corrected over systems, p < {LEVEL})"
            ]
        notes = [
            f"† per {self.per}: tested over the queries of the group alone, and corrected over systems within it, "
            f"not over groups"
        ]
        if few := [group for group in self.groups[1:] if self.counts[group] < 2]:
            notes.append(f"one query allows no test: {list_few(few)}")
        return notes

    def _ends(self) -> list[str]:
        """What [low, high] says."""
        if self.intervals is None:
            return []
        return [
            f"[low, high] is the {self.level:.0%} interval of the mean: percentile bootstrap, "
            f"{RESAMPLES:,} resamples of the queries, seed {self.seed}"
        ]

    def _rows(self, columns: Sequence[tuple[str, str]]) -> tuple[tuple[Cell, ...], ...]:
        best = {c: max(self.means[system, *c] for system in self.systems) for c in columns}
        rows = []
        for system in self.systems:
            row = [Cell(system)]
            for measure, group in columns:
                mean = self.means[system, measure, group]
                compared = self.comparison(system, measure, group)
                mark = "†" if compared is not None and compared.significant else ""
                ends = "" if self.intervals is None else _interval(*self.intervals[system, measure, group])
                row.append(
                    Cell(f"{mean:.4f}{mark}{ends}", len(self.systems) > 1 and mean == best[measure, group])
                )
            rows.append(tuple(row))
        return tuple(rows)

    def _topics(
        self, columns: Sequence[tuple[str, str]], *, compare: bool = False
    ) -> tuple[tuple[Cell, ...], ...]:
        rows = []
        for topic in self.values[self.systems[0]][self.measures[0]]:
            values = [self.values[system][measure][topic] for system, measure in columns]
            best = max(values) if compare and min(values) < max(values) else None
            rows.append((Cell(topic), *(Cell(f"{value:.4f}", value == best) for value in values)))
        return tuple(rows)

    def _shares(self, shares: LanguageShares) -> Grid:
        rows = [("relevant documents", shares.relevant), *shares.top.items()]
        return Grid(
            f"languages among the first {shares.cutoff} hits, mean share over {shares.topics} queries",
            ("", *shares.languages),
            tuple(
                (Cell(name), *(Cell(f"{of.get(lang, 0.0):.4f}") for lang in shares.languages))
                for name, of in rows
            ),
        )


def _interval(low: float, high: float) -> str:
    return "" if math.isnan(low) else f" [{low:.3f}, {high:.3f}]"


def _comparison(comparison: Comparison | None) -> dict[str, object]:
    return {} if comparison is None else {key: _number(value) for key, value in asdict(comparison).items()}


def _number(value: object) -> object:
    return None if isinstance(value, float) and math.isnan(value) else value
