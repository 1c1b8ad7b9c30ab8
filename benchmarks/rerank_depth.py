"""How deep should the default reranker look, and how much should it weigh? Chosen on dev, reported on test.

    python benchmarks/collections/libreoffice_help.py /tmp/help
    python benchmarks/collections/debian_descriptions.py /tmp/debian --langs deu,jpn,rus,zho
    python benchmarks/collections/sample.py /tmp/debian /tmp/debian-small --others 4000
    python benchmarks/rerank_depth.py /tmp/help /tmp/debian-small demo --out /tmp/depth.journal

The first stage is the default: hybrid search over `offline:e5-use`, in the demo with its photos. The judge of `--rerank
default` scores the first `--depth` documents of `--queries` topics of each half; the demo's queries are halved by
their ids. From these scores follow all depths and weights (alpha). On dev the setting of the highest mean over the
collections is chosen, and also the best one at today's depth, which costs no more than today; both are reported on
test against today's, over all documents and over those of each language, with paired randomisation tests, Holm-corrected
over all of these rows. `--timed` topics of each half are judged one at a time: CPU seconds a query.

Answers are kept in `--out`, and more `--queries` go on from there: a smaller sample is part of a larger. Prints tables
on stderr and one JSON object on stdout.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from crosslens import Run, create_index, evaluate
from crosslens.demo.tour import WithoutOwnPhoto
from crosslens.encoders.base import Encoder
from crosslens.encoders.cache.encoder import CachedEncoder
from crosslens.encoders.ensemble import Ensemble
from crosslens.encoders.pair import WEIGHTS
from crosslens.encoders.registry import load_encoder
from crosslens.evaluation.significance import holm
from crosslens.multilingual.collections.registry import load_collection
from crosslens.multilingual.languages import fill_languages
from crosslens.multilingual.reranking.plan import parse_reranker
from crosslens.multilingual.reranking.rerank import Rerank
from crosslens.pipeline import Stage
from hybrid import draw
from measurements import Table, add_save, save, show_p
from rerank_answers import ClockedJournal, Judged, ask, kept_at
from rerank_task import DEPTH, Task, drawn

DEPTHS = (10, 20, 30, 50)
ALPHAS = tuple(round(0.1 * step, 1) for step in range(3, 11))
MEASURE = "nDCG@10"
FIRST, TODAY, CHOSEN, SAME_DEPTH = "first stage", "today", "chosen", "best at today's depth"
HALVES = ("dev", "test")


@dataclass(frozen=True)
class Setting:
    """How deep the judge looks, and how much it weighs."""

    depth: int
    alpha: float

    def __str__(self) -> str:
        return f"depth {self.depth}, alpha {self.alpha:g}"


@dataclass(frozen=True)
class JudgedHalf:
    """A half of a collection, what the judge said of it, and its CPU seconds and passages one topic at a time."""

    collection: str
    half: str
    work: Task
    said: Judged
    seconds: float
    passages: int

    def run(self, stage: Rerank, setting: Setting) -> Run:
        """The order by a setting, of which the answers are known."""
        said = {}
        for query, hits in self.work.first:
            pool = {hit.id for hit in hits[: setting.depth]}
            said[query.id] = [hit for hit in self.said[query.id] if hit.id in pool]
        return replace(stage, depth=setting.depth, alpha=setting.alpha).weigh(self.work.first, said)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("collections", nargs="+", metavar="COLLECTION", help="directories with two halves, or demo")
    parser.add_argument("--queries", type=int, default=40, metavar="N", help="of each half; 0: all (%(default)s)")
    parser.add_argument("--depth", type=int, default=max(DEPTHS), help="the greatest (%(default)s)")
    parser.add_argument("--timed", type=int, default=2, help="topics of each half (%(default)s)")
    parser.add_argument("--out", type=Path, metavar="FILE", help="journal of what the judge said")
    parser.add_argument("--seed", type=int, default=0, help="of all sampling (%(default)s)")
    parser.add_argument("--device", default="auto")
    add_save(parser)
    given = parser.parse_args()
    plan = parse_reranker("default", device=given.device)
    today = Setting(plan.depth, plan.alpha)
    if given.depth < today.depth:
        parser.error(f"--depth must be {today.depth}, today's, or more")
    stage = replace(plan.load(unseen="keep"), depth=given.depth)
    with kept_at(given.out) as journal:
        earlier = read_seconds(journal)
        halves = [
            judge_half(where, half, work, stage, given.timed, given.seed, journal)
            for where in given.collections
            for half, work in read_tasks(where, given.queries, given.seed, given.device).items()
        ]
    settings = [Setting(depth, alpha) for depth in DEPTHS if depth <= given.depth for alpha in ALPHAS]
    dev = [measure_settings(each, stage, settings) for each in halves if each.half == "dev"]
    reported = {
        TODAY: today,
        CHOSEN: choose(dev, settings),
        SAME_DEPTH: choose(dev, [each for each in settings if each.depth == today.depth]),
    }
    test = [row for each in halves if each.half == "test" for row in report(each, stage, reported)]
    tests = [(row, name) for row in test for name in row["p"]]
    for (row, name), p in zip(tests, holm([row["p"][name] for row, name in tests]), strict=True):
        row["p adjusted"][name] = p
    costs = [find_cost(each, sorted({each.depth for each in settings})) for each in halves if each.half == "test"]
    notes = [
        f"{'; '.join(f'{name}: {each}' for name, each in reported.items())}. Chosen: the highest mean over the collections "
        f"on dev. A language's row has its documents among the {DEPTH} best of all languages. p: paired randomisation tests "
        f"against today's, Holm-corrected over all {len(tests)}. CPU seconds of one thread: one query at a time, "
        f"{sum(each.passages for each in halves)} passages in all, in proportion to their number."
    ]
    tables = [show_dev(dev, settings), show_test(test), show_costs(costs)]
    for table in tables:
        print(table.markdown(), file=sys.stderr)
    figures = {
        "settings": {name: str(each) for name, each in reported.items()},
        "dev": dev,
        "test": test,
        "cost": costs,
    }
    save(given.save, figures, tables, notes, earlier=earlier)
    print(json.dumps(figures, indent=2))


def read_tasks(where: str, queries: int, seed: int, device: str) -> dict[str, Task]:
    """By half, topics of a collection that a judge of texts can read, and what the default first stage found."""
    parts = [CachedEncoder(load_encoder(f"offline:{name}", device=device)) for name in ("e5-small", "use-m3")]
    # `offline:e5-use`, whose parts keep their vectors for other benchmarks, too.
    encoders: list[Encoder] = [Ensemble(parts, WEIGHTS)]
    is_demo = where == "demo"
    if is_demo:
        encoders.append(load_encoder("offline:conse", device=device))
    sources = dict.fromkeys(HALVES, load_collection("demo")) if is_demo else {}
    sources |= {} if is_demo else {half: load_collection(f"{where}/{half}") for half in HALVES}
    index = create_index("memory://", device=device)
    index.add(sources["dev"].docs(), encoders)
    first: Stage = index.retriever("hybrid", DEPTH)
    tasks = {}
    for half, source in sources.items():
        qrels = source.qrels()
        asked = [
            query for query in fill_languages(source.queries()) if query.id in qrels and query.modalities == {"text"}
        ]
        if is_demo:
            asked = [query for query in asked if HALVES[draw(query.id, 2)] == half]
        asked = drawn(asked, queries, seed)
        name = Path(where).name
        tasks[half] = Task(
            (first >> WithoutOwnPhoto() if is_demo else first)(asked),
            {query.id: qrels[query.id] for query in asked},
            "kind" if is_demo else "doc_lang",
            {"collection": f"{name}/{half}", "first_stage": "hybrid", "queries": len(asked), "seed": seed},
        )
    return tasks


def judge_half(where: str, half: str, work: Task, stage: Rerank, timed: int, seed: int, journal: Path) -> JudgedHalf:
    name = f"{Path(where).name}, {half}"
    seconds, passages = 0.0, 0
    for query in drawn(work.first.queries, timed, seed):
        alone = Run.of([query]).ranking({query.id: work.first[query.id]}, work.first.docs)
        said, count = ask(f"{name}, {query.id}", stage, replace(work, first=alone), journal, time.process_time)
        seconds += count["milliseconds"] / 1000
        passages += len(said[query.id])
    said, _ = ask(name, stage, work, journal, time.process_time)
    return JudgedHalf(Path(where).name, half, work, said, seconds, passages)


def read_seconds(journal: Path) -> float:
    """CPU seconds of the answers that a journal holds."""
    with closing(ClockedJournal(journal)) as kept:
        return sum(counts.get("milliseconds", 0) for _, counts in kept.found.values()) / 1000


def measure_settings(half: JudgedHalf, stage: Rerank, settings: Sequence[Setting]) -> dict[str, Any]:
    """Means of the first stage and of each setting."""
    runs = {FIRST: half.work.first} | {str(each): half.run(stage, each) for each in settings}
    table = evaluate(runs, half.work.qrels, [MEASURE])
    means = {name: table.mean(name, MEASURE) for name in runs}
    return {"collection": half.collection, "topics": len(half.work.qrels), "means": means}


def choose(dev: Sequence[Mapping[str, Any]], settings: Sequence[Setting]) -> Setting:
    """The highest mean over the collections; of equals the cheapest, and the one that trusts the judge least."""
    return max(settings, key=lambda each: (sum(row["means"][str(each)] for row in dev), -each.depth, -each.alpha))


def report(half: JudgedHalf, stage: Rerank, settings: Mapping[str, Setting]) -> list[dict[str, Any]]:
    """Rows for all documents and for those of each language: means, and p against today's setting."""
    runs = {FIRST: half.work.first} | {name: half.run(stage, each) for name, each in settings.items()}
    per = half.work.per if half.work.per == "doc_lang" else None
    table = evaluate(runs, half.work.qrels, [MEASURE], per=per, baseline=TODAY, test="randomisation")
    rows = []
    for group in table.groups:
        p = {name: table.comparison(name, MEASURE, group).p for name in (CHOSEN, SAME_DEPTH)}
        rows.append(
            {
                "collection": half.collection,
                "group": group,
                "topics": table.counts[group],
                "means": {name: table.means[name, MEASURE, group] for name in runs},
                "p": {name: 1.0 if value is None else value for name, value in p.items()},
                "p adjusted": {},
            }
        )
    return rows


