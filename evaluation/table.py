"""What an evaluation found: a frozen `Table`, as plain text, in colour, in Markdown, in LaTeX and as JSON."""

from __future__ import annotations

import io
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any

from ..errors import InputError, check_known, list_few
from ..frames import make_frame
from ..multilingual.fairness import UNKNOWN, LanguageShares
from .grids import PREAMBLE, Cell, Grid, escape_markdown, format_latex, format_p
from .measures import parse_measure
from .significance import LEVEL, RESAMPLES, Comparison, Correction, Test

if TYPE_CHECKING:
    import rich.console

ALL = "all"
FEW = 10  # queries; with fewer, means and differences are hardly more than chance
DEEPEST = 1000  # hits a topic that TREC's tracks take
WIDE = 10**5  # columns of paper, where nobody's terminal breaks lines
TESTS = {"t": "paired t-test", "randomisation": "paired randomisation test"}

Key = tuple[str, str, str]  # system, measure, group
Values = Mapping[str, Mapping[str, Mapping[str, float]]]  # system -> measure -> query -> value


@dataclass(frozen=True)
class Table:
    """What `evaluate` found.

    `means` maps (system, measure, group) to the mean over the group's queries, the group `all` holding every query of
    the qrels. `values` maps system, measure and query to the value. `lacking` names, by system, the judged queries
    without a hit, which count as zero; `unjudged` those that the qrels do not have and that do not count; `deep` those
    with more than 1,000 hits. `comparisons` maps (system, measure) to the test against the `baseline` over all queries,
    `group_comparisons` (system, measure, group) to that over the queries of a group. `intervals` maps (system, measure,
    group) to the ends of the mean's bootstrap interval at the confidence `level`. `shares` has each language's share of
    the top where the table is per document language. `alike` names systems that rank alike, a sentence each.
    """

    systems: tuple[str, ...]
    measures: tuple[str, ...]
    groups: tuple[str, ...]
    per: str | None
    counts: Mapping[str, int]
    means: Mapping[Key, float]
    values: Values
    lacking: Mapping[str, tuple[str, ...]]
    unjudged: Mapping[str, tuple[str, ...]]
    baseline: str | None = None
    test: Test = "t"
    comparisons: Mapping[tuple[str, str], Comparison] | None = None
    correction: Correction = "holm"
    intervals: Mapping[Key, tuple[float, float]] | None = None
    level: float | None = None
    seed: int = 0
    shares: LanguageShares | None = None
    deep: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    group_comparisons: Mapping[Key, Comparison] = field(default_factory=dict)
    alike: tuple[str, ...] = ()

    def mean(self, system: str, measure: object, group: str = ALL) -> float:
        """`InputError` on an unknown system, measure or group; a measure may go by another name (`MAP`)."""
        measure = str(measure)
        if measure not in self.measures:
            with suppress(InputError):
                measure = str(parse_measure(measure))
        check_known(system, self.systems, "system")
        check_known(measure, self.measures, "measure")
        check_known(group, self.groups, "group")
        return self.means[system, measure, group]

    def comparison(self, system: str, measure: str, group: str = ALL) -> Comparison | None:
        """The test against the baseline; None for the baseline itself, and where there is none or no value."""
        if group == ALL:
            return (self.comparisons or {}).get((system, measure))
        return self.group_comparisons.get((system, measure, group))

    def to_json(self, *, per_query: bool = False) -> dict[str, object]:
        """A dict for JSON; nan becomes None. `per_query` adds every query's value."""
        return {
            "measures": list(self.measures),
            "per": self.per,
            "queries": dict(self.counts),
            "baseline": self.baseline,
            "test": self.test if self.baseline is not None else None,
            "correction": self.correction if self.baseline is not None else None,
            "level": self.level,
            "shares": self.shares.to_json() if self.shares is not None else None,
            "alike": list(self.alike),
            "systems": [replace_nan(self._system_to_json(system, per_query)) for system in self.systems],
        }

    def to_df(self, *, per_query: bool = False) -> Any:
        """A data frame of pandas with a row for each system, measure and group.

        Its columns are `name`, `measure`, `group`, `queries`, `value`; with intervals `low` and `high`, with a baseline
        `difference`, `p`, `corrected`, `better`, `equal` and `worse`, which the baseline has none of. `per_query` gives
        PyTerrier's columns in place of these: `name`, `qid`, `measure`, `value`.
        """
        if per_query:
            values = self.values
            rows = [(s, q, m, v) for s in self.systems for m in self.measures for q, v in values[s][m].items()]
            return make_frame(dict(zip(("name", "qid", "measure", "value"), zip(*rows, strict=True), strict=True)))
        keys = [(s, m, g) for s in self.systems for m in self.measures for g in self.groups]
        columns: dict[str, list[Any]] = dict(
            zip(("name", "measure", "group"), map(list, zip(*keys, strict=True)), strict=True)
        )
        columns["queries"] = [self.counts[group] for _, _, group in keys]
        columns["value"] = [self.means[key] for key in keys]
        if self.intervals is not None:
            columns |= {end: [self.intervals[key][n] for key in keys] for n, end in enumerate(("low", "high"))}
        if self.comparisons is not None:
            compared = [self.comparison(*key) for key in keys]
            names = [each.name for each in fields(Comparison)]
            columns |= {name: [getattr(each, name, None) for each in compared] for name in names}
        return make_frame(columns)

    def markdown(self, *, per_topic: bool = False) -> str:
        """The tables in Markdown: measures over all queries, then a table of groups for each measure.

        With a baseline, a table of the differences to it. `per_topic` adds one of every topic for each measure.
        """
        parts = [grid.markdown() for grid in self._list_grids(per_topic)]
        return "\n\n".join([*parts, *map(escape_markdown, self.notes())]) + "\n"

    def latex(self, *, caption: str = "", label: str = "") -> str:
        """The same tables in LaTeX (booktabs), to `\\input`: see `Grid.latex`."""
        return PREAMBLE + format_latex(self._list_grids(), caption=caption, label=label)

    def __rich__(self, *, per_topic: bool = False) -> rich.console.Group:
        import rich.console
        from rich.text import Text

        tables = (grid.rich() for grid in self._list_grids(per_topic))
        return rich.console.Group(*tables, *map(Text, self.notes()))

    def show(self, *, per_topic: bool = False) -> None:
        """Print the tables on stdout: bold where that is a terminal, plain where it is not."""
        import rich.console

        width = None if sys.stdout.isatty() else WIDE
        rich.console.Console(width=width).print(self.__rich__(per_topic=per_topic))

    def __str__(self) -> str:
        """The tables as plain text, without colour codes."""
        import rich.console

        out = io.StringIO()
        rich.console.Console(file=out, width=WIDE, color_system=None, force_terminal=False).print(self)
        return out.getvalue()

    def grids(self, *, per_topic: bool = False) -> Iterator[Grid]:
        """What is shown: all queries, the groups of each measure, languages' shares, and on demand every topic."""
        head = (f"system ({self.counts[ALL]} queries)", *self.measures)
        rows = self._rows([(measure, ALL) for measure in self.measures])
        yield Grid("", head, rows, tuple(self._explain(counting=True)))
        for measure in filter(self.has_groups, self.measures):
            head = ("system", *(f"{group} ({self.counts[group]})" for group in self.groups))
            rows = self._rows([(measure, group) for group in self.groups])
            yield Grid(f"{measure} per {self.per}", head, rows, tuple(self._explain(groups=True)))
        if self.shares is not None:
            yield self._tabulate_shares(self.shares)
        if per_topic and len(self.systems) == 1:
            yield self._tabulate_topics(self.systems[0], self.measures, self.measures)
        elif per_topic:
            yield from (self._tabulate_topics(measure, (measure,), self.systems) for measure in self.measures)

    def _list_grids(self, per_topic: bool = False) -> Iterator[Grid]:
        """The grids, and after that of all queries the differences to the baseline over these."""
        first, *others = self.grids(per_topic=per_topic)
        yield first
        if self.comparisons:
            yield self._tabulate_differences(self.comparisons)
        yield from others

    def _tabulate_differences(self, comparisons: Mapping[tuple[str, str], Comparison]) -> Grid:
        head = ("system", "measure", "difference", "p", "corrected p", "better", "equal", "worse")
        rows = []
        for (system, measure), found in comparisons.items():
            numbers = (f"{found.difference:+.4f}", format_p(found.p), format_p(found.corrected))
            counts = map(str, (found.better, found.equal, found.worse))
            rows.append(tuple(map(Cell, (system, measure, *numbers, *counts))))
        return Grid(f"against {self.baseline}", head, tuple(rows))

    def has_groups(self, measure: str) -> bool:
        """Whether there are groups and they have means: one language has none of a measure that compares languages."""
        return not all(math.isnan(self.means[self.systems[0], measure, g]) for g in self.groups[1:])

    def notes(self) -> list[str]:
        """What a reader must know beside the numbers, one sentence a line."""
        return list(self._explain(groups=bool(self.group_comparisons), counting=True))

    def _explain(self, *, groups: bool = False, counting: bool = False) -> Iterator[str]:
        """What marks and intervals mean, with `groups` those of groups, with `counting` what is odd about the runs."""
        if self.comparisons:
            test, correction = TESTS[self.test], self.correction.capitalize()
            yield f"† differs from {self.baseline} (two-sided {test}, {correction}-corrected over systems, p < {LEVEL})"
        if self.comparisons and groups:
            yield (
                f"† per {self.per}: tested over the queries of the group alone, and corrected over systems within it, "
                f"not over groups"
            )
            if few := [group for group in self.groups[1:] if self.counts[group] < 2]:
                yield f"one query allows no test: {list_few(few)}"
        if self.intervals is not None:
            yield (
                f"[low, high] is the {self.level:.0%} interval of the mean: percentile bootstrap, "
                f"{RESAMPLES:,} resamples of the queries, seed {self.seed}"
            )
        if not counting:
            return
        if (number := self.counts[ALL]) < FEW:
            yield f"{number} {'query is' if number == 1 else 'queries are'} few: means and differences may be chance"
        yield from self.alike
        for measure in self.measures:
            if measure.startswith("PEER"):
                yield f"{measure} is 1 where languages are ranked alike, however badly"
        if self.shares is not None and UNKNOWN in self.shares.languages:
            yield (
                f"{UNKNOWN}: documents whose language is not known, and which stay in every language's ranking "
                f"(evaluate --langs COLLECTION gives it)"
            )
        for system in self.systems:
            if deep := self.deep.get(system):
                yield (
                    f"{system} has more than {DEEPEST:,} hits for {len(deep)} queries, which TREC's tracks do not "
                    f"take; measures without a cutoff count them all: {list_few(deep)}"
                )
            if lacking := self.lacking[system]:
                yield f"{system} has no hit for {len(lacking)} judged queries, counted as 0: {list_few(lacking)}"
            if unjudged := self.unjudged[system]:
                yield f"{system} has queries without judgements, not counted: {list_few(unjudged)}"

    def _rows(self, columns: Sequence[tuple[str, str]]) -> tuple[tuple[Cell, ...], ...]:
        """A row a system; columns are (measure, group)."""
        return tuple((Cell(s), *(self.cell(s, *column) for column in columns)) for s in self.systems)

    def cell(self, system: str, measure: str, group: str = ALL, *, intervals: bool = True) -> Cell:
        """A mean as it is shown: with its mark, and its interval if there is one."""
        mean = self.means[system, measure, group]
        best = max(self.means[each, measure, group] for each in self.systems)
        compared = self.comparison(system, measure, group)
        mark = "†" if compared is not None and compared.significant else ""
        low, high = (self.intervals or {}).get((system, measure, group), (math.nan, math.nan))
        ends = f" [{low:.3f}, {high:.3f}]" if intervals and not math.isnan(low) else ""
        return Cell(f"{mean:.4f}{mark}{ends}", len(self.systems) > 1 and mean == best)

    def _tabulate_topics(self, what: str, measures: Sequence[str], columns: Sequence[str]) -> Grid:
        """A row a query; the columns are measures of one system, or systems, the best of which is marked."""
        rows = []
        for topic in self.values[self.systems[0]][measures[0]]:
            values = [self.values[system][measure][topic] for system in self.systems for measure in measures]
            best = max(values) if len(self.systems) > 1 and min(values) < max(values) else None
            rows.append((Cell(topic), *(Cell(f"{value:.4f}", value == best) for value in values)))
        return Grid(f"{what} per topic", ("topic", *columns), tuple(rows))

    def _tabulate_shares(self, shares: LanguageShares) -> Grid:
        rows = [("relevant documents", shares.relevant), *shares.top.items()]
        return Grid(
            f"languages among the first {shares.cutoff} hits, mean share over {shares.topics} queries",
            ("", *shares.languages),
            tuple((Cell(name), *(Cell(f"{of.get(lang, 0.0):.4f}") for lang in shares.languages)) for name, of in rows),
        )

    def _system_to_json(self, system: str, per_query: bool) -> dict[str, object]:
        entry: dict[str, object] = {
            "name": system,
            "means": {m: {g: self.means[system, m, g] for g in self.groups} for m in self.measures},
            "lacking": list(self.lacking[system]),
            "unjudged": list(self.unjudged[system]),
            "deep": list(self.deep.get(system, ())),
        }
        if (ends := self.intervals) is not None:
            entry["intervals"] = {m: {g: list(ends[system, m, g]) for g in self.groups} for m in self.measures}
        if self.comparisons is not None and system != self.baseline:
            entry["against_baseline"] = {m: self._comparison_to_json(system, m) for m in self.measures}
        if per_query:
            entry["values"] = {m: dict(self.values[system][m]) for m in self.measures}
        return entry

    def _comparison_to_json(self, system: str, measure: str) -> dict[str, object]:
        """With those within groups where there are groups."""
        compared = {group: self.comparison(system, measure, group) for group in self.groups}
        found = {group: asdict(each) for group, each in compared.items() if each is not None}
        over_all: dict[str, object] = found.pop(ALL)
        return over_all | ({"groups": found} if len(self.groups) > 1 else {})


def replace_nan(value: Any) -> Any:
    """The same for JSON, which has no nan: None in its place, in dicts and lists too."""
    if isinstance(value, dict):
        return {key: replace_nan(each) for key, each in value.items()}
    if isinstance(value, list):
        return [replace_nan(each) for each in value]
    return None if isinstance(value, float) and math.isnan(value) else value
