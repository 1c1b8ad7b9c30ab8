"""What a report holds, whatever it is written in: sentences and grids about the collections of an experiment."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping

from ..experiment.results import Outcome, Part, Results
from ..grids import Cell, Grid
from ..significance import Comparison
from ..table import ALL, Table

MOST_LANGUAGES = 12  # named in a sentence


def summary(results: Results) -> Grid | None:
    """Systems by collections, the first measure of each; None where there is one collection."""
    if len(results.parts) < 2:
        return None
    systems = dict.fromkeys(system for part in results.parts for system in part.table.systems)
    measures = {part.table.measures[0] for part in results.parts}
    common = measures.pop() if len(measures) == 1 else None
    head = tuple(
        part.collection if common else f"{part.collection}, {part.table.measures[0]}"
        for part in results.parts
    )
    rows = tuple(
        (Cell(system), *(_first(part.table, system) for part in results.parts)) for system in systems
    )
    marked = any("†" in cell.text for row in rows for cell in row)
    bases = dict.fromkeys(part.table.baseline for part in results.parts if part.table.baseline is not None)
    notes = [f"† differs from {' or '.join(bases)} on the collection; see its own table"] if marked else []
    return Grid(f"{common or 'First measure'} over all queries", ("system", *head), rows, tuple(notes))


def facts(part: Part) -> list[str]:
    """What the collection is, a sentence each: documents, queries, judgements, and its indexes."""
    counts, measured = part.counts, part.table.counts[ALL]
    told = [f"{many(counts.documents, 'document')}{_languages(counts.langs)}"]
    if counts.images:
        told[0] += f"; {many(counts.images, 'image')}"
    told.append(f"{many(counts.queries, 'query', 'queries')}{_languages(part.query_langs)}")
    if measured != counts.queries:
        told[-1] += f"; {measured:,} are judged and measured"
    if counts.judged:
        told.append(f"{many(counts.judged, 'judgement')}, {counts.relevant:,} relevant")
    if counts.skipped:
        told.append(f"{many(counts.skipped, 'bad line')} skipped")
    for index in part.indexes:
        told.append("Index: " + ", ".join(f"{key} {_plain(value)}" for key, value in index.items()))
    return told


def comparisons(table: Table, measure: str) -> list[Grid]:
    """The differences of a measure to the baseline: with p-values, and by group where there are groups."""
    if not table.comparisons:
        return []
    others = [system for system in table.systems if system != table.baseline]
    queries = table.counts[ALL]
    rows = []
    for system in others:
        found = table.comparisons[system, measure]
        numbers = (f"{found.difference:+.4f}", p_value(found.p), p_value(found.corrected))
        counts = (found.better, found.worse, queries - found.better - found.worse)
        rows.append(tuple(map(Cell, (system, *numbers, *map(str, counts)))))
    head = ("system", "difference", "p", "corrected p", "better", "worse", "same")
    grids = [Grid(f"{measure} against {table.baseline}", head, tuple(rows))]
    if len(table.groups) > 1 and table.has_groups(measure):
        groups = table.groups[1:]
        grids.append(
            Grid(
                f"{measure} against {table.baseline} per {table.per}: difference (corrected p)",
                ("system", *(f"{group} ({table.counts[group]})" for group in groups)),
                tuple(
                    (Cell(system), *(Cell(_difference(table.comparison(system, measure, g))) for g in groups))
                    for system in others
                ),
            )
        )
    return grids


def costs(part: Part) -> Grid:
    """What each system took."""
    rows = []
    for system, outcome in part.outcomes.items():
        cost = outcome.cost
        each = f"{cost.seconds / outcome.queries:.4f}" if outcome.queries else "–"
        peak = "–" if cost.peak_bytes is None else f"{cost.peak_bytes / 2**20:,.0f}"
        numbers = (f"{cost.seconds:,.1f}", each, f"{cost.calls:,}", f"{cost.tokens:,}", peak)
        rows.append(tuple(map(Cell, (system, *numbers, str(len(outcome.reused))))))
    head = ("system", "seconds", "seconds a query", "judge calls", "tokens", "peak MiB", "stages reused")
    note = (
        "seconds, calls and tokens are those of the time when a stage was computed, reused or not; the making of "
        "indexes is not in them"
    )
    return Grid("Costs", head, tuple(rows), (note,))


def reused(outcome: Outcome) -> str:
    """What was taken from disk, as a sentence; empty where all was computed."""
    return f"reused: {', '.join(outcome.reused)}" if outcome.reused else ""


def background(results: Results) -> dict[str, str]:
    """The plan, and the versions and the machine, as JSON."""
    told = {"plan": results.plan, "provenance": results.provenance}
    return {
        name: json.dumps(dict(value), ensure_ascii=False, indent=2, default=str)
        for name, value in told.items()
    }


def p_value(p: float) -> str:
    """Four digits; – where there was no test."""
    return "–" if math.isnan(p) else "< 0.0001" if p < 0.0001 else f"{p:.4f}"


def many(count: int, one: str, several: str = "") -> str:
    """`1 query`, `2 queries`."""
    return f"{count:,} {one if count == 1 else several or one + 's'}"


def _first(table: Table, system: str) -> Cell:
    if system not in table.systems:
        return Cell("–")
    measure = table.measures[0]
    mean, compared = table.means[system, measure, ALL], table.comparison(system, measure)
    best = max(table.means[each, measure, ALL] for each in table.systems)
    mark = "†" if compared is not None and compared.significant else ""
    return Cell(f"{mean:.4f}{mark}", len(table.systems) > 1 and mean == best)


def _difference(comparison: Comparison | None) -> str:
    return "–" if comparison is None else f"{comparison.difference:+.4f} ({p_value(comparison.corrected)})"


def _languages(langs: Mapping[str, int]) -> str:
    """`: 15,000 rus, 13,000 zho`, the largest first."""
    ordered = sorted(langs.items(), key=lambda each: (-each[1], each[0]))
    if not ordered:
        return ""
    named = [f"{count:,} {lang or 'of unknown language'}" for lang, count in ordered[:MOST_LANGUAGES]]
    if rest := ordered[MOST_LANGUAGES:]:
        named.append(f"{sum(count for _, count in rest):,} in {len(rest)} more")
    return ": " + ", ".join(named)


def _plain(value: object) -> str:
    if isinstance(value, Mapping):
        return "; ".join(f"{key} {_plain(of)}" for key, of in value.items())
    if isinstance(value, Iterable) and not isinstance(value, str):
        return " + ".join(map(_plain, value))
    if isinstance(value, float):
        return f"{value:,.2f}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
