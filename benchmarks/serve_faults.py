"""`serve.py faults`: what is lost when a worker is killed, a rerank hangs, an index is rebuilt, the service is ended."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import psutil
from crosslens.errors import CrosslensError
from crosslens.multilingual.collections.registry import load_collection
from measurements import Table, try_check
from serve_client import LOST, Load, Request, Sent, collect, start
from serve_load import make_queries, summed
from serve_process import CROSSLENS, Service, measure_cpu

BACK = 90.0  # seconds in which a new worker should be there
EDGE = 0.2  # seconds around a signal in which what is in flight is not sure
WEEVIL = {"id": "weevil", "text": "zyzzyva weevils of Brazil eat palm leaves at noon", "lang": "eng"}
BUSTARD = {"id": "bustard", "text": "a bustard runs before it flies over the steppe", "lang": "eng"}
# It scores nothing: it never comes back.
SLEEPER = """
import time
from crosslens.multilingual.judges import BaseJudge


class Sleeper(BaseJudge):
    can = frozenset({"score"})
    fingerprint = "sleeper"

    def __init__(self, checkpoint="", *, device="auto", trust_remote_code=False):
        super().__init__("sleeper", revision="1")

    def compute_scores(self, prompts):
        time.sleep(3600)
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--collection", default="demo", help="what the index is made of (%(default)s)")
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=12, help="of each load (%(default)s)")
    parser.add_argument("--only", default="", metavar="WORD", help="checks that have this in their name")
    parser.add_argument("--seed", type=int, default=0)


def measure(options: argparse.Namespace) -> tuple[dict[str, Any], list[Table], list[str]]:
    rows = []
    with tempfile.TemporaryDirectory() as made:
        checks = Checks(options, Path(made))
        for name in (name for name in vars(Checks) if name.startswith("check_") and options.only in name):
            rows.append(try_check(name.removeprefix("check_").replace("_", " "), getattr(checks, name)))
            print(rows[-1], file=sys.stderr, flush=True)
    shown = [[row["check"], row["state"], row["found"], f"{row['seconds']:.0f}"] for row in rows]
    report = {"checks": rows, "meets": {row["check"]: row["state"] == "kept" for row in rows}}
    notes = [f"{options.clients} clients with dense searches, on an index of the collection {options.collection}."]
    return report, [Table(("check", "", "found", "s"), shown)], notes


