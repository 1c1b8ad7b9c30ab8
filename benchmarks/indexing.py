"""How much of an encoder's own rate is left when it indexes a collection: storing, full text, means of queries and all.

    python benchmarks/collections/debian_descriptions.py /tmp/debian
    python benchmarks/indexing.py /tmp/debian/test --documents 1000

In each round the same documents, drawn from the collection with a seed, are encoded alone, then added to a new index
with the loaded encoder, then indexed by `crosslens index --no-cache` in a process of its own, which also opens the model.
The batches of the encoder were measured before. Compared is CPU time of all threads, which other work changes less
than the time on the clock. Tables go to stderr, one JSON object to stdout; exit status 1 where an index gets less than 90%
of the encoder's rate.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from crosslens.encoders.base import encode_matrix
from crosslens.encoders.registry import load_encoder
from crosslens.indexes.registry import create_index
from crosslens.multilingual.collections.registry import load_collection
from measurements import Table, add_save, save

GOAL = 0.9
SEED = 1


def measure(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds of the clock and of the CPU, of this process and of those it waits for."""

    def spent() -> float:
        used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        return sum(each.ru_utime + each.ru_stime for each in used)

    began, before = time.perf_counter(), spent()
    work()
    return time.perf_counter() - began, spent() - before


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("collection")
    parser.add_argument("--documents", type=int, default=1000)
    parser.add_argument("--encoder", default="offline:e5-use")
    parser.add_argument("--rounds", type=int, default=3)
    add_save(parser)
    given = parser.parse_args()
    documents = list(load_collection(given.collection).docs())
    documents = random.Random(SEED).sample(documents, min(given.documents, len(documents)))
    encoder = load_encoder(given.encoder)
    encode_matrix(encoder, documents, "document")  # measures its batches
    command = [str(Path(sys.executable).with_name("crosslens")), "index", "--encoder", given.encoder, "--no-cache"]
    spent: dict[str, list[tuple[float, float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "documents")
        source.mkdir()
        with open(source / "docs.jsonl", "w", encoding="utf-8") as out:
            for item in documents:
                out.write(json.dumps({"id": item.id, "text": item.text, "lang": item.lang}, ensure_ascii=False) + "\n")
        for turn in range(given.rounds):
            works: dict[str, Callable[[], object]] = {
                "the encoder alone": lambda: encode_matrix(encoder, documents, "document"),
                "`add` to a new index": lambda turn=turn: create_index(f"{folder}/add{turn}").add(documents, encoder),
                "`crosslens index`, from the shell": lambda turn=turn: subprocess.run(
                    [*command, str(source), f"{folder}/shell{turn}"], check=True, stdout=subprocess.DEVNULL
                ),
            }
            for name, work in works.items():
                spent.setdefault(name, []).append(measure(work))
                print(f"{name}: {spent[name][-1]}", file=sys.stderr, flush=True)
    rows, found = [], {}
    alone = [cpu for _, cpu in spent["the encoder alone"]]
    for name, turns in spent.items():
        clock, cpu = (statistics.median(each) for each in zip(*turns, strict=True))
        share = statistics.median(own / each for own, (_, each) in zip(alone, turns, strict=True))
        found[name] = {"seconds": round(clock, 2), "cpu_seconds": round(cpu, 2), "of_cpu": round(share, 3)}
        rows.append([name, f"{len(documents) / clock:.1f}", f"{cpu:.1f}", f"{share:.2f}"])
    columns = ("", "documents/s", "seconds of the CPU", "ratio of CPU time to the encoder's")
    report = {"documents": len(documents), "encoder": given.encoder, "systems": found}
    save(given.save, report, [Table(columns, rows, f"{len(documents):,} documents, {given.encoder}")])
    print(json.dumps(report))
    return int(found["`add` to a new index"]["of_cpu"] < GOAL)


if __name__ == "__main__":
    sys.exit(main())
