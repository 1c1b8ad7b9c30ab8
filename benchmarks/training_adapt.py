"""`crosslens adapt`: what it gains on the collection that it was shown, and what it loses on others."""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from crosslens.errors import InputError
from crosslens.evaluation.evaluate import evaluate
from crosslens.files import read_json, write_json
from crosslens.items import hash_json
from crosslens.multilingual.collections.registry import load_collection
from crosslens.multilingual.reranking.plan import load_reranker
from crosslens.runs import Run
from crosslens.systems.indexing import index_collection
from crosslens.training.adapt.subset import Subset
from measurements import Table, save, show_settings, tabulate

MEASURE, DEPTH = "nDCG@20", 100
MOST_GROUPS = 6  # of languages that a table has columns for
BASE, TEACHER = "base", "base, reranked by the teacher"


def measure_adapt(options: argparse.Namespace) -> dict[str, Any]:
    """Adapt in each way, in a process of its own, and search all collections with the base and what was made."""
    options.out.mkdir(parents=True, exist_ok=True)
    ways = dict(split_named(each) for each in options.way or ["adapted="])
    cards = {name: adapt(name, more, options) for name, more in ways.items()}
    specs = {BASE: options.base, **{name: card["spec"] for name, card in cards.items()}}
    found, seconds = {}, {}
    own = options.report or options.collection
    for place in (own, *options.unseen):
        collection = read_texts(place, options.queries)
        teacher = options.teacher if place == own else None
        found[place], seconds[place] = search_all(collection, specs, options, teacher)
    tables = [tabulate_ways(cards)]
    if options.teacher:
        tables.append(tabulate_shares(found[own], seconds[own], options))
    for place, table in found.items():
        name = "adapted to" if place == own else "not trained on"
        groups = list(table["queries"])
        shown = groups if len(groups) <= MOST_GROUPS else groups[:1]
        tables.append(tabulate(
            table, [(MEASURE, group) for group in shown], p=True, title=f"{name_place(place)}, {name}"
        ))  # fmt: skip
    for name, card in cards.items():
        if held := card["compared"].get("held out"):
            table = held["table"]
            columns = [(MEASURE, group) for group in table["queries"]]
            tables.append(
                tabulate(table, columns, p=True, title=f"{name}, questions about documents that were held out")
            )
    for each in tables:
        print(f"\n{each.markdown()}", file=sys.stderr)
    figures = {"settings": show_settings(options), "cards": cards, "tables": found, "seconds": seconds}
    note = (
        "Dense search, means corrected by language; p: paired randomisation tests against the base, Holm-corrected over "
        "the ways."
    )
    save(options.save, figures, tables, [note])
    return figures


def adapt(name: str, more: str, options: argparse.Namespace) -> dict[str, Any]:
    """The card of one adaptation; what is there already is not made again."""
    output = options.out / name.replace(" ", "-")
    if not (output / "adaptation.json").exists():
        call = [
            sys.executable, "-c", "from crosslens.commands.app import script; script()", "adapt", options.collection,
            "--base", options.base, "-o", str(output), "--minutes", str(options.minutes), "--json", *shlex.split(more),
        ]  # fmt: skip
        print(f"{name}: crosslens {shlex.join(call[3:])}", file=sys.stderr, flush=True)
        began = time.monotonic()
        subprocess.run(call, check=True, stdout=subprocess.DEVNULL)
        write_json(output / "wall.json", round(time.monotonic() - began, 1))
    card = dict(read_json(output / "adaptation.json"))
    trained = read_json(output / "training.json")
    return card | {
        "options": more, "wall": read_json(output / "wall.json"), "steps": trained["steps"],
        "training": trained["seconds"], "peak_gib": trained["peak_gib"],
    }  # fmt: skip


def read_texts(place: str, most: int) -> Subset:
    """A collection without its pictures, and without the queries that these alone answer; `most` of those, 0 for all."""
    whole = load_collection(place)
    chosen = {item.id for item in whole.docs() if item.image is None and item.text}
    judged = {
        topic: {id: grade for id, grade in grades.items() if id in chosen} for topic, grades in whole.qrels().items()
    }
    asked = [
        query for query in whole.queries()
        if query.image is None and any(grade > 0 for grade in judged.get(query.id, {}).values())
    ]  # fmt: skip
    asked = sorted(asked, key=lambda query: hash_json(query.id))[: most or None]
    return Subset(place, whole, chosen, asked, {query.id: judged[query.id] for query in asked})


