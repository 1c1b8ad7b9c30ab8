"""What two encoders as one are worth, by collection and language, and what they cost.

    python benchmarks/collections/libreoffice_help.py /tmp/help
    python benchmarks/collections/debian_descriptions.py /tmp/debian --langs deu,jpn,rus,zho
    python benchmarks/ensembles.py /tmp/help /tmp/debian --save docs/measured/ensembles.json

On dev are `offline:e5-small` and `offline:use-m3` alone, as one vector with some weights (`ensemble:`), the same without
the rule that USE has no part in languages that it does not know, as two spaces of an index, and by reciprocal ranks. On
test is the pair `offline:e5-use` against e5-small, over all documents and over those of each language, with paired
t-tests, Holm-corrected over all of these rows. Searches are exact, languages are corrected and merged as by default.
The cost is CPU time of this process: documents of each collection (`--timed`), and its queries one at a time. Vectors of
documents are kept in the cache. Prints tables on stderr and one JSON object on stdout.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from crosslens import Run, create_index, evaluate
from crosslens.encoders.base import Encoder, encode_matrix, has_spans
from crosslens.encoders.cache.encoder import CachedEncoder
from crosslens.encoders.ensemble import Ensemble
from crosslens.encoders.pair import WEIGHTS
from crosslens.encoders.registry import load_encoder
from crosslens.evaluation.significance import holm
from crosslens.items import Dense, Item, Role, windows
from crosslens.multilingual.collections.registry import load_collection
from crosslens.multilingual.languages import fill_languages
from crosslens.pipeline import reciprocal_ranks
from crosslens.runs import rank_hits
from measurements import Table, add_save, save, show_p

RATIOS = (16, 12, 8, 4, 1)  # of the weight of e5-small to that of USE
MEASURE = "nDCG@20"
DEPTH = 100
BASE, PAIR = "e5-small", "e5-use"
QUERIES = 30  # timed one at a time


class Kept:
    """An encoder whose vectors of both roles stay in memory: queries and openings are encoded once for all systems."""

    def __init__(self, encoder: Encoder, languages: Iterable[str] = ()) -> None:
        self.spec = encoder.spec
        self.known_languages = frozenset(languages)
        self._encoder = encoder
        self._held: dict[tuple[str | None, str | None, str], np.ndarray] = {}
        if has_spans(encoder):
            self.token_spans, self.room = encoder.token_spans, encoder.room

    def encode(self, items: Iterable[Item], role: Role) -> Iterator[Dense]:
        for group in windows(items, 1024):
            keys = [(item.text, item.lang, role) for item in group]
            new = {key: item for key, item in zip(keys, group, strict=True) if key not in self._held}
            if new:
                self._held.update(zip(new, encode_matrix(self._encoder, list(new.values()), role), strict=True))
            yield Dense([item.id for item in group], np.stack([self._held[key] for key in keys]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("collections", nargs="+", type=Path, metavar="COLLECTION")
    parser.add_argument("--timed", type=int, default=60, help="documents a collection (%(default)s)")
    parser.add_argument("--device", default="auto")
    add_save(parser)
    given = parser.parse_args()
    e5, use = (load_encoder(f"offline:{name}", device=given.device) for name in (BASE, "use-m3"))
    kept = [Kept(CachedEncoder(e5)), Kept(CachedEncoder(use), use.known_languages)]  # type: ignore[attr-defined]
    figures: dict[str, list[dict[str, Any]]] = {"dev": [], "test": [], "cost": []}
    for where in given.collections:
        docs = [item for item in fill_languages(load_collection(where / "dev").docs()) if item.text]
        for half in ("dev", "test"):
            figures[half] += compare(where, half, docs, kept)
        figures["cost"].append(measure_cost(where, docs[:: max(1, len(docs) // given.timed)], (e5, use)))
        print(json.dumps(figures["cost"][-1]), file=sys.stderr, flush=True)
    for row, p in zip(figures["test"], holm([row["p"] for row in figures["test"]]), strict=True):
        row["p adjusted"] = p
    chosen = f"{WEIGHTS[0]:g}:{WEIGHTS[1]:g}"
    notes = [
        "Weights are those of e5-small and of USE; *all languages*: USE takes part in those that it does not know, too. "
        f"`offline:e5-use` has the weights {chosen}. A language's row has its documents among the {DEPTH} best of all "
        f"languages. p: paired t-tests against e5-small, on test Holm-corrected over its {len(figures['test'])} rows. "
        "Cost: CPU milliseconds of one thread, beside other work."
    ]
    save(
        given.save,
        figures,
        [show_dev(figures["dev"]), show_worst(figures["dev"]), show_test(figures["test"]), show_cost(figures["cost"])],
        notes,
    )
    print(json.dumps(figures, indent=2))


def compare(where: Path, half: str, docs: Sequence[Item], kept: Sequence[Kept]) -> list[dict[str, Any]]:
    """On dev a row with the means of all systems, on test rows of the pair against e5-small, by language of documents."""
    collection = load_collection(where / half)
    queries = [query for query in fill_languages(collection.queries()) if query.text]
    systems: dict[str, Sequence[Encoder]] = {BASE: kept[:1], PAIR: [Ensemble(kept, WEIGHTS)]}
    if half == "dev":
        systems = {BASE: kept[:1], "use-m3": kept[1:]}
        systems |= {f"{ratio}:1": [Ensemble(kept, (ratio, 1))] for ratio in RATIOS}
        blind = [kept[0], Kept(kept[1])]
        systems |= {f"{WEIGHTS[0]:g}:1, all languages": [Ensemble(blind, WEIGHTS)], "two spaces": kept}
    runs = {name: search(docs, queries, encoders) for name, encoders in systems.items()}
    if half == "dev":
        runs["reciprocal ranks"] = join_ranks(runs[BASE], runs["use-m3"])
    langs = {item.id: item.lang for item in docs if item.lang}
    table = evaluate(runs, collection.qrels(), [MEASURE], baseline=BASE, per="doc_lang", doc_langs=langs)
    print(where.name, half, {name: round(table.means[name, MEASURE, "all"], 3) for name in runs}, file=sys.stderr)
    about = {"collection": where.name, "documents": len(docs), "topics": len(queries)}
    if half == "dev":
        means = {name: table.means[name, MEASURE, "all"] for name in runs}
        ps = {name: table.comparison(name, MEASURE, "all").p for name in runs if name != BASE}
        worst = {}
        for name in means:
            if name != BASE:
                compared = {group: table.comparison(name, MEASURE, group) for group in table.groups if group != "all"}
                group, least = min(compared.items(), key=lambda each: each[1].difference)
                worst[name] = {"language": group, "difference": least.difference, "p": least.p}
        return [{**about, "means": means, "p": ps, "worst": worst}]
    rows = []
    for group in table.groups:
        compared = table.comparison(PAIR, MEASURE, group)
        count = len(docs) if group == "all" else sum(lang == group for lang in langs.values())
        means = {name: table.means[name, MEASURE, group] for name in runs}
        rows.append(
            {
                **about,
                "group": group,
                "documents": count,
                "topics": table.counts[group],
                "means": means,
                "p": compared.p,
            }
        )
    return rows


def search(docs: Sequence[Item], queries: Sequence[Item], encoders: Sequence[Encoder]) -> Run:
    index = create_index("memory://", lexical=False)
    index.add(docs, encoders)
    return index.search(queries, DEPTH, exact=True)


def join_ranks(*runs: Run) -> Run:
    hits = {id: rank_hits(reciprocal_ranks([run.hits[id] for run in runs]).items())[:DEPTH] for id in runs[0].hits}
    return replace(runs[0], hits=hits)


def measure_cost(where: Path, docs: Sequence[Item], encoders: Sequence[Encoder]) -> dict[str, Any]:
    """CPU milliseconds a document and a query (the median), by encoder."""
    queries = [query for query in load_collection(where / "dev").queries() if query.text][:QUERIES]
    row: dict[str, Any] = {"collection": where.name, "documents": len(docs)}
    row["letters"] = round(float(np.mean([len(item.text or "") for item in docs])))
    for encoder in encoders:
        encode_matrix(encoder, docs[:2], "document")
        name = encoder.spec.name
        row[f"{name}, document"] = _time(encoder, docs, "document") / len(docs)
        row[f"{name}, query"] = float(np.median([_time(encoder, [query], "query") for query in queries]))
    return row


def _time(encoder: Encoder, items: Sequence[Item], role: Role) -> float:
    began = time.process_time()
    encode_matrix(encoder, items, role)
    return 1000 * (time.process_time() - began)


def show_dev(rows: Sequence[dict[str, Any]]) -> Table:
    names = list(rows[0]["means"])
    table = []
    for row in rows:
        cells = [f"{row['means'][name]:.3f}" for name in names]
        table.append([row["collection"], f"{row['documents']:,}", str(row["topics"]), *cells])
    return Table(["collection", "documents", "topics", *(f"{MEASURE}, {name}" for name in names)], table, "dev")


def show_worst(rows: Sequence[dict[str, Any]]) -> Table:
    names = list(rows[0]["worst"])
    table = []
    for row in rows:
        cells = [
            f"{each['language']} {each['difference']:+.3f} ({show_p(each['p'])})" for each in row["worst"].values()
        ]
        table.append([row["collection"], *cells])
    return Table(
        ["collection", *names], table, "dev: the language with the least gain or largest loss (p, not corrected)"
    )


def show_test(rows: Sequence[dict[str, Any]]) -> Table:
    table = []
    for row in rows:
        cells = [f"{row['documents']:,}", str(row["topics"]), *(f"{row['means'][name]:.3f}" for name in (BASE, PAIR))]
        table.append([f"{row['collection']}, {row['group']}", *cells, show_p(row["p adjusted"])])
    columns = ["collection, language", "documents", "topics", f"{MEASURE}, {BASE}", f"{MEASURE}, {PAIR}", "p"]
    return Table(columns, table, "test")


def show_cost(rows: Sequence[dict[str, Any]]) -> Table:
    columns = ["", f"{BASE}, ms", "use-m3, ms", "both, times e5-small"]
    table = []
    for row in rows:
        for role in ("document", "query"):
            one, other = row[f"offline:{BASE}, {role}"], row[f"offline:use-m3, {role}"]
            what = f"a {role} of {row['collection']}" + f", {row['letters']:,} letters" * (role == "document")
            table.append([what, f"{one:.1f}", f"{other:.1f}", f"{(one + other) / one:.2f}"])
    return Table(columns, table, "cost")


if __name__ == "__main__":
    main()
