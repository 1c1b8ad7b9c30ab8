"""Of the hard negatives that each rule finds, how many answer the query in truth?

    python benchmarks/mining.py --collection /work/data/help/dev --index /work/data/help.index \
        --save docs/measured/mining.json

Of each topic's relevant documents one, of the highest grade, is known to the miner; the others, its translation in another
language among them, are kept from it, as in data with one label a query. A negative that is one of them is a false one.
Prints a table on stderr and one JSON object on stdout.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from crosslens.indexes.registry import open_index
from crosslens.multilingual.collections.registry import load_collection
from crosslens.runs import Run
from crosslens.training.data.examples import read_examples
from crosslens.training.data.mine import DEPTH, Mining
from crosslens.training.data.negatives import Margin
from measurements import Table, add_save, save

RULES: dict[str, dict[str, Any]] = {
    "ranks 1 to 100": {"margin": None},
    "ranks 11 to 100": {"margin": None, "first": 11},
    "uniform, 1 to 100": {"margin": None, "sampling": "uniform"},
    "simans": {"margin": None, "sampling": "simans"},
    "margin 0.95": {"margin": Margin(0.95)},
    "margin 0.90": {"margin": Margin(0.90)},
    "translations": {"margin": None, "translations": "id"},
    "translations, margin 0.95": {"margin": Margin(0.95), "translations": "id"},
    "translations, margin 0.95, ranks 11 to 100": {"margin": Margin(0.95), "translations": "id", "first": 11},
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--collection", required=True)
    parser.add_argument("--index", required=True)
    parser.add_argument("--negatives", type=int, default=7)
    parser.add_argument("--judge", metavar="SPEC", help="a row with the margin of its scores")
    add_save(parser)
    options = parser.parse_args()
    collection = load_collection(options.collection)
    qrels = collection.qrels()
    with TemporaryDirectory() as folder:
        work = Path(folder)
        shutil.copytree(options.collection, work / "known")
        known = {}
        for topic, grades in qrels.items():
            best = min((-grade, document) for document, grade in grades.items())
            known[topic] = best[1] if best[0] < 0 else ""
        rows = (f"{topic} 0 {document} 1\n" for topic, document in known.items() if document)
        (work / "known/qrels.txt").write_text("".join(rows), "utf-8")
        queries = list(collection.queries())
        index = open_index(options.index)
        run = index.search(Run.of(queries), DEPTH)  # once, for all rules
        run.to_trec(work / "run.trec")
        rules = dict(RULES)
        if options.judge:
            rules["judge"] = {"judge": options.judge, "translations": "id"}
        found = {}
        for name, changed in rules.items():
            mining = Mining(str(work / "run.trec"), negatives=options.negatives, **changed)
            mined = mining.run(load_collection(work / "known"), work / "mined.jsonl", data="known")
            found[name] = count_false(work / "mined.jsonl", qrels, known, run) | {"cost": dict(mined.cost)}
            print(name, found[name], file=sys.stderr, flush=True)
    table = Table(
        ["rule", "negatives a query", "queries without", "false, %", "of these another language, %", "median rank",
         "in the positive's language, %"],
        [
            [f"{name}", f"{each['negatives'] / each['queries']:.2f}", str(each["without"]), f"{100 * each['false'] / max(each['negatives'], 1):.2f}",
             f"{100 * each['elsewhere'] / max(each['false'], 1):.0f}", str(each["median_rank"]),
             f"{100 * each['same'] / max(each['negatives'], 1):.0f}"]
            for name, each in found.items()
        ],
        "False negatives",
    )  # fmt: skip
    print(table.markdown(), file=sys.stderr)
    figures = {"collection": collection.name, "negatives": options.negatives, "rules": found}
    notes = [
        f"{found['margin 0.95']['queries']} topics of {collection.name} (help pages), one relevant document of each known, "
        "candidates by e5-small (dense, corrected). *False* are negatives that are judged relevant: what is not judged "
        "counts as not relevant, so that these are lower bounds."
    ]
    save(options.save, figures, [table], notes)
    print(json.dumps(figures, ensure_ascii=False, indent=1))
    return 0


def count_false(path: Path, qrels: Any, known: dict[str, str], run: Run) -> dict[str, int]:
    """How many negatives there are, and how many of them are relevant."""
    counts: Counter[str] = Counter()
    places = []
    for example in read_examples(path):
        relevant = {document for document, grade in qrels[example.query.id].items() if grade > 0}
        own = example.positives[0].lang
        ranks = {hit.id: rank for rank, hit in enumerate(run[example.query.id], 1)}
        counts.update(queries=1, negatives=len(example.negatives), without=not example.negatives)
        for each in example.negatives:
            false = each.id in relevant
            counts.update(false=false, elsewhere=false and each.lang != own, same=each.lang == own)
            places.append(ranks[each.id])
    places.sort()
    names = ("queries", "negatives", "without", "false", "elsewhere", "same")
    return {name: counts[name] for name in names} | {"median_rank": places[len(places) // 2] if places else 0}


if __name__ == "__main__":
    sys.exit(main())
