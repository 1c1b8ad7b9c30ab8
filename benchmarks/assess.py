"""Do a judge's grades agree with the judgements of a collection, beyond chance?

    python benchmarks/assess.py --judge offline:qwen-1.5b
    python benchmarks/assess.py --judge offline:qwen-1.5b --collection help/dev --index help.index --queries 60 \\
        --journal assess.journal --save docs/measured/assess.json

For each query the judge grades its documents of grade 3 (`--judged` of them), as many of lower grades, and as many of
the first hits of dense search that nobody judged, which count as 0: for the help pages, where the judgements come from
the alignment of pages and of links, a few of those may be relevant. Intervals are those of 1,000 bootstrap samples of
queries, at 0.95: where they hold 0, the grades are at chance. Prints a table on stderr and one JSON object on stdout.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from crosslens.errors import CrosslensError, InputError
from crosslens.evaluation.agreement import Agreement, compare_grades
from crosslens.evaluation.assess import Pair, parse_assessor
from crosslens.items import Item
from crosslens.multilingual.collections.registry import load_collection
from crosslens.runs import Qrels, Run
from measurements import Table, add_save, save
from rerank_task import texts

SAMPLES = 1000
# What is read of an agreement: names in tables and in JSON.
MEASURES = {
    "kappa": lambda found: found.kappa,
    "quadratic": lambda found: found.quadratic,
    "1 or more": lambda found: found.binary(1),
    "2 or more": lambda found: found.binary(2),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--judge", default="offline:gemma", metavar="SPEC")
    parser.add_argument("--prompts", nargs="+", default=["graded"], metavar="NAME", help="such as give grades")
    parser.add_argument("--collection", default="demo")
    parser.add_argument("--index", type=Path, help="the collection's index; the demo is indexed in memory")
    parser.add_argument("--queries", type=int, default=6)
    parser.add_argument("--judged", type=int, default=2, help="documents of each kind, a query")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--journal", type=Path, help="keep answers there as they come, and ask none twice")
    parser.add_argument("--device", default="auto")
    add_save(parser)
    options = parser.parse_args()
    try:
        figures = measure(options)
    except CrosslensError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    table = show(figures)
    print(table.markdown(), file=sys.stderr)
    save(options.save, figures, [table], [describe(figures)])
    print(json.dumps(figures, indent=1))
    return 0


def measure(options: argparse.Namespace) -> dict[str, Any]:
    load = {name: parse_assessor(f"{name}@{options.judge}", device=options.device) for name in options.prompts}
    asked, first = texts(options.collection, options.index, options.queries, options.seed, options.device)
    found = first(asked)
    pairs, human = choose_pairs(found, load_collection(options.collection).qrels(), options.judged)
    langs = {document.id: document.lang or "unknown" for _, document in pairs}
    prompts = {}
    for name, load_assessor in load.items():
        print(f"judging with {name}", file=sys.stderr, flush=True)
        journal = options.journal and options.journal.with_name(f"{options.journal.name}.{name}")
        assessment = load_assessor()(pairs, journal=journal)
        agreements = compare_grades(human, assessment.qrels, langs)
        prompts[name] = {
            "seconds": assessment.record.seconds,
            "counts": dict(assessment.record.counts),
            "grades": {str(grade): count for grade, count in assessment.grades.items()},
            "agreement": {group: each.to_json() for group, each in agreements.items()},
            "intervals": bootstrap(human, assessment.qrels, options.seed),
        }
    return {
        "judge": options.judge,
        "collection": "/".join(Path(options.collection).parts[-2:]),
        "queries": len(found.queries),
        "pairs": len(pairs),
        "judged": options.judged,
        "seed": options.seed,
        "prompts": prompts,
    }


def choose_pairs(found: Run, qrels: Qrels, count: int) -> tuple[list[Pair], Qrels]:
    """For each query `count` documents of the highest grade, of lower ones, and of the first hits without one (0)."""
    pairs: list[Pair] = []
    human: dict[str, dict[str, int]] = {}
    highest = max((grade for grades in qrels.values() for grade in grades.values()), default=0)
    for query in found.queries:
        grades, hits = qrels.get(query.id, {}), [hit.id for hit in found[query.id]]
        kinds: list[list[str]] = [
            [id for id, grade in grades.items() if grade == highest],
            [id for id, grade in grades.items() if 0 < grade < highest],
            [id for id in hits if id not in grades],
        ]
        chosen = [id for kind in kinds for id in kind[:count]]
        documents = found.docs.get(chosen) if found.docs else []
        readable: list[Item] = [document for document in documents if document.text]
        pairs += [(query, document) for document in readable]
        human[query.id] = {document.id: grades.get(document.id, 0) for document in readable}
    if not pairs:
        raise InputError("no query has a document to judge")
    return pairs, human


def bootstrap(human: Qrels, judged: Qrels, seed: int) -> dict[str, list[float] | None]:
    """The interval of each measure over samples of the queries; None where none has a value."""
    queries = sorted(human)
    alone = {query: compare_grades({query: human[query]}, {query: judged.get(query, {})})["all"] for query in queries}
    grades = sorted({grade for each in alone.values() for grade in each.grades})
    counts = np.zeros((len(queries), len(grades), len(grades)), np.int64)
    for place, query in enumerate(queries):
        at = [grades.index(grade) for grade in alone[query].grades]
        counts[place][np.ix_(at, at)] = np.reshape(alone[query].confusion, (len(at), len(at)))
    random = np.random.default_rng(seed)
    samples = [counts[random.integers(0, len(queries), len(queries))].sum(axis=0) for _ in range(SAMPLES)]
    drawn = [Agreement(tuple(grades), tuple(map(tuple, sample.tolist()))) for sample in samples]
    found: dict[str, list[float] | None] = {}
    for name, read in MEASURES.items():
        values = [value for each in drawn if not math.isnan(value := read(each))]
        found[name] = [round(float(np.quantile(values, share)), 3) for share in (0.025, 0.975)] if values else None
    return found


def show(figures: dict[str, Any]) -> Table:
    rows: list[Sequence[str]] = []
    for prompt, part in figures["prompts"].items():
        for group, found in part["agreement"].items():
            values = [found["kappa"], found["kappa_quadratic"], *found["kappa_binary"].values()]
            cells = ["" if value is None else f"{value:.2f}" for value in values]
            if group == "all":
                spans = [part["intervals"][name] for name in MEASURES]
                cells = [f"{a} ({b[0]:.2f} to {b[1]:.2f})" if b else a for a, b in zip(cells, spans, strict=True)]
            rows.append([f"{prompt}, {group}", str(found["pairs"]), *cells])
    return Table(("prompt, documents", "pairs", *MEASURES), rows, f"`{figures['judge']}`, {figures['collection']}")


def describe(figures: dict[str, Any]) -> str:
    """What the table shows, for a page."""
    return (
        f"Kappa of {figures['queries']} queries' pairs, with intervals at 0.95 by bootstrap over queries: as names, with "
        f"quadratic weights, and of relevant or not, from grade 1 and from grade 2 on. Of each query up to "
        f"{figures['judged']} documents of grade 3, of lower grades, and of the first hits that nobody judged, as grade 0."
    )


if __name__ == "__main__":
    sys.exit(main())
