"""What a report holds, whatever it is written in: sentences and grids about the collections of an experiment."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping

from ..experiment.results import Part, Results
from ..grids import Cell, Grid
from ..significance import Comparison
from ..table import ALL, Table

MOST_LANGUAGES = 12  # named in a sentence
COSTS_NOTE = (
    "seconds, calls and tokens are those of the time when a stage was computed, reused or not; the making of indexes "
    "is not in them"
)


def summarise(results: Results) -> Grid | None:
    """Systems by collections, the first measure of each; None where there is one collection."""
    if len(results.parts) < 2:
        return None
    measures = {part.collection: part.table.measures[0] for part in results.parts}
    common = len(set(measures.values())) == 1
    head = (name if common else f"{name}, {measure}" for name, measure in measures.items())
    rows = tuple(
        (Cell(system), *(_show_first(part.table, system) for part in results.parts))
        for system in dict.fromkeys(system for part in results.parts for system in part.table.systems)
    )
    notes = []
    if any("†" in cell.text for row in rows for cell in row):
        baselines = dict.fromkeys(part.table.baseline for part in results.parts if part.table.baseline)
        notes = [f"† differs from {' or '.join(baselines)} on the collection; see its own table"]
    title = results.parts[0].table.measures[0] if common else "First measure"
    return Grid(f"{title} over all queries", ("system", *head), rows, tuple(notes))


def describe_results(results: Results) -> str:
    """How much was compared, and when."""
    systems = len({system for part in results.parts for system in part.table.systems})
    about = f"{count_nouns(systems, 'system')} on {count_nouns(len(results.parts), 'collection')}"
    date = results.provenance.get("date")
    return f"{about}, {date}" if date else about


def describe_collection(part: Part) -> list[str]:
    """What the collection is, a sentence each: documents, queries, judgements, and its indexes."""
    counts, measured = part.counts, part.table.counts[ALL]
    documents = f"{count_nouns(counts.documents, 'document')}{_list_languages(counts.langs)}"
    if counts.images:
        documents += f"; {count_nouns(counts.images, 'image')}"
    queries = f"{count_nouns(counts.queries, 'query', 'queries')}{_list_languages(part.query_langs)}"
    if measured != counts.queries:
        queries += f"; {measured:,} are judged and measured"
    sentences = [documents, queries]
    if counts.judged:
        sentences.append(f"{count_nouns(counts.judged, 'judgement')}, {counts.relevant:,} relevant")
    if counts.skipped:
        sentences.append(f"{count_nouns(counts.skipped, 'bad line')} skipped")
    for index in part.indexes:
        sentences.append("Index: " + ", ".join(f"{key} {_show(value)}" for key, value in index.items()))
    return sentences


def tabulate_differences(table: Table, measure: str) -> list[Grid]:
    """The differences of a measure to the baseline: with p-values, and by group where there are groups."""
    if not table.comparisons:
        return []
    others = [system for system in table.systems if system != table.baseline]
    rows = []
    for system in others:
        found = table.comparisons[system, measure]
        same = table.counts[ALL] - found.better - found.worse
        numbers = (f"{found.difference:+.4f}", format_p(found.p), format_p(found.corrected))
        rows.append(tuple(map(Cell, (system, *numbers, *map(str, (found.better, found.worse, same))))))
    head = ("system", "difference", "p", "corrected p", "better", "worse", "same")
    grids = [Grid(f"{measure} against {table.baseline}", head, tuple(rows))]
    if len(table.groups) > 1 and table.has_groups(measure):
        groups = table.groups[1:]
        title = f"{measure} against {table.baseline} per {table.per}: difference (corrected p)"
        columns = ("system", *(f"{group} ({table.counts[group]})" for group in groups))
        rows = [
            (Cell(system), *(Cell(_show_difference(table.comparison(system, measure, g))) for g in groups))
            for system in others
        ]
        grids.append(Grid(title, columns, tuple(rows)))
    return grids


def tabulate_costs(part: Part) -> Grid:
    """What each system took."""
    rows = []
    for system, outcome in part.outcomes.items():
        cost = outcome.cost
        each = f"{cost.seconds / outcome.queries:.4f}" if outcome.queries else "–"
        peak = "–" if cost.peak_bytes is None else f"{cost.peak_bytes / 2**20:,.0f}"
        numbers = (f"{cost.seconds:,.1f}", each, f"{cost.calls:,}", f"{cost.tokens:,}", peak)
        rows.append(tuple(map(Cell, (system, *numbers, str(len(outcome.reused))))))
    head = ("system", "seconds", "seconds a query", "judge calls", "tokens", "peak MiB", "stages reused")
    return Grid("Costs", head, tuple(rows), (COSTS_NOTE,))


def dump_background(results: Results) -> dict[str, str]:
    """The plan, and the versions and the machine, as JSON."""
    background = {"plan": results.plan, "provenance": results.provenance}
    return {
        name: json.dumps(dict(value), ensure_ascii=False, indent=2, default=str) for name, value in background.items()
    }


def format_p(p: float) -> str:
    """A p-value with four digits; – where there was no test."""
    return "–" if math.isnan(p) else "< 0.0001" if p < 0.0001 else f"{p:.4f}"


def count_nouns(count: int, one: str, several: str = "") -> str:
    """`1 query`, `2 queries`."""
    return f"{count:,} {one if count == 1 else several or one + 's'}"


def _show_first(table: Table, system: str) -> Cell:
    known = system in table.systems
    return table.cell(system, table.measures[0], intervals=False) if known else Cell("–")


def _show_difference(comparison: Comparison | None) -> str:
    return "–" if comparison is None else f"{comparison.difference:+.4f} ({format_p(comparison.corrected)})"


def _list_languages(langs: Mapping[str, int]) -> str:
    """`: 15,000 rus, 13,000 zho`, the largest first."""
    ordered = sorted(langs.items(), key=lambda each: (-each[1], each[0]))
    named = [f"{count:,} {lang or 'of unknown language'}" for lang, count in ordered[:MOST_LANGUAGES]]
    if rest := ordered[MOST_LANGUAGES:]:
        named.append(f"{sum(count for _, count in rest):,} in {len(rest)} more")
    return f": {', '.join(named)}" if named else ""


def _show(value: object) -> str:
    if isinstance(value, Mapping):
        return "; ".join(f"{key} {_show(of)}" for key, of in value.items())
    if isinstance(value, Iterable) and not isinstance(value, str):
        return " + ".join(map(_show, value))
    if isinstance(value, float):
        return f"{value:,.2f}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
