"""How indexing, search and evaluation grow with a collection: time, and the largest memory, at several sizes.

    python benchmarks/collections/debian_descriptions.py /tmp/debian
    python benchmarks/scale.py /tmp/debian/test --sizes 10000,60000 --dir /tmp/scale

For each size the first so many documents of the collection are indexed by `crosslens index`, alone in a process, so
that its peak resident memory is its own; an empty index (the same command over ten documents) shows what the
program and its model hold. In a process of its own the largest index then answers 1,000 queries exactly, 100 and 1,000 deep, and the
run is evaluated. Prints a table on stderr and one JSON object on stdout. An index that is there is gone on with,
and then its times are of what was left.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import resource
import subprocess
import sys
import time
from itertools import islice
from pathlib import Path
from typing import Any

from crosslens.multilingual.collections.registry import load_collection
from measurements import Table, add_save, save

TOPICS = 1000
DEEP = 1000


def subset(source: Path, size: int, where: Path) -> Path:
    """A collection directory with the first `size` documents."""
    target = where / f"docs-{size}"
    if not (target / "docs.jsonl").exists():
        target.mkdir(parents=True, exist_ok=True)
        opened = gzip.open if (source / "docs.jsonl.gz").exists() else open
        name = "docs.jsonl.gz" if (source / "docs.jsonl.gz").exists() else "docs.jsonl"
        with opened(source / name, "rt", encoding="utf-8") as lines, (target / "part").open("w") as out:
            out.writelines(islice(lines, size))
        (target / "part").rename(target / "docs.jsonl")
    return target


def indexed(collection: Path, index: Path, encoder: str) -> dict[str, float]:
    """Seconds and peak bytes of `crosslens index`, told by the system when the process ends."""
    command = [str(Path(sys.executable).with_name("crosslens")), "index", str(collection), str(index)]
    started = time.perf_counter()
    process = subprocess.Popen([*command, "--encoder", encoder, "--no-cache", "--json"], stdout=subprocess.PIPE)
    assert process.stdout is not None
    told = json.loads(process.stdout.read())
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{' '.join(command)} failed")
    return {
        "documents": told["documents"],
        "added": told["added"],
        "seconds": round(time.perf_counter() - started, 1),
        "peak_bytes": usage.ru_maxrss * 1024,
    }


def searched(index: Path, topics: Path) -> dict[str, Any]:
    """Seconds to encode 1,000 queries, to search them exactly, and to evaluate a run of 1,000 x 1,000."""
    from crosslens import evaluate, open_index
    from crosslens.encoders.base import encode_matrix
    from crosslens.encoders.registry import load_encoder
    from crosslens.indexes.encoding import Precomputed

    queries = list(islice(load_collection(topics).queries(), TOPICS))
    opened = open_index(index)
    (spec,) = opened.specs
    encoder = load_encoder(spec.name)
    started = time.perf_counter()
    vectors = encode_matrix(encoder, queries, "query")
    encoded = time.perf_counter() - started
    opened = open_index(index, encoders=Precomputed(spec, queries, vectors))
    opened.search(queries[:8], 10, exact=True)  # the first search opens files
    found = {}
    for deep in (100, DEEP):
        started = time.perf_counter()
        run = opened.search(queries, deep, exact=True)
        found[deep] = round(time.perf_counter() - started, 2)
    qrels = {query: {hit.id: rank % 4 for rank, hit in enumerate(hits[::10])} for query, hits in run.hits.items()}
    started = time.perf_counter()
    evaluate({"run": run}, qrels, ["nDCG@20", "AP", "RBP(rel=1)", "R@100", "R@1000", "Judged@20", "RR"])
    return {
        "queries": len(queries),
        "encode_seconds": round(encoded, 2),
        "search_seconds": found,
        "evaluate_seconds": round(time.perf_counter() - started, 2),
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


def tables(found: dict[str, Any]) -> list[Table]:
    """What pages show: growth of indexing, and the seconds of a search and its evaluation."""
    rows = []
    for each in found["indexing"].values():
        sizes = [f"{each[key] / 1e6:,.0f}" if key in each else "" for key in ("peak_bytes", "above_bytes")]
        speed = [f"{each['seconds']:,.0f}", f"{each.get('per_second', '')}"]
        rows.append([f"{each['documents']:,}", *speed, *sizes])
    columns = ("documents", "seconds", "documents/s", "peak resident MB", "above program and model, MB")
    search = found["search"]
    spent = [[f"encode {search['queries']:,} queries", str(search["encode_seconds"])]]
    spent += [[f"search them exactly, {k} deep", str(each)] for k, each in search["search_seconds"].items()]
    spent.append(["seven measures of the deepest run", str(search["evaluate_seconds"])])
    return [Table(columns, rows, "Indexing"), Table(("", "seconds"), spent, "Search")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("collection", type=Path)
    parser.add_argument("--sizes", default="10000,60000")
    parser.add_argument("--dir", type=Path, default=Path("/tmp/scale"))
    parser.add_argument("--encoder", default="offline:e5-small")
    parser.add_argument("--search-only", type=Path, help=argparse.SUPPRESS)
    add_save(parser)
    given = parser.parse_args()
    if given.search_only:
        print(json.dumps(searched(given.search_only, given.collection)))
        return
    sizes = [10, *map(int, given.sizes.split(","))]
    report = {}
    for size in sizes:
        collection = subset(given.collection, size, given.dir)
        report[size] = indexed(collection, given.dir / f"index-{size}", given.encoder)
        print(f"{size}: {report[size]}", file=sys.stderr, flush=True)
    empty = report[10]
    print(f"{'documents':>10} {'seconds':>9} {'docs/s':>8} {'peak MB':>8} {'above model MB':>15}", file=sys.stderr)
    for size in sizes[1:]:
        told = report[size]
        told["per_second"] = round(told["added"] / (told["seconds"] - empty["seconds"]), 1)
        told["above_bytes"] = told["peak_bytes"] - empty["peak_bytes"]
        print(
            f"{told['documents']:>10} {told['seconds']:>9} {told['per_second']:>8} {told['peak_bytes'] / 1e6:>8.0f} "
            f"{told['above_bytes'] / 1e6:>15.0f}",
            file=sys.stderr,
        )
    alone = subprocess.run(
        [sys.executable, __file__, str(given.collection), "--search-only", str(given.dir / f"index-{sizes[-1]}")],
        stdout=subprocess.PIPE, check=True,
    )  # fmt: skip
    search = json.loads(alone.stdout)
    print(f"search: {search}", file=sys.stderr)
    found = {"indexing": report, "search": search}
    save(given.save, found, tables(found))
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