def search_all(
    collection: Subset, specs: Mapping[str, str], options: argparse.Namespace, teacher: str | None
) -> tuple[dict[str, Any], dict[str, float]]:
    """The evaluation of each encoder's ranking of a collection's documents, JSON-able, and its seconds a query.

    With a `teacher` also of the base's ranking, reranked by it. Rankings are kept.
    """
    folder = options.out / "searched"
    folder.mkdir(exist_ok=True)
    systems = {name: (spec, None) for name, spec in specs.items()}
    if teacher:
        systems[TEACHER] = (options.base, teacher)
    runs, seconds = {}, {}
    for name, (spec, reranker) in systems.items():
        about = hash_json([collection.name, sorted(collection.judged), spec, reranker, reranker and options.depth])
        path, took = folder / f"{about}.run", folder / f"{about}.json"
        if not took.exists():
            print(f"{collection.name}: {name}", file=sys.stderr, flush=True)
            place = folder / f"{hash_json([collection.name, spec])}.index"
            index = index_collection(
                collection, place, [spec], documents=len(collection.chosen), lexical=False, sync=True
            ).index
            began = time.monotonic()
            run = index.search(collection.asked, DEPTH, mode="dense", exact=True)
            if reranker:
                run = load_reranker(set_depth(reranker, options.depth))(run)
            write_json(took, (time.monotonic() - began) / len(collection.asked))
            run.to_trec(path)
        runs[name], seconds[name] = Run.from_trec(path), float(read_json(took))
    langs = {item.id: item.lang for item in collection.docs() if item.lang}
    table = evaluate(
        runs, collection.judged, (MEASURE,), per="doc_lang" if len(set(langs.values())) > 1 else None, baseline=BASE,
        test="randomisation", doc_langs=langs,
    )  # fmt: skip
    return table.to_json(), seconds


def tabulate_shares(table: Mapping[str, Any], seconds: Mapping[str, float], options: argparse.Namespace) -> Table:
    """What of the teacher's gain over the base each way has, and what of its cost a query."""
    means = {system["name"]: system["means"][MEASURE]["all"] for system in table["systems"]}
    gain = means[TEACHER] - means[BASE]
    rows = [
        [
            name, f"{mean:.3f}", f"{mean - means[BASE]:+.3f}", f"{100 * (mean - means[BASE]) / gain:.0f}",
            f"{1000 * seconds[name]:.0f}", f"{100 * seconds[name] / seconds[TEACHER]:.1f}",
        ]
        for name, mean in means.items()
    ]  # fmt: skip
    return Table(
        ["system", MEASURE, "gain", "share of the teacher's, %", "ms a query", "share of the teacher's, % of time"], rows,
        title=f"the teacher is {options.teacher} over the base's first {options.depth}",
    )  # fmt: skip


def tabulate_ways(cards: Mapping[str, Mapping[str, Any]]) -> Table:
    """What went into each way, and what it took."""
    rows = [
        [
            name, card["options"] or "none", ", ".join(f"{number:,} {source}" for source, number in card["questions"].items()),
            f"{card['steps']:,}", f"{card['wall'] / 60:.0f}", f"{card['training'] / 60:.0f}", f"{card['peak_gib']:.1f}",
            card["verdict"],
        ]
        for name, card in cards.items()
    ]  # fmt: skip
    return Table(["way", "options", "questions", "steps", "minutes", "of training", "GiB", "its own verdict"], rows)


def name_place(place: str) -> str:
    path = Path(place)
    return f"{path.parent.name}, {path.name} half" if path.name in ("dev", "test") else path.name


def set_depth(reranker: str, depth: int) -> str:
    """The SPEC of a reranker with the number of candidates that it is shown."""
    return f"{reranker}{'&' if '?' in reranker else '?'}depth={depth}"


def split_named(text: str) -> tuple[str, str]:
    """An option's NAME=VALUE."""
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise InputError(f"{text}: write NAME=VALUE; the value may be empty")
    return name, value
