"""Rewriting of queries: what each method does for search, and what it costs, against the queries as they are.

    python benchmarks/rewriting.py --collection DIR/test --index DIR.index --out written.jsonl
    python benchmarks/rewriting.py --collection A --index A.index --collection demo --index demo.index --queries 40
    python benchmarks/rewriting.py ... --methods 'query2doc?lang=document,hyde?lang=document' --minutes 4

Each method rewrites the judged text queries of each collection, and these are searched for in each of `--modes`: nDCG@20
over all queries and by language of the documents, with Holm-corrected paired t-tests against the queries as they are; and
the texts, generated tokens and seconds that a query took. What is written is kept (`CROSSLENS_TEXTS`), so that a rerun
writes only what is missing; `--out` keeps what it took. With `--minutes` the writing stops after so long, and the next run
goes on; methods that are not complete are left out of the tables. A smaller sample of queries is part of a larger.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from crosslens.commands.console import progress, run_guarded
from crosslens.errors import InputError
from crosslens.evaluation.evaluate import evaluate
from crosslens.indexes.registry import open_index
from crosslens.items import Item, windows
from crosslens.multilingual.collections.registry import load_collection
from crosslens.multilingual.languages import fill_languages
from crosslens.multilingual.rewriting.base import Rewriter
from crosslens.multilingual.rewriting.plan import load_rewriter
from crosslens.multilingual.rewriting.reading import FAULTS
from crosslens.runs import Manifest, Qrels, Run
from kept_lines import add_out, append_line, read_lines
from measurements import Table, add_save, save, tabulate
from rerank_show import aligned
from rerank_task import drawn

MEASURE = "nDCG@20"
DEPTH = 100
TOGETHER = 16  # queries that are rewritten before the time is looked at
METHODS = (
    "query2doc?lang=document",
    "hyde?lang=document",
    "hyde",
    "keywords?lang=document",
    "question?lang=document",
    "decompose",
    "cot",
    "feedback?lang=document",
)
FIRST = 10  # results of dense search that feedback is given
COSTS = ("calls", "generated_tokens")


def parsed(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--judge", default="offline:qwen-1.5b", metavar="SPEC", help="(%(default)s)")
    parser.add_argument("--collection", action="append", required=True, metavar="NAME", help="several: repeat it")
    parser.add_argument("--index", action="append", required=True, metavar="DIR", help="of each collection, in order")
    parser.add_argument("--methods", type=_names, default=METHODS, metavar="A,B", help=f"({','.join(METHODS)})")
    parser.add_argument("--modes", type=_names, default=("lexical", "dense", "hybrid"), metavar="A,B")
    parser.add_argument("--queries", type=int, default=0, metavar="N", help="at random; 0: all (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of that choice (%(default)s)")
    parser.add_argument("--minutes", type=float, default=0, help="of writing in this run; 0: until it is done")
    add_out(parser)
    parser.add_argument("--device", default="auto")
    add_save(parser)
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout, the tables on stderr")
    options = parser.parse_args(arguments)
    if len(options.collection) != len(options.index):
        parser.error("give as many --index as --collection")
    return options


def _names(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(filter(None, (part.strip() for part in text.split(",")))))


@dataclass
class Clock:
    """When to stop writing."""

    minutes: float
    started: float

    @property
    def over(self) -> bool:
        return self.minutes > 0 and time.monotonic() - self.started > 60 * self.minutes


def write(run: Run, method: str, stage: Rewriter, clock: Clock, options: argparse.Namespace) -> Run | None:
    """The queries rewritten by one method, a few at a time; None where the time was over before all were."""
    probes: dict[str, Any] = {}
    with progress(method, len(run)) as bar:
        for number, part in enumerate(windows(run.queries, TOGETHER)):
            if clock.over:
                print(f"{method}: {number * TOGETHER} of {len(run)} queries are written: run again", file=sys.stderr)
                return None
            made = stage(replace(run, queries=tuple(part), manifest=Manifest()))
            probes |= made.probes
            keep(options, method, made)
            bar(min(len(run), (number + 1) * TOGETHER))
    return Run(run.queries, probes=probes)


def keep(options: argparse.Namespace, method: str, made: Run) -> None:
    """Note what writing took; of texts of which some were there already nobody knows."""
    (record,) = made.manifest.records
    if not record.counts.get("kept"):
        line = {"judge": options.judge, "method": method, "queries": len(made), "seconds": record.seconds}
        append_line(options.out, {**line, "counts": dict(record.counts)})


def costs(options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """By method: texts, tokens and seconds a query, and how many were lost, over all queries that were noted."""
    lines = read_lines(options.out)
    found: dict[str, dict[str, float]] = {}
    for method in dict.fromkeys(line["method"] for line in lines):
        mine = [line for line in lines if line["method"] == method and line["judge"] == options.judge]
        queries = sum(line["queries"] for line in mine)
        counts: Counter[str] = Counter()
        for line in mine:
            counts.update(line["counts"])
        if queries:
            seconds = sum(line["seconds"] for line in mine) / queries
            shares = {key: counts[key] / queries for key in (*COSTS, *FAULTS, "unwritten")}
            found[method] = {"queries": queries, "seconds": seconds, **shares}
    return found


def ask(source: Any, options: argparse.Namespace) -> tuple[Run, Qrels]:
    """The judged queries of a collection that are text alone, or some of them, and their judgements."""
    judged = source.qrels()
    asked = [each for each in fill_languages(source.queries()) if each.id in judged and each.modalities == {"text"}]
    if not asked:
        raise InputError(f"{source.name} has no judged text queries")
    chosen: Sequence[Item] = drawn(asked, options.queries, options.seed)
    return Run(tuple(chosen)), {query.id: judged[query.id] for query in chosen}


def name_spec(method: str, judge: str) -> str:
    """The SPEC of a method, which may have options, with a judge that may have some too."""
    (head, _, more), (model, _, own) = method.partition("?"), judge.partition("?")
    return f"{head}@{model}" + "?" * bool(own or more) + "&".join(filter(None, (own, more)))


def measure(name: str, place: str, clock: Clock, options: argparse.Namespace) -> dict[str, Any]:
    """Each mode's evaluation with each method, of one collection."""
    source, index = load_collection(name), open_index(place, device=options.device)
    plain, qrels = ask(source, options)
    written = {"as it is": plain}
    stages = {
        each: load_rewriter(name_spec(each, options.judge), index.langs, device=options.device)
        for each in options.methods
    }
    first = index.retriever("dense", FIRST)(plain)  # which feedback reads
    for method, stage in stages.items():  # the model is loaded once, as long as one of them holds it
        if (made := write(first, method, stage, clock, options)) is not None:
            written[method] = made
    title = "demo" if name == "demo" else "/".join(Path(name).resolve().parts[-2:])
    found: dict[str, Any] = {"collection": title, "queries": len(plain), "judge": options.judge, "modes": {}}
    for mode in options.modes:
        search = index.retriever(mode, DEPTH)
        runs = {label: search(run) for label, run in written.items()}
        compared = evaluate(runs, qrels, (MEASURE,), per="doc_lang", baseline="as it is")
        found["modes"][mode] = compared.to_json()
    return found


