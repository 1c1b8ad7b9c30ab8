"""`serve.py load`: how many searches a second by 1, 8, 64 and 512 clients, and what the service adds to one search."""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from measurements import Table
from serve_client import CANCELLED, LOST, Load, Request, Sending, generate
from serve_process import Service

GOALS = {"batching": 4.0, "overhead_ms": 5.0}
BATCHING = 64  # clients whose rate is held against that of one
PROBED = 200  # answers of a step that are compared with the index's own
NEAR = 0.7  # of ten hits must be the same: vectors of half precision differ a little in a batch
HEADER = ("index", "clients", "requests a second", "p50 ms", "p95 ms", "p99 ms", "sent away (429)", "failed", "lost")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--index", nargs="+", metavar="NAME=DIR", required=True, help="each is served by itself")
    parser.add_argument("--texts", default="demo", metavar="COLLECTION", help="queries are made of it (%(default)s)")
    parser.add_argument("--clients", nargs="+", type=int, default=[1, 8, 64, 512])
    parser.add_argument("--beyond", type=int, default=640, help="clients that are too many (%(default)s)")
    parser.add_argument("--seconds", type=float, default=20, help="of a step (%(default)s)")
    parser.add_argument("--rounds", type=int, default=4, help="of the comparison with index.search (%(default)s)")
    parser.add_argument("--seed", type=int, default=0)


def measure(options: argparse.Namespace) -> tuple[dict[str, Any], list[Table], list[str]]:
    queries = make_queries(options.texts, options.seed)
    report: dict[str, Any] = {"indexes": {}, "goals": GOALS}
    for named in options.index:
        name, _, where = named.rpartition("=")
        report["indexes"][name or Path(where).name] = measure_index(where, queries, options)
    rows = [
        [name, step, *(f"{each[key]:.1f}" for key in ("rate", "p50", "p95", "p99")),
         *(f"{each[key]:,}" for key in ("sent_away", "failed", "lost"))]
        for name, found in report["indexes"].items() for step, each in found["steps"].items()
    ]  # fmt: skip
    costs = [
        [name, f"{found['batching']:.2f}", *(f"{found['one'][key]:.2f}" for key in ("index", "service", "repeated")),
         f"{found['overhead_ms']:.2f}", f"{found['different']} of {found['compared']}"]
        for name, found in report["indexes"].items()
    ]  # fmt: skip
    report["meets"] = {name: meets(found) for name, found in report["indexes"].items()}
    heads = (f"rate of {BATCHING} clients to that of 1", "`index.search`, p50 ms", "service, p50 ms", "repeated, p50 ms",
             "service - index, ms", "other hits")  # fmt: skip
    notes = [
        "Dense search for 10 documents; no query is asked twice but in the steps called repeated. Clients begin their next "
        "request when the last is answered, and run in a process of their own on the same cores. Failed: an answer that "
        "is an error; lost: none within 60 s. Other hits: answers that share less than 7 of 10 hits with `index.search`."
    ]
    return report, [Table(HEADER, rows), Table(("index", *heads), costs)], notes


def measure_index(where: str, queries: Iterator[str], options: argparse.Namespace) -> dict[str, Any]:
    """All steps with one index: each number of clients, too many, the same queries again, and beside `index.search`."""
    found: dict[str, Any] = {"steps": {}}
    compared, different = 0, 0
    search = Direct(where)
    with tempfile.TemporaryDirectory() as made:
        service = Service.serve(where, "--mode", "dense", log=Path(made) / "server.log")
        with service:
            found["documents"], found["ready_seconds"] = len(search.index), round(service.started, 1)
            generate(Load(service.port, 8, 3, ask(queries, 5000)))  # the first are slower
            found["one"], found["overhead_ms"] = beside(service, search, queries, options)
            for clients in [*options.clients, options.beyond]:
                requests = ask(queries, enough(clients, options.seconds))
                cpu = service.cpu_seconds()
                sending = generate(Load(service.port, clients, options.seconds, requests, keep=True))
                step = summed(sending) | {"server_cpu": round(service.cpu_seconds() - cpu, 1)}
                found["steps"][f"{clients:,}"] = step
                print(json.dumps({"index": where, "clients": clients, **step}), file=sys.stderr, flush=True)
                if clients <= max(options.clients):
                    new = compare(sending, requests, search)
                    compared, different = compared + new[0], different + new[1]
            few = ask(queries, BATCHING)
            generate(Load(service.port, BATCHING, options.seconds, few))
            for clients in (1, BATCHING):
                sending = generate(Load(service.port, clients, options.seconds / 2, few, repeat=True))
                found["steps"][f"{clients:,}, repeated"] = summed(sending)
            found["rss_mb"] = round(service.rss())
    found["one"]["repeated"] = found["steps"]["1, repeated"]["p50"]
    rates = {step: each["rate"] for step, each in found["steps"].items()}
    found["batching"] = rates[str(BATCHING)] / rates["1"] if {str(BATCHING), "1"} <= rates.keys() else float("nan")
    found["compared"], found["different"] = compared, different
    return found


