"""`crosslens demo`: index the built-in collection, search it in five ways, evaluate, and write the contact sheet."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ..encoders.registry import load_encoder
from ..evaluation.evaluate import evaluate
from ..files import check_output
from ..indexes.registry import check_index, create_index
from ..items import Item
from ..multilingual.reranking.plan import load_reranker
from ..pipeline import Progress, Stage, show_nothing, watch
from ..runs import Qrels, Run
from .collection import Demo
from .results import DemoReport, DemoStep, write_contact_sheet

ENCODERS = ("offline:e5-small", "offline:conse")
MEASURES = ("nDCG@10", "R@10")
LEXICAL, DENSE, CORRECTED, HYBRID, RERANKED, BEST = (
    "lexical",
    "dense",
    "dense, language-corrected",
    "hybrid",
    "hybrid + LLM rerank",
    "hybrid + LLM rerank, best",
)
RERANKERS = {RERANKED: "default", BEST: "best"}
# What each system adds to which other.
STEPS = ((DENSE, LEXICAL), (CORRECTED, DENSE), (HYBRID, CORRECTED), (RERANKED, HYBRID), (BEST, HYBRID))
DEPTH = 50


@dataclass(frozen=True)
class WithoutOwnPhoto(Stage):
    """Drops the photo that the asker already holds: a query's `meta["photo"]`."""

    def apply(self, run: Run, count: Counter[str]) -> Run:
        own = {query.id: query.meta.get("photo") for query in run.queries}
        return run.ranking({q: [hit for hit in hits if hit.id != own[q]] for q, hits in run.hits.items()})

    def __str__(self) -> str:
        return "without the query's own photo"


def tour(
    directory: Path, html: Path, *, device: str, best: bool = False, progress: Progress = show_nothing
) -> DemoReport:
    """Run it all; the index stays in `directory`, where the report's runs look their documents up.

    With `best`, `--rerank best` too, which takes minutes.
    """
    check_output(html)
    check_index(directory, name="demo")
    seconds: dict[str, float] = {}
    collection = Demo()
    counts = collection.check()
    logging.getLogger("crosslens").info(
        "demo: %d texts in %d languages, %d photos", counts.documents - counts.images, len(counts.langs), counts.images
    )
    with _timed(seconds, "load encoders"):
        encoders = [load_encoder(spec, device=device) for spec in ENCODERS]
    with _timed(seconds, "index"):
        index = create_index(directory, name="demo", device=device)
        with progress("encoding", counts.documents) as watcher:
            index.add(collection.docs(), encoders, progress=watcher)
        index.build()
    queries = collection.queries()
    own = WithoutOwnPhoto()
    systems: dict[str, tuple[Stage, list[Item]]] = {
        # Full text cannot be asked with a photo alone; those queries count as zero.
        LEXICAL: (index.retriever("lexical", DEPTH) >> own, [query for query in queries if query.text]),
        DENSE: (index.retriever("dense", DEPTH, correct=False) >> own, queries),
        CORRECTED: (index.retriever("dense", DEPTH) >> own, queries),
        HYBRID: (index.retriever("hybrid", DEPTH) >> own, queries),
    }
    runs: dict[str, Run] = {}
    for name, (stage, asked) in systems.items():
        with _timed(seconds, name):
            runs[name] = stage(asked)
    for name in (RERANKED, BEST) if best else (RERANKED,):
        with progress("judging", None) as watcher, watch(watcher):
            with _timed(seconds, "load judge" if name == RERANKED else "load judges of best"):
                reranker = load_reranker(RERANKERS[name], device=device, unseen="keep")
            with _timed(seconds, name):
                runs[name] = reranker(runs[HYBRID])
    qrels = collection.qrels()
    table = evaluate(runs, qrels, MEASURES, per="kind", queries=queries)
    steps = tuple(_compare(runs, qrels, system, over) for system, over in STEPS if system in runs)
    report = DemoReport(table, steps, runs, qrels, seconds, str(directory), str(html))
    with _timed(seconds, "write html"):
        write_contact_sheet(html, report)
    return report


def _compare(runs: dict[str, Run], qrels: Qrels, system: str, over: str) -> DemoStep:
    table = evaluate({over: runs[over], system: runs[system]}, qrels, ("nDCG@10",), baseline=over)
    comparison = table.comparison(system, "nDCG@10")
    assert comparison is not None
    return DemoStep(system, over, comparison.difference, comparison.p)


@contextmanager
def _timed(seconds: dict[str, float], part: str) -> Iterator[None]:
    started = time.perf_counter()
    yield
    seconds[part] = round(time.perf_counter() - started, 2)
