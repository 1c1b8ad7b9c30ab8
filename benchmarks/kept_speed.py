"""What does it cost to keep a judge's answers as they come? A rerank with a journal and without, in turns.

Both are in one process, on the same loaded model, query and passages; each pair begins with the other of the two. Prints
a table on stderr and one JSON object on stdout. Exit status 1 where the median ratio of CPU seconds is above 1.03, or
where the results differ. CPU time is what other processes on the machine disturb least.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from crosslens.multilingual.collections.base import InMemoryDocuments
from crosslens.multilingual.collections.registry import load_collection
from crosslens.multilingual.reranking.plan import load_reranker
from crosslens.runs import Run
from measurements import Table, add_save, save

MOST = 1.03  # times the CPU seconds without a journal


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--rerank", default="likelihood@offline:gemma?passage_tokens=128&depth=20", metavar="SPEC")
    parser.add_argument("--collection", default="demo")
    parser.add_argument("--queries", type=int, default=4)
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--device", default="auto")
    add_save(parser)
    options = parser.parse_args()
    plain = load_reranker(options.rerank, device=options.device)
    source = load_collection(options.collection)
    queries = list(islice((query for query in source.queries() if query.modalities == {"text"}), options.queries))
    docs = list(islice((item for item in source.docs() if item.text), plain.depth))
    hits = {query.id: [(item.id, -float(rank)) for rank, item in enumerate(docs)] for query in queries}
    run = Run.of(queries).ranking(hits, InMemoryDocuments({item.id: item for item in docs}))
    rows, same = [], True
    plain(run)  # the first pass is slower than those that follow it
    with tempfile.TemporaryDirectory() as made:
        for number in range(options.pairs):
            kept = replace(plain, journal=Path(made) / f"journal{number}")
            turns = [("plain", plain), ("kept", kept)][:: -1 if number % 2 else 1]
            found = {name: measure(lambda stage=stage: stage(run)) for name, stage in turns}  # type: ignore[misc]
            same &= found["plain"].pop("result") == found["kept"].pop("result")
            rows.append({f"{name} {what}": seconds for name, each in found.items() for what, seconds in each.items()})
            print(rows[-1], file=sys.stderr, flush=True)
    table = []
    medians = {}
    for what in ("CPU s", "wall s"):
        ratios = [row[f"kept {what}"] / row[f"plain {what}"] for row in rows]
        medians[what] = statistics.median(ratios)
        seconds = [f"{statistics.median(row[f'{name} {what}'] for row in rows):.2f}" for name in ("plain", "kept")]
        table.append([what, *seconds, f"{medians[what]:.3f}", f"{min(ratios):.3f}", f"{max(ratios):.3f}"])
    shown = Table(("", "without a journal", "with one", "median ratio", "least", "most"), table)
    print(shown.markdown(), file=sys.stderr)
    report = {
        "rerank": options.rerank, "queries": len(queries), "questions": len(queries) * len(docs), "pairs": rows,
        "median_ratios": medians, "same": same,
    }  # fmt: skip
    questions = f"{report['questions']} questions to `{options.rerank}`, {options.pairs} pairs."
    save(options.save, report, [shown], [questions])
    print(json.dumps(report, indent=1))
    return int(medians["CPU s"] > MOST or not same)


def measure(work: Callable[[], Run]) -> dict[str, Any]:
    """CPU and wall seconds of the work, and the hits that it gives."""
    before, started = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    result = work()
    after = resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"CPU s": round(cpu, 3), "wall s": round(time.perf_counter() - started, 3), "result": result.hits}


if __name__ == "__main__":
    sys.exit(main())
