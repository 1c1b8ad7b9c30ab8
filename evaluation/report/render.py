"""The report of an experiment: sentences, grids and plots in templates: Markdown, LaTeX, and one HTML page."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import chain, count
from pathlib import Path
from typing import Any

import jinja2

from ...files import write_atomically, write_json, write_size
from ...media.language_codes import find_language
from ..experiment.results import Part, Results
from ..grids import PREAMBLE, Cell, Grid, clean_line, escape_markdown, format_latex, format_p
from ..table import ALL, Table
from .plots import draw_plots, explain_lack

TEMPLATES = ("tables.md", "tables.tex", "report.html")
MOST_LANGUAGES = 12  # named in a sentence
COSTS_NOTE = (
    "seconds, calls and tokens are those of the time when a stage was computed, reused or not; the making of indexes "
    "is not in them"
)


def write_report(results: Results, out: Path) -> None:
    """Write results.json, tables.md, tables.tex and report.html into `out`, each in one piece.

    Without matplotlib the page has no plots, and says how to get them.
    """
    write_json(out / "results.json", results.to_json())
    for name in TEMPLATES:
        with write_atomically(out / name) as file:
            file.write(render_report(results, name))


def render_report(results: Results, template: str) -> str:
    r"""One of `TEMPLATES`, the same bytes each time.

    `tables.md` and `tables.tex`, to `\input` (booktabs), have the summary, and for each collection what it is, its
    tables, p-values and costs; then the plan and the versions. The page has plots too, as inline SVG; no network, no
    script. Its links to runs are relative: it stands where `results.json` does.
    """
    engine = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=jinja2.select_autoescape(["html"]),
        keep_trailing_newline=True, lstrip_blocks=True, trim_blocks=True, undefined=jinja2.StrictUndefined,
    )  # fmt: skip
    engine.filters |= {"line": clean_line, "markdown": escape_markdown}
    shared = (describe_collection, describe_results, draw_plots, explain_lack, format_latex)
    engine.globals |= {"preamble": PREAMBLE, **{each.__name__: each for each in shared}}
    titles = shorten_names(part.collection for part in results.parts)
    anchors = make_anchors(titles[part.collection] for part in results.parts)
    return engine.get_template(template).render(
        results=results,
        summary=summarise(results),
        addresses={titles[part.collection]: f"#{anchor}" for part, anchor in zip(results.parts, anchors, strict=True)},
        sections=[
            _section(part, titles[part.collection], anchor) for part, anchor in zip(results.parts, anchors, strict=True)
        ],
        background={"plan": list_settings(results.plan), "provenance": list_settings(results.provenance)},
    )


def make_anchors(names: Iterable[str]) -> list[str]:
    """A distinct id for each name, readable in an address: `a & b` becomes `a-b`, a second one `a-b-2`."""
    anchors: list[str] = []
    for name in names:
        stem = re.sub(r"\W+", "-", name.casefold()).strip("-_") or "x"
        numbered = (f"{stem}-{number}" for number in count(2))
        anchors.append(next(anchor for anchor in chain([stem], numbered) if anchor not in anchors))
    return anchors


def shorten_names(names: Iterable[str]) -> dict[str, str]:
    """What each collection is called in a report: its name without the directories that its files lie in.

    Where two would be called alike, both keep their whole names.
    """
    listed = list(names)
    short = {name: re.sub(r"(?:[^/?:=&]*/)+(?=[^/?&])", "", name.rstrip("/")) or name for name in listed}
    return {name: short[name] if list(short.values()).count(short[name]) == 1 else name for name in listed}


def list_settings(values: Mapping[str, object], within: str = "") -> list[tuple[str, str]]:
    """Settings as names and texts, those in tables one by one; what is empty is left out."""
    listed: list[tuple[str, str]] = []
    for key, value in values.items():
        name = f"{within}{key}"
        if isinstance(value, Mapping):
            listed += list_settings(value, f"{name}: ")
        elif value not in (None, "", [], ()):
            listed.append((name, _show(value)))
    return listed


def summarise(results: Results) -> Grid | None:
    """Systems by collections, the first measure of each; None where there is one collection."""
    if len(results.parts) < 2:
        return None
    titles = shorten_names(part.collection for part in results.parts)
    measures = {titles[part.collection]: part.table.measures[0] for part in results.parts}
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
    return sentences + [_describe_index(index) for index in part.indexes]


def _describe_index(index: Mapping[str, Any]) -> str:
    """An index in a sentence: of what, by what, and what it took."""
    encoders = _show(index.get("encoders") or ["full text alone"])
    facts = [f"Index of {_count_documents(index)} by {encoders}, {index.get('kind', 'lance')}"]
    if isinstance(passages := index.get("passages"), Mapping):
        facts.append(f"in {passages.get('count', 0):,} passages of {passages.get('window')} tokens")
    if isinstance(seconds := index.get("seconds"), int | float):
        facts.append(f"made in {seconds:,.1f} s" + " (resumed)" * bool(index.get("resumed")))
    if isinstance(cached := index.get("cached"), int) and cached:
        facts.append(f"{cached:,} vectors from the cache")
    if isinstance(size := index.get("bytes"), int):
        facts.append(write_size(size))
    return ", ".join(facts)


def _count_documents(index: Mapping[str, Any]) -> str:
    return count_nouns(int(index.get("documents", 0)), "document")


def tabulate_differences(table: Table, measure: str) -> list[Grid]:
    """The differences of a measure to the baseline: with p-values, and by group where there are groups."""
    if not table.comparisons:
        return []
    title, head = f"{measure} against {table.baseline}", ("system", "difference", "p", "corrected p")
    others = [system for system in table.systems if system != table.baseline]
    rows = []
    for system in others:
        found = table.comparisons[system, measure]
        numbers = (f"{found.difference:+.4f}", format_p(found.p), format_p(found.corrected))
        counts = (found.better, found.equal, found.worse)
        rows.append(tuple(map(Cell, (system, *numbers, *map(str, counts)))))
    grids = [Grid(title, (*head, "better", "equal", "worse"), tuple(rows))]
    if table.has_groups(measure):
        groups = table.groups[1:]
        rows = []
        for system in others:
            compared = (table.comparison(system, measure, group) for group in groups)
            cells = (f"{c.difference:+.4f} ({format_p(c.corrected)})" if c is not None else "–" for c in compared)
            rows.append(tuple(map(Cell, (system, *cells))))
        columns = ("system", *(f"{group} ({table.counts[group]})" for group in groups))
        grids.append(Grid(f"{title} per {table.per}: difference (corrected p)", columns, tuple(rows)))
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


def count_nouns(count: int, one: str, several: str = "") -> str:
    """`1 query`, `2 queries`."""
    return f"{count:,} {one if count == 1 else several or one + 's'}"


def _section(part: Part, title: str, anchor: str) -> dict[str, object]:
    """What templates show of a collection; the page folds away all but the first measure."""
    measures = part.table.measures
    grids = list(part.table.grids())
    differences = [tabulate_differences(part.table, measure) for measure in measures]
    later = {f"{measure} per {part.table.per}" for measure in measures[1:]}
    anchors = zip(part.outcomes, make_anchors(part.outcomes), strict=True)
    return {
        "part": part,
        "title": title,
        "anchor": anchor,
        "label": f"tab:{re.sub('[^a-z0-9]+', '-', anchor).strip('-') or 'collection'}",
        "links": {system: f"#{anchor}--{each}" for system, each in anchors},
        "grids": [grid for grid in grids if grid.title not in later],
        "differences": differences,
        "folded": [
            *(grid for grid in grids if grid.title in later),
            *(grid for each in differences[1:] for grid in each),
        ],
        "costs": tabulate_costs(part),
    }


def _show_first(table: Table, system: str) -> Cell:
    known = system in table.systems
    return table.cell(system, table.measures[0], intervals=False) if known else Cell("–")


def _list_languages(langs: Mapping[str, int]) -> str:
    """`: 15,000 rus, 13,000 zho`, the largest first."""
    counted: Counter[str] = Counter()
    for lang, number in langs.items():  # as collections write them: `zh`, `zho`
        counted[find_language(lang) or lang if lang else ""] += number
    ordered = sorted(counted.items(), key=lambda each: (-each[1], each[0]))
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
