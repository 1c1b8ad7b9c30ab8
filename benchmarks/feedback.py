"""What feedback from first results is worth, each method against the same search without it.

    python benchmarks/feedback.py /work/data/help --index /work/data/help.index --save docs/measured/feedback.json

COLLECTION has the halves `dev` and `test`. On dev the settings of each method are chosen by nDCG@20, and on test the chosen
ones are compared with a search without feedback: paired t-tests, Holm-corrected, by language of the documents too. Each
line is one that `--system` takes. Prints tables on stderr and one JSON object on stdout.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from itertools import product
from pathlib import Path
from typing import Any

from crosslens import evaluate
from crosslens.encoders.cache.encoder import CachedEncoder
from crosslens.encoders.registry import load_encoder
from crosslens.indexes.base import Index
from crosslens.indexes.registry import open_index
from crosslens.items import Item
from crosslens.multilingual.collections.registry import load_collection
from crosslens.multilingual.languages import fill_languages
from crosslens.runs import Qrels, Run
from crosslens.systems.system import OpenSite, System
from measurements import Table, add_save, save, tabulate

MEASURES = ["nDCG@20", "R@100"]
DOCS = (1, 3, 5)
BETAS = (0.25, 0.5, 1.0)
TERMS = (10, 20, 40)
WORDS = (0.25, 4.0)  # weights of the query's own words


def list_lines() -> dict[str, dict[str, list[str]]]:
    """By the search without feedback, the lines that each method is chosen from."""
    rocchio = [f"rocchio?docs={docs}&beta={beta:g}" for docs, beta in product(DOCS, BETAS)]
    away = [f"rocchio?docs={docs}&beta=0.25&gamma={gamma:g}" for docs, gamma in product((1, 3), (0.1, 0.25))]
    rm3 = [f"rm3?docs={docs}&terms={terms}" for docs, terms in product(DOCS, TERMS)]
    weighed = [f"rm3?docs=3&terms=10&weight={weight:g}" for weight in WORDS]
    return {
        "dense": {
            "average": [f"dense % 10 >> average?docs={docs} >> dense" for docs in (1, 2)],
            "rocchio": [f"dense % 10 >> {each} >> dense" for each in rocchio],
            "rocchio, away from the last": [f"dense % 100 >> {each} >> dense" for each in away],
            "rm3 beside dense": [f"rrf(dense, dense % 10 >> {each} >> lexical)" for each in rm3],
            "rm3, hybrid": [f"dense % 10 >> rm3?docs={docs}&terms=40 >> hybrid" for docs in DOCS],
            "rocchio, rm3, hybrid": [
                f"dense % 10 >> {rocchio[0]} >> rm3?docs={docs}&terms=40 >> hybrid" for docs in DOCS
            ],
        },
        "lexical": {
            "rm3 of lexical": [f"lexical % 10 >> {each} >> lexical" for each in [*rm3, *weighed]],
            "rm3 of dense": [f"dense % 10 >> {each} >> lexical" for each in rm3],
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("collection", type=Path)
    parser.add_argument("--index", type=Path, required=True)
    parser.add_argument("-k", type=int, default=100)
    parser.add_argument(
        "--dev", type=Path, metavar="FILE", help="lines that FILE has on dev are not measured there again"
    )
    parser.add_argument("--device", default="auto")
    add_save(parser)
    given = parser.parse_args()

    index = open_index(given.index, device=given.device)
    for spec in index.specs:
        index.encoders.give(CachedEncoder(load_encoder(spec.name, device=given.device)))
    known = json.loads(given.dev.read_text("utf-8"))["figures"]["dev"] if given.dev else {}
    chosen, tried = choose_lines(index, *read_half(given.collection / "dev"), given.k, known)
    queries, qrels = read_half(given.collection / "test")
    index.search(queries, 1)  # so that no line has to encode them
    figures: dict[str, Any] = {"dev": tried, "test": {}}
    tables = []
    for plain, lines in chosen.items():
        runs = {line: run_line(index, line, queries, given.k) for line in (plain, *lines)}
        table = evaluate(runs, qrels, MEASURES, per="doc_lang", baseline=plain)
        with redirect_stdout(sys.stderr):
            table.show()
        report = table.to_json()
        seconds = {line: sum(each.seconds for each in run.manifest.records) for line, run in runs.items()}
        figures["test"][plain] = {**report, "seconds": seconds}
        columns = [("nDCG@20", "all"), ("R@100", "all")]
        columns += [("nDCG@20", group) for group in report["queries"] if group != "all"]
        shown = tabulate(report, columns, p=True, title=f"{given.collection.name}, test: against {plain}")
        rows = [[f"`{row[0]}`", *row[1:], f"{1000 * seconds[row[0]] / len(queries):.0f}"] for row in shown.rows]
        tables.append(Table([*shown.columns, "ms a query"], rows, shown.title))
    notes = [
        "Settings were chosen by nDCG@20 on the dev half. p: paired t-test against the first row, Holm. Milliseconds are those "
        "of all stages of the line, without the encoding of queries, which is the same for all; the machine had other work."
    ]
    save(given.save, figures, tables, notes)
    print(json.dumps(figures, indent=2, ensure_ascii=False))


def read_half(folder: Path) -> tuple[list[Item], Qrels]:
    """The judged queries of a half, and their judgements."""
    collection = load_collection(folder)
    qrels = collection.qrels()
    return [query for query in fill_languages(collection.queries()) if query.id in qrels], qrels


def choose_lines(
    index: Index, queries: Sequence[Item], qrels: Qrels, k: int, known: Mapping[str, Mapping[str, float]]
) -> tuple[dict[str, list[str]], dict[str, dict[str, float]]]:
    """The best line of each method, by the search without feedback, and what was measured of every line, or is `known`."""
    chosen: dict[str, list[str]] = {}
    tried: dict[str, dict[str, float]] = {}
    for plain, methods in list_lines().items():
        held = known.get(plain, {})
        tried[plain], best = {}, []
        for lines in ([plain], *methods.values()):
            values = {line: held[line] for line in lines if line in held}
            values |= measure_lines(index, [line for line in lines if line not in held], queries, qrels, k)
            tried[plain] |= values
            best.append(max(values, key=values.__getitem__))
        chosen[plain] = best[1:]
    return chosen, tried


def measure_lines(
    index: Index, lines: Sequence[str], queries: Sequence[Item], qrels: Qrels, k: int
) -> Iterator[tuple[str, float]]:
    """nDCG@20 of each line."""
    for line in lines:
        report = evaluate({line: run_line(index, line, queries, k)}, qrels, MEASURES[:1]).to_json()
        value = report["systems"][0]["means"][MEASURES[0]]["all"]
        print(f"{value:.3f}  {line}", file=sys.stderr, flush=True)
        yield line, value


def run_line(index: Index, line: str, queries: Sequence[Item], k: int) -> Run:
    return System.parse(line).bind(OpenSite(index, exact=True), k)(Run.of(queries)).cut(k)


if __name__ == "__main__":
    main()
