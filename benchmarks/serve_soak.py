"""`serve.py soak`: mixed load for some minutes: does memory stay flat, and does every request get the right status?"""

from __future__ import annotations

import argparse
import base64
import json
import random
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

from crosslens.demo.collection import list_photos
from measurements import Table
from serve_client import CANCELLED, Load, Request, generate
from serve_load import make_queries, summed
from serve_process import Service

GOALS = {"growth_mb": 50.0}
# How many of a hundred requests are of a kind.
MIX = {
    "search": 43, "alike": 3, "hybrid": 10, "picture": 8, "both": 3, "explained": 8, "reranked": 3, "document": 4, "embeddings": 6,
    "rerank": 3, "cancelled": 4, "bad": 5,
}  # fmt: skip
DIFFERENT = 4000  # requests, which then come again: more than the service keeps answers of
ALWAYS = (429, 503, 504)  # a full queue, or a deadline, is a proper answer


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("index", metavar="DIR")
    parser.add_argument("--texts", default="demo", metavar="COLLECTION", help="queries are made of it (%(default)s)")
    parser.add_argument("--rerank", default="likelihood@offline:gemma?passage_tokens=64&depth=5", metavar="SPEC")
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--warm", type=float, default=0.2, help="share of the time before memory counts (%(default)s)")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)