class Checks:
    """Each method that begins with `check_` is a line of the report."""

    def __init__(self, options: argparse.Namespace, folder: Path) -> None:
        self.options, self.folder = options, folder
        self.queries: Iterator[str] = make_queries(options.collection, options.seed)
        self.index, self.collection = folder / "searched", folder / "collection"
        self.collection.mkdir()
        texts = (item for item in load_collection(options.collection).docs() if item.text)
        self.write({"id": item.id, "text": item.text, "lang": item.lang} for item in texts)
        command("index", str(self.collection), str(self.index))

    def write(self, documents: Iterable[dict[str, Any]]) -> None:
        """Add documents to the collection."""
        with (self.collection / "docs.jsonl").open("a", encoding="utf-8") as out:
            out.writelines(json.dumps(each) + "\n" for each in documents)

    def serve(self, *more: str) -> Service:
        log, path = self.folder / "server.log", os.environ.get("PYTHONPATH")
        environment = {"PYTHONPATH": os.pathsep.join(filter(None, [str(self.folder), path]))}
        return Service.serve(str(self.index), "--mode", "dense", *more, log=log, environment=environment)

    def load(self, service: Service, clients: int = 0, seconds: float = 0, **more: Any) -> subprocess.Popen[str]:
        seconds, clients = seconds or self.options.seconds, clients or self.options.clients
        asked = [Request("/search", {"text": next(self.queries), "mode": "dense", **more}) for _ in range(6000)]
        process = start(Load(service.port, clients, seconds, asked, repeat=True, keep=True))
        time.sleep(2)  # the connections are there
        return process

    def check_a_killed_worker_loses_only_its_requests_in_flight(self) -> str:
        with self.serve("--workers", "2") as service:
            workers = service.workers()
            require(len(workers) == 2, f"there are {len(workers)} workers, not 2")
            before = {each: measure_cpu(each) for each in workers}
            process = self.load(service)
            busy = max(workers, key=lambda each: measure_cpu(each) - before[each])  # one may have all connections
            killed = time.monotonic()
            busy.kill()
            back = wait_for(lambda: len(new := service.workers()) == 2 and busy not in new, BACK)
            sending = collect(process)
            lost = [each for each in sending.sent if each.status == LOST]
            beside = [each for each in lost if not spans(each, killed)]
            flying = sum(spans(each, killed, 0.0) for each in sending.sent)
            require(flying > 0, "no request was in flight")
            require(not beside, f"{len(beside)} of {len(lost)} requests that were lost were not in flight")
            require(len(lost) <= self.options.clients, f"{len(lost)} requests were lost")
            require(not summed(sending)["failed"], f"{summed(sending)['failed']} requests failed")
            require(back is not None, f"no new worker in {BACK:.0f} s")
            status, _ = service.ask("POST", "/search", {"text": "cats sleep"})
            require(status == 200, f"a search afterwards: {status}")
            return f"{len(lost)} of {len(sending.sent):,} requests lost, {flying} were in flight; a new worker after {back:.1f} s"

    def check_a_rerank_that_hangs_does_not_take_the_service_with_it(self) -> str:
        (self.folder / "sleeper.py").write_text(SLEEPER, "utf-8")
        with self.serve("--rerank", "cross@py:sleeper:Sleeper?depth=4") as service:
            seconds = self.options.seconds / 2
            alone = summed(collect(self.load(service, 8, seconds, rerank=False)))
            hung = self.load(service, 4, 3 * seconds, rerank=True, timeout_ms=2000)
            beside = summed(collect(self.load(service, 8, seconds, rerank=False)))
            late = collect(hung).sent
            statuses = sorted({each.status for each in late})
            require(
                not beside["failed"] + beside["lost"], f"{beside['failed']} searches failed, {beside['lost']} were lost"
            )
            require(beside["rate"] > alone["rate"] / 2, f"{beside['rate']} searches a second, {alone['rate']} without")
            require(not set(statuses) - {200, 429, 503}, f"hanging reranks were answered with {statuses}")
            partial = [json.loads(each.body or "{}").get("partial") for each in late if each.status == 200]
            require(
                bool(partial) and all(partial),
                f"{len(partial) - sum(map(bool, partial))} answers are not marked partial",
            )
            longest = max(each.seconds for each in late)
            require(longest < 4, f"an answer that was due after 2 s came after {longest:.1f} s")
            began = time.monotonic()
            status = service.stop(within=60)
            require(status in (0, 143, -15), f"exit status {status} after SIGTERM")
            ended = time.monotonic() - began
        return (
            f"{beside['rate']:.0f} searches a second beside it, {alone['rate']:.0f} without; {len(partial)} answers partial, "
            f"after {longest:.1f} s at most; ended {ended:.1f} s after SIGTERM"
        )

    def check_an_index_is_changed_under_load(self) -> str:
        self.write([WEEVIL])
        with self.serve() as service:
            process = self.load(service, seconds=3 * self.options.seconds)
            command("index", str(self.collection), str(self.index))
            seen = wait_for(lambda: find(service, WEEVIL["text"]) == WEEVIL["id"], 30)
            require(seen is not None, "the new document is not found 30 s after it was added")
            command("delete", str(self.index), WEEVIL["id"])
            gone = wait_for(lambda: find(service, WEEVIL["text"]) != WEEVIL["id"], 30)
            require(gone is not None, "the document is still found 30 s after it was deleted")
            return f"{whole(process)} requests, none failed; found {seen:.1f} s after it was added, gone after {gone:.1f} s"

    def check_an_index_is_rebuilt_under_load(self) -> str:
        """The directory is a symbolic link, and another index is put in its place."""
        first, second, link = self.folder / "first", self.folder / "second", self.folder / "link"
        self.index.rename(first)
        self.index.symlink_to(first)
        self.write([BUSTARD])
        with self.serve() as service:
            process = self.load(service, seconds=3 * self.options.seconds)
            command("index", str(self.collection), str(second))
            link.symlink_to(second)
            os.replace(link, self.index)
            seen = wait_for(lambda: find(service, BUSTARD["text"]) == BUSTARD["id"], 30)
            require(seen is not None, "the new index is not searched 30 s after it was put in place")
            return f"{whole(process)} requests, none failed; the new index was searched after {seen:.1f} s"

    def check_sigterm_drains(self) -> str:
        with self.serve() as service:
            process = self.load(service)
            terminated = time.monotonic()
            status = service.stop(within=60)
            ended = time.monotonic() - terminated
            sending = collect(process)
        flying = [each for each in sending.sent if spans(each, terminated, 0.0)]
        lost = [each for each in flying if each.status == LOST]
        after = sorted({each.status for each in sending.sent if each.started > terminated})
        require(bool(flying), "no request was in flight")
        require(not lost, f"{len(lost)} of {len(flying)} requests in flight were lost")
        require(status in (0, 143, -15), f"exit status {status}")
        require(set(after) <= {200, 503, LOST}, f"requests after SIGTERM were answered with {after}")
        return f"all {len(flying)} requests in flight were answered; ended after {ended:.1f} s with status {status}"


def command(*arguments: str) -> None:
    done = subprocess.run([*CROSSLENS, *arguments], capture_output=True, text=True, check=False)
    require(done.returncode == 0, f"crosslens {arguments[0]}: {done.stderr[-500:].strip()}")


def find(service: Service, text: str) -> str | None:
    """The id of the best hit."""
    status, answer = service.ask("POST", "/search", {"text": text, "mode": "dense", "k": 1})
    return json.loads(answer)["hits"][0]["id"] if status == 200 else None


def whole(process: subprocess.Popen[str]) -> str:
    """How many requests a load was answered; raises where one of them was not."""
    step = summed(collect(process))
    bad = {name: step[name] for name in ("failed", "lost", "sent_away") if step[name]}
    require(not bad, f"of {step['requests']:,} requests: {bad}")
    return f"{step['requests']:,}"


def wait_for(held: Callable[[], bool], most: float) -> float | None:
    """The seconds until something holds; None where it does not in time."""
    began = time.monotonic()
    while time.monotonic() - began < most:
        try:
            if held():
                return time.monotonic() - began
        except (OSError, psutil.Error):
            pass
        time.sleep(0.1)
    return None


def require(held: bool, why: str) -> None:
    if not held:
        raise CrosslensError(why)


def spans(one: Sent, moment: float, edge: float = EDGE) -> bool:
    """Whether a request was in flight at a moment."""
    return one.started - edge <= moment <= one.started + one.seconds + edge
