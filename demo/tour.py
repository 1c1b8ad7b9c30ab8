"""`crosslens demo`: index the built-in collection, search it in five ways, evaluate, and show the results."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import rich.table
from rich import box
from rich.console import Console
from rich.text import Text

from ..commands.console import progress, say
from ..encoders.registry import load
from ..evaluation.evaluate import evaluate
from ..evaluation.table import Table
from ..indexes.registry import create_index
from ..items import Item
from ..multilingual.reranking.plan import load_reranker
from ..pipeline import Stage, watch
from ..runs import Qrels, Run
from . import Demo

ENCODERS = ("offline:e5-small", "offline:conse")
MEASURES = ("nDCG@10", "R@10")
LEXICAL, DENSE, CORRECTED, HYBRID, RERANKED = (
    "lexical",
    "dense",
    "dense, language-corrected",
    "hybrid",
    "hybrid + LLM rerank",
)
# What each system adds to which other.
STEPS = ((DENSE, LEXICAL), (CORRECTED, DENSE), (HYBRID, CORRECTED), (RERANKED, HYBRID))
DEPTH = 50


@dataclass(frozen=True)
class WithoutOwnPhoto(Stage):
    """Drops the photo that the asker already holds: a query's `meta["photo"]`."""

    def apply(self, run: Run, count: Counter[str]) -> Run:
        own = {query.id: query.meta.get("photo") for query in run.queries}
        return run.ranking({q: [hit for hit in hits if hit.id != own[q]] for q, hits in run.hits.items()})

    def __str__(self) -> str:
        return "without the query's own photo"


@dataclass(frozen=True)
class Step:
    """What one stage adds to another: the difference in nDCG@10 and its p-value (paired t-test)."""

    system: str
    over: str
    difference: float
    p: float

    @property
    def verdict(self) -> str:
        if self.p >= 0.05:
            return "no significant difference"
        return "earns its place" if self.difference > 0 else "does harm"


@dataclass(frozen=True)
class Report:
    """What the tour found: the table, the steps, one run a system, and the seconds of each part."""

    table: Table
    steps: tuple[Step, ...]
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


def tour(directory: Path, html: Path, *, device: str) -> Report:
    """Run it all; the index stays in `directory`, where the report's runs look their documents up."""
    from .contact_sheet import write

    seconds: dict[str, float] = {}
    collection = Demo()
    counts = collection.check()
    say(
        f"demo: {counts.documents - counts.images} texts in {len(counts.langs)} languages, {counts.images} photos"
    )
    with _timed(seconds, "load encoders"):
        encoders = [load(spec, device=device) for spec in ENCODERS]
    with _timed(seconds, "index"):
        index = create_index(directory, name="demo", device=device)
        with progress("encoding", counts.documents) as bar:
            index.add(collection.docs(), encoders, progress=bar)
        index.build()
    queries = collection.queries()
    own = WithoutOwnPhoto()
    hybrid = index.retriever("hybrid", DEPTH) >> own
    systems: dict[str, tuple[Stage, list[Item]]] = {
        # Full text cannot be asked with a photo alone; those queries count as zero.
        LEXICAL: (index.retriever("lexical", DEPTH) >> own, [query for query in queries if query.text]),
        DENSE: (index.retriever("dense", DEPTH, correct=False) >> own, queries),
        CORRECTED: (index.retriever("dense", DEPTH) >> own, queries),
        HYBRID: (hybrid, queries),
    }
    runs: dict[str, Run] = {}
    for name, (stage, asked) in systems.items():
        with _timed(seconds, name):
            runs[name] = stage(asked)
    with progress("judging") as bar, watch(bar):
        with _timed(seconds, "load judge"):
            judged = load_reranker("default", device=device, unseen="keep")
        with _timed(seconds, RERANKED):
            runs[RERANKED] = judged(runs[HYBRID])
    qrels = collection.qrels()
    table = evaluate(runs, qrels, MEASURES, per="kind", queries=queries)
    steps = tuple(_step(runs, qrels, system, over) for system, over in STEPS)
    report = Report(table, steps, runs, qrels, seconds, str(directory), str(html))
    with _timed(seconds, "write html"):
        write(html, report)
    return report


def show(report: Report) -> None:
    """The table, what each stage adds, and a few results, on stdout."""
    console = Console()
    # Numbers cut short by a narrow terminal would be wrong numbers: better a line that the terminal breaks.
    console.width = max(console.width if console.is_terminal else 0, 120)
    console.print(_overview(report.table))
    for note in report.table.notes():
        print(note)
    print("What each stage adds, in nDCG@10 over all queries:")
    for step in report.steps:
        print(f"  {step.system} over {step.over}: {step.difference:+.3f} ({p_value(step.p)}): {step.verdict}")
    run = report.runs[RERANKED]
    shown: set[object] = set()
    for query, hits in run:
        kind = query.meta["kind"]
        if kind in shown:
            continue
        shown.add(kind)
        print(f"\n{kind}: {asked(query)}")
        for rank, (hit, item) in enumerate(zip(hits[:3], run.items(query.id)[:3], strict=True), 1):
            grade = report.qrels[query.id].get(hit.id, 0)
            print(f"  {rank}. [{grade}] {item.lang or 'photo'}  {hit.id}  {headline(item)}")
    left = int(run.manifest.total("unseen"))
    print(
        f"\nThe reranker reads text only: {left} candidates that are photos, or under photo queries, kept their ranks."
    )
    total = sum(report.seconds.values())
    print(f"{total:.0f} s: " + ", ".join(f"{part} {spent:.1f}" for part, spent in report.seconds.items()))
    print(f"Contact sheet: {report.html}   Index: {report.index}")


def p_value(p: float) -> str:
    """A p-value as people print it."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def asked(query: Item) -> str:
    """A query in a line: its text, its language, and its photo."""
    parts = [f"{query.text} ({query.lang})"] if query.text else []
    return " + ".join([*parts, *([f"[{query.meta['photo']}]"] if "photo" in query.meta else [])])


def headline(item: Item) -> str:
    """A document in a line: its title, or what its photo shows."""
    return str(item.meta.get("title") or item.meta.get("shows") or "")


def _overview(table: Table) -> rich.table.Table:
    """One table: a row a system, for every kind of query both measures; the best of a column is bold."""
    grid = rich.table.Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    grid.add_column("system", vertical="bottom", no_wrap=True)
    columns = [(group, measure) for group in table.groups for measure in table.measures]
    for group, measure in columns:
        first, _, rest = group.partition(" ")
        title = (first, rest, f"({table.counts[group]})") if measure == table.measures[0] else ("", "", "")
        grid.add_column("\n".join((*title, measure)), justify="right", no_wrap=True)
    best = {c: max(table.mean(system, c[1], c[0]) for system in table.systems) for c in columns}
    for system in table.systems:
        means = {c: table.mean(system, c[1], c[0]) for c in columns}
        grid.add_row(
            system, *(Text(f"{mean:.3f}", "bold" if mean == best[c] else "") for c, mean in means.items())
        )
    return grid


def _step(runs: dict[str, Run], qrels: Qrels, system: str, over: str) -> Step:
    found = evaluate({over: runs[over], system: runs[system]}, qrels, ("nDCG@10",), baseline=over)
    assert found.comparisons is not None
    against = found.comparisons[system, "nDCG@10"]
    return Step(system, over, against.difference, against.p)


@contextmanager
def _timed(seconds: dict[str, float], part: str) -> Iterator[None]:
    started = time.perf_counter()
    yield
    seconds[part] = round(time.perf_counter() - started, 2)