class Direct:
    """`index.search` in this process, as the service calls it: the language found, ten documents read."""

    def __init__(self, where: str) -> None:
        from crosslens.indexes.registry import open_index

        self.index = open_index(where)
        self.index.ready()
        self("a first search")

    def __call__(self, text: str) -> list[str]:
        from crosslens.items import Item
        from crosslens.multilingual.languages import fill_languages

        run = self.index.search(fill_languages([Item("query", text=text)]), 10, mode="dense")
        return [item.id for item in run.items("query")]


def beside(
    service: Service, search: Direct, queries: Iterator[str], options: argparse.Namespace
) -> tuple[dict[str, float], float]:
    """Medians in milliseconds of `index.search` and of one client, in turns; and how much longer the client waits."""
    spent: dict[str, list[float]] = {"index": [], "service": []}
    for _ in range(options.rounds):
        until = time.monotonic() + options.seconds / options.rounds
        while (began := time.monotonic()) < until:
            search(next(queries))
            spent["index"].append(time.monotonic() - began)
        seconds = options.seconds / options.rounds
        sending = generate(Load(service.port, 1, seconds, ask(queries, enough(1, seconds))))
        spent["service"] += [each.seconds for each in sending.sent if each.status == 200]
    medians = {name: float(np.median(each)) * 1000 for name, each in spent.items()}
    return medians, medians["service"] - medians["index"]


def compare(sending: Sending, requests: Sequence[Request], search: Direct) -> tuple[int, int]:
    """How many of a step's answers were compared with the index's own, and how many are about something else."""
    answered = [each for each in sending.sent if each.status == 200]
    probed = answered[:: max(1, len(answered) // PROBED)]
    different = 0
    for each in probed:
        ids = {hit["id"] for hit in json.loads(each.body or "{}")["hits"]}
        truth = search(requests[each.number].body["text"])
        different += len(ids & set(truth)) < NEAR * len(truth)
    return len(probed), different


def summed(sending: Sending) -> dict[str, Any]:
    """Rate and percentiles of the requests that were answered, and how many were not; statuses by their number."""
    good = np.array([each.seconds for each in sending.sent if each.status == 200]) * 1000
    away = [each for each in sending.sent if each.status == 429]
    p50, p95, p99 = np.percentile(good, (50, 95, 99)) if len(good) else (float("nan"),) * 3
    return {
        "requests": len(sending.sent),
        "rate": round(len(good) / sending.seconds, 2),
        "p50": round(float(p50), 2),
        "p95": round(float(p95), 2),
        "p99": round(float(p99), 2),
        "sent_away": len(away),
        "without_retry_after": sum(each.retry_after is None for each in away),
        "failed": sum(each.status not in (200, 429, LOST, CANCELLED) for each in sending.sent),
        "lost": sum(each.status == LOST for each in sending.sent),
        "client_cpu": round(sending.cpu, 1),
        "seconds": round(sending.seconds, 1),
    }


def meets(found: dict[str, Any]) -> dict[str, bool]:
    """Which goals an index's figures meet."""
    *below, beyond = [each for step, each in found["steps"].items() if "repeated" not in step]
    return {
        "batching": found["batching"] >= GOALS["batching"],
        "overhead": found["overhead_ms"] < GOALS["overhead_ms"],
        "none failed or lost": not any(each["failed"] + each["lost"] + each["sent_away"] for each in below),
        "too many are sent away": beyond["sent_away"] > 0 == beyond["failed"] + beyond["lost"],
        "with Retry-After": not beyond["without_retry_after"],
        "each has its own answer": not found["different"],
    }


def make_queries(collection: str, seed: int) -> Iterator[str]:
    """Queries without end, none twice: each is two pieces of some words, of texts of the collection."""
    from crosslens.multilingual.collections.registry import load_collection

    texts = [item.text for item in load_collection(collection).docs() if item.text]
    draw, seen = random.Random(seed), set()
    while True:
        query = " ".join(_cut(draw.choice(texts), draw) for _ in range(2))
        if query not in seen:
            seen.add(query)
            yield query


def _cut(text: str, draw: random.Random) -> str:
    """Four words in a row, or as many characters of a text without spaces."""
    words = text.split()
    if len(words) > len(text) / 20:
        begin = draw.randrange(max(1, len(words) - 4))
        return " ".join(words[begin : begin + 4])
    begin = draw.randrange(max(1, len(text) - 12))
    return text[begin : begin + 12]


def ask(queries: Iterator[str], count: int) -> list[Request]:
    return [Request("/search", {"text": next(queries), "k": 10, "mode": "dense"}) for _ in range(count)]


def enough(clients: int, seconds: float) -> int:
    """More requests than so many clients can send in the time."""
    return int(seconds * min(400 * clients, 4000)) + clients