def find_cost(half: JudgedHalf, depths: Sequence[int]) -> dict[str, Any]:
    each = half.seconds / max(1, half.passages)
    return {"collection": half.collection, "seconds": {str(depth): each * depth for depth in depths}}


def show_dev(dev: Sequence[Mapping[str, Any]], settings: Sequence[Setting]) -> Table:
    rows = []
    for row in dev:
        for depth in sorted({each.depth for each in settings}):
            cells = [f"{row['means'][str(Setting(depth, alpha))]:.3f}" for alpha in ALPHAS]
            rows.append(
                [f"{row['collection']}, depth {depth}", str(row["topics"]), f"{row['means'][FIRST]:.3f}", *cells]
            )
    columns = ["collection", "topics", f"{MEASURE}, {FIRST}", *(f"{MEASURE}, alpha {alpha:g}" for alpha in ALPHAS)]
    return Table(columns, rows, "dev")


def show_test(test: Sequence[Mapping[str, Any]]) -> Table:
    columns = ["collection, language", "topics", f"{MEASURE}, {FIRST}", f"{MEASURE}, {TODAY}"]
    columns += [head for name in (CHOSEN, SAME_DEPTH) for head in (f"{MEASURE}, {name}", f"{name}, p")]
    rows = []
    for row in test:
        cells = [f"{row['means'][name]:.3f}" for name in (FIRST, TODAY)]
        for name in (CHOSEN, SAME_DEPTH):
            cells += [f"{row['means'][name]:.3f}", show_p(row["p adjusted"][name])]
        rows.append([f"{row['collection']}, {row['group']}", str(row["topics"]), *cells])
    return Table(columns, rows, "test")


def show_costs(costs: Sequence[Mapping[str, Any]]) -> Table:
    depths = list(costs[0]["seconds"])
    rows = [[row["collection"], *(f"{row['seconds'][depth]:.1f}" for depth in depths)] for row in costs]
    return Table(["a query of", *(f"CPU seconds, depth {depth}" for depth in depths)], rows, "cost")


if __name__ == "__main__":
    main()
