"""What it is worth to score documents by their best window, alone and together with the whole document, and the cost.

    python benchmarks/collections/libreoffice_help.py /tmp/help
    python benchmarks/windows.py /tmp/help --topics 60 --timed 10 --save docs/measured/windows.json

A collection has the halves dev and test over the same documents, of which those in the languages after `=`
(`/tmp/help10=deu,jpn`) are taken. A sample is searched: what is relevant to `--topics` topics of each half, and others,
`--documents` in all. On dev all shares of the best window in the score are shown, for windows side by side of so many
tokens; test has the default of both, with paired t-tests against whole documents, Holm-corrected over all of it, and a
row for topics that long documents answer. Searches are exact. The cost is CPU time beside other work: of indexing
`--timed` documents of one window and as many longer ones, without the vector cache, and of searches, one query at a
time, encoding left out. Prints rows on stderr and one JSON object on stdout.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from crosslens import create_index, evaluate
from crosslens.encoders.base import Encoder
from crosslens.encoders.cache.encoder import CachedEncoder
from crosslens.encoders.ensemble import Ensemble
from crosslens.encoders.pair import WEIGHTS
from crosslens.encoders.registry import load_encoder
from crosslens.evaluation.significance import holm
from crosslens.indexes.base import Index
from crosslens.indexes.passages import choose_tokenizer
from crosslens.indexes.storage.card import JointWindows, Windows
from crosslens.items import Item
from crosslens.multilingual.collections.registry import load_collection
from crosslens.multilingual.languages import fill_languages
from ensembles import Kept
from measurements import Table, add_save, save, show_p

MEASURE = "nDCG@20"
WHOLE, ALONE = "whole", "window alone"
SHARES = (0.1, 0.2, 0.3, 0.4, 0.5)
TIMED = 30  # queries asked one at a time
OF = {"long": "indexing long ones, s", "short": "indexing short ones, s", "search": "a query, ms"}

Qrels = dict[str, dict[str, int]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("collections", nargs="+", metavar="DIR[=LANGS]")
    parser.add_argument("--encoders", nargs="+", default=["e5-small", "e5-use"], choices=["e5-small", "e5-use"])
    parser.add_argument("--windows", type=int, nargs="+", default=[JointWindows.window], metavar="TOKENS")
    parser.add_argument("--topics", type=int, default=150)
    parser.add_argument("--documents", type=int, default=0)
    parser.add_argument("--timed", type=int, default=40, help="documents of each length whose indexing is timed")
    parser.add_argument("-k", type=int, default=100)
    add_save(parser)
    given = parser.parse_args()
    e5, use = (load_encoder(f"offline:{name}") for name in ("e5-small", "use-m3"))
    kept = [Kept(CachedEncoder(e5)), Kept(CachedEncoder(use), use.known_languages)]  # type: ignore[attr-defined]
    encoders: dict[str, Encoder] = {"e5-small": kept[0], "e5-use": Ensemble(kept, WEIGHTS)}
    figures: dict[str, list[dict[str, Any]]] = {"dev": [], "test": [], "cost": []}
    for named in given.collections:
        sample = Sample(*named.partition("=")[::2], given.topics, given.documents)
        for name, encoder in ((name, encoders[name]) for name in given.encoders):
            for half, sizes in (("dev", given.windows), ("test", [JointWindows.window])):
                figures[half] += sample.compare(half, name, encoder, sizes, given.k)
        figures["cost"].append(sample.measure_cost(e5, kept[0], given.timed, given.k))
        print(json.dumps(figures["cost"][-1]), file=sys.stderr, flush=True)
    for row, p in zip(figures["test"], holm([row["p"] for row in figures["test"]]), strict=True):
        row["p adjusted"] = p
    notes = [
        f"On test windows of {JointWindows.window} tokens with a share of {JointWindows.share:g} in the score. *Long*: topics "
        "that a document of several windows answers. p: paired t-tests against whole documents, on test Holm-corrected over "
        f"its {len(figures['test'])} rows. Cost, with e5-small: CPU seconds of indexing {given.timed} documents, and CPU "
        f"milliseconds of a query, exact, without encoding, medians of {TIMED}; others in ratio to whole documents."
    ]
    save(given.save, figures, [show_dev(figures["dev"]), show_test(figures["test"]), show_cost(figures["cost"])], notes)
    print(json.dumps(figures, indent=2))


class Sample:
    """Documents of a collection: those that are judged for some topics of each half, and others."""

    def __init__(self, where: str, langs: str, topics: int, most: int) -> None:
        self.name = Path(where).name + (f" ({langs.replace(',', ', ')})" if langs else "")
        documents = fill_languages(load_collection(Path(where) / "dev").docs())
        docs = [doc for doc in documents if doc.text and (not langs or doc.lang in langs.split(","))]
        known = {doc.id for doc in docs}
        self.halves = {half: read_half(Path(where) / half, topics, known) for half in ("dev", "test")}
        judged = {doc for _, qrels in self.halves.values() for grades in qrels.values() for doc in grades}
        docs.sort(key=lambda doc: (doc.id not in judged, zlib.crc32(doc.id.encode())))
        self.docs = docs[: max(most, len(judged))]

    def compare(self, half: str, name: str, encoder: Encoder, sizes: Sequence[int], k: int) -> list[dict[str, Any]]:
        """On dev a row a size of windows, with each share; on test one of all topics and one of those of long documents."""
        queries, qrels = self.halves[half]
        runs = {WHOLE: self.fill(encoder, None).search(queries, k, exact=True)}
        about = {"collection": self.name, "encoder": name, "documents": len(self.docs), "topics": len(queries)}
        rows = []
        for size in sizes:
            systems: dict[str, Windows] = {f"{share:g}": JointWindows(size, size, share=share) for share in SHARES}
            systems[ALONE] = Windows(size, size)
            if half == "test":
                systems = {"both": JointWindows()}
            runs |= {
                each: self.fill(encoder, windows).search(queries, k, exact=True) for each, windows in systems.items()
            }
            table = evaluate(runs, qrels, [MEASURE], baseline=WHOLE)
            if half == "dev":
                means = {each: table.mean(each, MEASURE) for each in runs}
                ps = {each: table.comparison(each, MEASURE).p for each in systems}
                rows.append({**about, "window": size, "means": means, "p": ps})
                continue
            long = self.list_long(encoder)
            some = {topic: grades for topic, grades in qrels.items() if any(doc in long for doc in grades)}
            for which, mine in (("all", qrels), ("long", some)):
                table = evaluate(runs, mine, [MEASURE], baseline=WHOLE)
                means = {each: table.mean(each, MEASURE) for each in runs}
                p = table.comparison("both", MEASURE).p
                rows.append({**about, "which": which, "topics": len(mine), "means": means, "p": p})
        for row in rows:
            print(json.dumps(row), file=sys.stderr, flush=True)
        return rows

    def fill(self, encoder: Encoder, windows: Windows | None, docs: Sequence[Item] | None = None) -> Index:
        index = create_index("memory://", lexical=False, passages=windows)
        index.add(self.docs if docs is None else docs, encoder)
        return index

    def list_long(self, encoder: Encoder) -> set[str]:
        """The documents of more than one window."""
        tokenizer = choose_tokenizer(JointWindows(), [encoder])
        assert tokenizer is not None
        spans = tokenizer.token_spans([doc.text or "" for doc in self.docs])
        return {doc.id for doc, each in zip(self.docs, spans, strict=True) if len(each) > JointWindows.window}

    def measure_cost(self, encoder: Encoder, kept: Encoder, timed: int, k: int) -> dict[str, Any]:
        """CPU seconds of indexing some documents of one window and some longer ones; CPU milliseconds of a query."""
        long = self.list_long(encoder)
        parts = {
            "long": [doc for doc in self.docs if doc.id in long][:timed],
            "short": [doc for doc in self.docs if doc.id not in long][:timed],
        }
        size = JointWindows.window
        systems: dict[str, Windows | None] = {WHOLE: None, ALONE: Windows(size, size), "both": JointWindows()}
        cost: dict[str, Any] = {"collection": self.name}
        for which, docs in parts.items():
            self.fill(encoder, None, docs[:2])  # what is made at the first call
            cost[which] = {name: _time(self.fill, encoder, windows, docs) for name, windows in systems.items()}
        queries = self.halves["dev"][0][:TIMED]
        list(kept.encode(queries, "query"))
        cost["search"] = {}
        for name, windows in systems.items():
            index = self.fill(kept, windows)
            index.search(queries, k, exact=True)
            times = sorted(_time(index.search, [query], k, exact=True) for query in queries)
            cost["search"][name] = 1000 * times[len(times) // 2]
        return cost


def read_half(where: Path, topics: int, known: set[str]) -> tuple[list[Item], Qrels]:
    """Queries that have a relevant document among the known ones, and what is judged of these."""
    collection = load_collection(where)
    judged = {
        topic: {doc: g for doc, g in grades.items() if doc in known} for topic, grades in collection.qrels().items()
    }
    qrels = {topic: grades for topic, grades in judged.items() if any(g > 0 for g in grades.values())}
    queries = [query for query in fill_languages(collection.queries()) if query.id in qrels]
    queries = sorted(queries, key=lambda query: zlib.crc32(query.id.encode()))[:topics]
    return queries, {query.id: qrels[query.id] for query in queries}


def _time(work: Callable[..., object], *given: Any, **options: Any) -> float:
    """Seconds of CPU time."""
    began = time.process_time()
    work(*given, **options)
    return time.process_time() - began


def show_dev(rows: Sequence[dict[str, Any]]) -> Table:
    names = list(rows[0]["means"])
    columns = ["collection", "documents", "topics", "encoder", "window", *(f"{MEASURE}, {name}" for name in names)]
    table = []
    for row in rows:
        about = [row["collection"], f"{row['documents']:,}", str(row["topics"]), row["encoder"], str(row["window"])]
        table.append([*about, *(f"{row['means'][name]:.3f}" for name in names)])
    return Table(columns, table, "dev, by the share of the best window")


def show_test(rows: Sequence[dict[str, Any]]) -> Table:
    table = []
    for row in rows:
        about = [row["collection"], row["encoder"], row["which"], str(row["topics"])]
        means = [f"{row['means'][name]:.3f}" for name in (WHOLE, "both")]
        table.append([*about, *means, show_p(row["p adjusted"])])
    columns = ["collection", "encoder", "topics", "number", f"{MEASURE}, {WHOLE}", f"{MEASURE}, both", "p"]
    return Table(columns, table, "test")


def show_cost(costs: Sequence[dict[str, Any]]) -> Table:
    table = []
    for cost in costs:
        for which, what in OF.items():
            whole, *others = cost[which].values()
            table.append([cost["collection"], what, f"{whole:.1f}", *(f"{each / whole:.2f}" for each in others)])
    return Table(["collection", "of", WHOLE, f"cost of {ALONE}", "cost of both"], table, "cost")


if __name__ == "__main__":
    main()
