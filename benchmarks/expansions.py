"""What do written queries beside the documents (`index --expansions`) do for full text, and what do they cost?

    python benchmarks/expansions.py DIR/test --work WORK --save docs/measured/expansions.json

A model writes queries for a sample of the collection's documents, in the languages of `--langs`, and the sample is
indexed with them and without. The collection's queries that these documents answer, in whatever language they are, are
searched for in full text, by vectors and by both. What is written stays in `--work`: stopped, the same call goes on.
Prints tables on stderr and one JSON object on stdout.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from crosslens.commands.console import progress, run_guarded
from crosslens.evaluation.evaluate import evaluate
from crosslens.multilingual.collections.registry import load_collection
from crosslens.multilingual.languages import fill_languages
from crosslens.runs import Run
from crosslens.systems.indexing import index_collection
from crosslens.training.adapt.subset import Subset
from crosslens.training.data.base import LanguageMix
from crosslens.training.data.registry import load_source
from crosslens.training.data.selection import Selection
from crosslens.training.data.synthesize import Synthesis, list_wordings
from measurements import Table, add_save, save, show_settings, tabulate

PLAIN, MORE = "documents", "documents and written queries"
MODES = ("lexical", "dense", "hybrid")
MEASURE, DEPTH = "nDCG@20", 100


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("collection", metavar="COLLECTION")
    parser.add_argument("--work", type=Path, required=True, metavar="DIR", help="where queries and indexes are kept")
    parser.add_argument("--source", default="inpars@offline:qwen-0.5b?n=2&styles=question,keywords", metavar="SPEC")
    parser.add_argument("--langs", default="eng", help="of the written queries (%(default)s)")
    parser.add_argument("--documents", type=int, default=300, help="as many of each language (%(default)s)")
    parser.add_argument("--encoder", default="offline:e5-small", metavar="SPEC", help="(%(default)s)")
    add_save(parser)
    return parser.parse_args()


def main() -> int:
    options = parse_arguments()
    options.work.mkdir(parents=True, exist_ok=True)
    whole = load_collection(options.collection)
    chosen = Selection(options.documents, balance=True).choose(fill_languages(whole.docs()), whole.name).ids
    judged = {
        topic: kept
        for topic, grades in whole.qrels().items()
        if (kept := {id: grade for id, grade in grades.items() if id in chosen and grade > 0})
    }
    asked = [query for query in whole.queries() if query.id in judged and query.text and query.image is None]
    sample = Subset(whole.name, whole, chosen, asked, {query.id: judged[query.id] for query in asked})
    synthesis = Synthesis(
        load_source(options.source), Selection(options.documents), LanguageMix.parse(options.langs),
        held_out=list_wordings(whole),
    )  # fmt: skip
    written = synthesis.run(sample, options.work / "queries", progress=progress)
    runs: dict[str, dict[str, Run]] = {mode: {} for mode in MODES}
    costs = {}
    for name, expansions in ((PLAIN, None), (MORE, written.output)):
        place = options.work / ("with.index" if expansions else "without.index")
        began = time.monotonic()
        index = index_collection(
            sample, place, [options.encoder], documents=len(chosen), expansions=expansions, sync=True
        ).index
        costs[name] = {"seconds": time.monotonic() - began, "bytes": count_bytes(place)}
        for mode in MODES:
            runs[mode][name] = index.search(asked, DEPTH, mode=mode)
    langs = {item.id: item.lang for item in sample.docs() if item.lang}
    found = {
        mode: evaluate(
            each, sample.judged, (MEASURE,), per="doc_lang", baseline=PLAIN, test="randomisation", doc_langs=langs
        ).to_json()
        for mode, each in runs.items()
    }  # fmt: skip
    tables = [
        tabulate(table, [(MEASURE, group) for group in table["queries"]], p=True, title=mode)
        for mode, table in found.items()
    ]
    tables.append(tabulate_costs(costs))
    for table in tables:
        print(table.markdown() + "\n", file=sys.stderr)
    kept = written.card["queries"]["kept"]
    note = (
        f"{len(chosen)} documents of {whole.name} and {len(asked)} queries; `{options.source}` wrote {kept} that were kept, "
        f"in {options.langs}, {written.cost['seconds'] / len(chosen):.1f} s a document. p: paired randomisation tests."
    )
    figures: dict[str, Any] = {
        "settings": show_settings(options), "card": written.card, "cost": written.cost,
        "evaluations": found, "costs": costs,
    }  # fmt: skip
    save(options.save, figures, tables, [note])
    print(json.dumps(figures, indent=1, ensure_ascii=False))
    return 0


def tabulate_costs(costs: Mapping[str, Mapping[str, float]]) -> Table:
    """What indexing takes; the second index has its vectors from the cache."""
    rows = [[name, f"{each['seconds']:.0f}", f"{each['bytes'] / 2**20:.1f}"] for name, each in costs.items()]
    return Table(["indexed", "seconds", "MiB"], rows, "indexing")


def count_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


if __name__ == "__main__":
    sys.exit(run_guarded(main))