def tables(found: Sequence[Mapping[str, Any]], taken: Mapping[str, Mapping[str, float]]) -> list[Table]:
    """A table a collection and mode: quality with p, and what writing took where that is known."""
    made = []
    for each in found:
        for mode, compared in each["modes"].items():
            groups = [group for group in compared["queries"] if group == "all" or compared["queries"][group] >= 20]
            table = tabulate(compared, [(MEASURE, group) for group in groups[:4]], p=True)
            rows = []
            for row in table.rows:
                cost = taken.get(row[0], {})
                shown = [f"{cost[key]:.1f}" if cost else "" for key in (*COSTS, "seconds")]
                rows.append([*row, *shown])
            columns = [*table.columns, "texts", "tokens", "seconds"]
            made.append(Table(columns, rows, f"{each['collection']}, {mode}"))
    return made


def main(arguments: list[str] | None = None) -> int:
    options = parsed(arguments)
    clock = Clock(options.minutes, time.monotonic())
    found: list[dict[str, Any]] = []

    def program() -> None:
        found.extend(
            measure(name, place, clock, options) for name, place in zip(options.collection, options.index, strict=True)
        )

    if status := run_guarded(program):
        return status
    taken = costs(options)
    shown = tables(found, taken)
    for table in shown:
        text = "\n".join([table.title, *aligned([list(table.columns), *map(list, table.rows)])])
        print(text, file=sys.stderr if options.json else sys.stdout)
    figures = {"collections": found, "costs": taken}
    if options.json:
        print(json.dumps(figures, ensure_ascii=False))
    notes = [
        f"{options.judge}; texts, tokens and seconds are those of one query. p: paired t-test against the queries as "
        f"they are, Holm over the methods of a table."
    ]
    save(options.save, figures, shown, notes)
    return 0


if __name__ == "__main__":
    sys.exit(main())
