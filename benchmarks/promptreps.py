"""What does PromptReps find with an offline model, zero-shot, against a trained encoder?

Two tasks on the texts of the demo collection: its queries of text, which ask across languages, and each text's title,
which asks for the rest of that text (the same language; PromptReps' prompts were made for such queries). Dense
representations are searched as they are and with the language correction; hybrid is the sum of the z-scores of
corrected dense and sparse. Prints tables on stderr and one JSON object on stdout.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from crosslens.encoders.base import Encoder
from crosslens.encoders.registry import load_encoder
from crosslens.evaluation.evaluate import evaluate
from crosslens.evaluation.table import Table
from crosslens.indexes.registry import create_index
from crosslens.items import Item
from crosslens.pipeline import Stage, zscore
from crosslens.runs import Qrels
from measurements import add_save, save, tabulate

MEASURES = ("nDCG@10", "R@10", "R@100")
BASELINE = "e5-small dense"
DEPTH = 100
GROUP = "asked in"


@dataclass(frozen=True)
class Task:
    """Queries, the documents that they search, and judgements."""

    queries: Sequence[Item]
    documents: Sequence[Item]
    qrels: Qrels


def tasks() -> dict[str, Task]:
    from crosslens.demo.collection import Demo

    demo = Demo()
    texts = [item for item in demo.docs() if item.text]
    known = {item.id for item in texts}
    asked = [_grouped(query) for query in demo.queries() if query.meta["kind"] == "text to text"]
    judged = {
        query.id: {doc: grade for doc, grade in demo.qrels()[query.id].items() if doc in known} for query in asked
    }
    titles = [_grouped(replace(item, text=str(item.meta["title"]))) for item in texts]
    bodies = [replace(item, text=(item.text or "").partition("\n")[2]) for item in texts]
    return {
        "text to text": Task(asked, texts, judged),
        "title to text": Task(titles, bodies, {item.id: {item.id: 1} for item in texts}),
    }


def _grouped(query: Item) -> Item:
    return replace(query, meta={**query.meta, GROUP: "English" if query.lang == "eng" else "others"})


def indexed(encoder: Encoder, documents: Sequence[Item], seconds: dict[str, float], name: str) -> Any:
    kind = "sparse" if encoder.spec.kind == "sparse" else "flat"
    index = create_index("memory://", kind=kind, device="cpu")
    started = time.perf_counter()
    index.add(documents, encoder)
    seconds[name] = round(time.perf_counter() - started, 1)
    index.build()
    return index


def systems(encoders: Mapping[str, Encoder], documents: Sequence[Item], seconds: dict[str, float]) -> dict[str, Stage]:
    made = {name: indexed(encoder, documents, seconds, name) for name, encoder in encoders.items()}
    e5, dense, sparse = (made[name] for name in ("e5-small", "dense", "sparse"))
    corrected, weights = dense.retriever("dense", DEPTH), sparse.retriever("dense", DEPTH)
    return {
        BASELINE: e5.retriever("dense", DEPTH, correct=False),
        "e5-small dense, corrected": e5.retriever("dense", DEPTH),
        "full text": e5.retriever("lexical", DEPTH),
        "PromptReps dense": dense.retriever("dense", DEPTH, correct=False),
        "PromptReps dense, corrected": corrected,
        "PromptReps sparse": weights,
        "PromptReps hybrid": zscore(corrected) + zscore(weights),
    }


def steps(table: Table) -> dict[str, dict[str, Any]]:
    """Each system against the baseline: the difference and its p-value, by measure."""
    assert table.comparisons is not None
    return {
        f"{system}, {measure}": {"difference": round(found.difference, 4), "p": found.p}
        for (system, measure), found in table.comparisons.items()
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="offline:gemma", help="a checkpoint of promptreps:")
    parser.add_argument("--prompt", default="eng", help="a language, a name, or own")
    parser.add_argument("--tasks", nargs="*", default=list(tasks()), choices=list(tasks()))
    parser.add_argument("--device", default="auto")
    add_save(parser)
    options = parser.parse_args()

    spec = f"promptreps:{options.model}?prompt={options.prompt}"
    encoders = {
        "e5-small": load_encoder("offline:e5-small", device=options.device),
        "dense": load_encoder(spec, device=options.device),
        "sparse": load_encoder(f"{spec}&rep=sparse", device=options.device),
    }
    report: dict[str, Any] = {
        "model": {name: encoder.spec.name for name, encoder in encoders.items()},
        "revision": encoders["dense"].spec.revision,
        "dtype": encoders["dense"].spec.dtype,
        "tasks": {},
    }
    for name in options.tasks:
        work = tasks()[name]
        seconds: dict[str, float] = {}
        stages = systems(encoders, work.documents, seconds)
        runs = {system: stage(work.queries) for system, stage in stages.items()}
        table = evaluate(runs, work.qrels, MEASURES, per=GROUP, queries=work.queries, baseline=BASELINE, interval=0.95)
        own = {system: run for system, run in runs.items() if system.startswith("PromptReps")}
        inside = evaluate(own, work.qrels, MEASURES, baseline="PromptReps dense")
        print(f"\n{name}: {len(work.queries)} queries, {len(work.documents)} texts", file=sys.stderr)
        print(table, file=sys.stderr)
        print(inside, file=sys.stderr)
        report["tasks"][name] = {
            "queries": len(work.queries),
            "documents": len(work.documents),
            "seconds to index": seconds,
            "table": table.to_json(),
            "against PromptReps dense": steps(inside),
        }
    shown = []
    for name, found in report["tasks"].items():
        groups = [group for group in found["table"]["queries"] if group != "others"]
        columns = [("nDCG@10", group) for group in groups]
        shown.append(tabulate(found["table"], columns, p=True, title=name))
    save(options.save, report, shown)
    print(json.dumps(report, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