def measure(options: argparse.Namespace) -> tuple[dict[str, Any], list[Table], list[str]]:
    seconds = options.minutes * 60
    rows: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as made:
        more = ["--workers", str(options.workers)] * (options.workers > 1)
        system = ["--rerank", options.rerank]
        service = Service.serve(options.index, *system, *more, log=Path(made) / "server.log")
        with service:
            requests = mixed(options.texts, options.seed, DIFFERENT, service)
            began = time.monotonic()
            load = Load(service.port, options.clients, seconds, requests, repeat=True)
            with ThreadPoolExecutor(1) as pool:
                done = pool.submit(generate, load)
                while not done.done():
                    rows.append({"seconds": round(time.monotonic() - began, 1), "rss": service.rss()})
                    if len(rows) % 12 == 0:
                        print({name: round(value) for name, value in rows[-1].items()}, file=sys.stderr, flush=True)
                    wait([done], max(1.0, seconds / 240))
            sending = done.result()
            status, _ = service.ask("GET", "/readyz")
            idle = service.rss()
            stopped = service.stop()
    kinds = count(sending.sent, requests)
    warm = [row["rss"] for row in rows if options.warm * seconds <= row["seconds"] <= seconds]
    first = statistics.median(warm[: max(1, len(warm) // 8)])
    report: dict[str, Any] = {
        "minutes": options.minutes, "clients": options.clients, "total": summed(sending), "kinds": kinds, "memory": rows,
        "growth_mb": max(warm) - first, "drift_mb": statistics.median(warm[-max(1, len(warm) // 8) :]) - first,
        "idle_mb": idle, "ready_after": status, "exit_status": stopped, "goals": GOALS,
    }  # fmt: skip
    report["meets"] = {
        "memory": report["growth_mb"] < GOALS["growth_mb"],
        "statuses": not any(each["wrong"] + each["lost"] for each in kinds.values()),
        "ready after it": status == 200,
    }
    heads = ("request", "sent", "p50 ms", "p99 ms", "sent away (429)", "wrong status", "lost")
    table = [
        [kind, f"{each['sent']:,}", f"{each['p50']:.0f}", f"{each['p99']:.0f}", f"{each['sent_away']:,}", str(each["wrong"]), str(each["lost"])]
        for kind, each in kinds.items()
    ]  # fmt: skip
    memory = [[f"{place:.0%}", f"{_near(rows, place * seconds):,.0f}"] for place in (options.warm, 0.4, 0.6, 0.8, 1.0)]
    notes = [
        f"{options.minutes:g} minutes, {options.clients} clients, index {Path(options.index).name}, reranking by `{options.rerank}`. Resident "
        f"memory after the first {options.warm:.0%} of the time: at most {report['growth_mb']:.0f} MB above what it was then."
    ]  # fmt: skip
    return report, [Table(heads, table), Table(("time", "resident MB"), memory)], notes


def mixed(collection: str, seed: int, number: int, service: Service) -> list[Request]:
    """Requests of all kinds, shuffled by the seed; the documents asked for are those that some searches find."""
    draw = random.Random(seed)
    queries = make_queries(collection, seed)
    photos = sorted((photo.path() for photo in list_photos()), key=lambda path: path.stat().st_size)
    pictures = [base64.b64encode(path.read_bytes()).decode() for path in photos[:8]]
    hits = []
    for _ in range(16):
        _, answer = service.ask("POST", "/search", {"text": next(queries), "rerank": False})
        hits += json.loads(answer)["hits"]
    kinds = draw.choices(list(MIX), weights=list(MIX.values()), k=number)
    return [make(kind, queries, pictures, hits, draw) for kind in kinds]


def make(
    kind: str, queries: Iterator[str], pictures: Sequence[str], hits: Sequence[dict[str, Any]], draw: random.Random
) -> Request:
    """A request of a kind, and what it should be answered with."""
    text = next(queries)
    search: dict[str, Any] = {"text": text, "mode": "dense", "rerank": False}
    match kind:
        case "hybrid":
            return Request(
                "/search", {**search, "mode": "hybrid", "k": draw.choice((1, 10, 100)), "facets": True}, kind
            )
        case "picture":
            return Request("/search", {"image": draw.choice(pictures), "rerank": False}, kind)
        case "both":
            return Request("/search", {**search, "image": draw.choice(pictures)}, kind)
        case "explained":
            return Request("/search", {**search, "explain": True}, kind)
        case "reranked":
            return Request("/search", {**search, "rerank": True, "timeout_ms": 5000}, kind)
        case "document":
            hit = draw.choice(hits)
            paths = [hit[key] for key in ("document", "image", "thumbnail") if hit[key]]
            return Request(draw.choice([*paths, "/service", "/metrics", "/"]), None, kind)
        case "alike":
            return Request("/search", {"id": draw.choice(hits)["id"], "rerank": False}, kind)
        case "embeddings":
            return Request(
                "/v1/embeddings", {"model": "offline:e5-small", "input": [next(queries) for _ in range(8)]}, kind
            )
        case "rerank":
            documents = [next(queries) for _ in range(5)]
            return Request("/v1/rerank", {"query": text, "documents": documents, "top_n": 3}, kind)
        case "cancelled":
            return Request("/search", search, kind, (CANCELLED,), cancel=draw.choice((0.0, 0.002, 0.02, 0.2)))
        case "bad":
            return _bad(search, draw)
    return Request("/search", search, kind)


def _bad(search: dict[str, Any], draw: random.Random) -> Request:
    """What should be refused, each with its status."""
    picture = base64.b64encode(b"GIF89a" + bytes(100)).decode()
    choices: list[tuple[str, Any, int]] = [
        ("/search", "{" + "x" * draw.randrange(100), 400),
        ("/search", {**search, "k": 5000}, 400),
        ("/search", {**search, "text": ""}, 400),
        ("/search", {**search, "text": 17}, 400),
        ("/search", {"image": picture}, 400),
        ("/search", {"image": "not base64!"}, 400),
        ("/search", {**search, "index": "none-such"}, 404),
        ("/documents/none-such/1", None, 404),
        ("/nothing", None, 404),
        ("/v1/embeddings", {"model": "none-such", "input": "a"}, 404),
        ("/search", {**search, "text": "long " * 600_000}, 413),
    ]
    path, body, status = draw.choices(choices, weights=[10] * (len(choices) - 1) + [1])[0]
    return Request(path, body, "bad", (status,))


def count(sent: Sequence[Any], requests: Sequence[Request]) -> dict[str, Any]:
    """By kind: how many, how long, and how many with a status that is not right."""
    kinds: dict[str, Any] = {}
    for kind in MIX:
        mine = [each for each in sent if requests[each.number].kind == kind]
        wrong = [each for each in mine if each.status and each.status not in (*requests[each.number].expected, *ALWAYS)]
        seen = Counter(f"{requests[each.number].path} {each.status}" for each in wrong)
        times = sorted(each.seconds * 1000 for each in mine) or [float("nan")]
        kinds[kind] = {
            "sent": len(mine), "p50": times[len(times) // 2], "p99": times[len(times) * 99 // 100], "wrong": len(wrong),
            "lost": sum(each.status == 0 for each in mine), "sent_away": sum(each.status == 429 for each in mine),
            "late": sum(each.status == 504 for each in mine), "which": dict(seen),
        }  # fmt: skip
    return kinds


def _near(rows: Sequence[dict[str, float]], seconds: float) -> float:
    return min(rows, key=lambda row: abs(row["seconds"] - seconds))["rss"]
