"""What does `crosslens search` cost from the shell to the result, beside the commit before, and beside a service?

Runs the whole command in turns on one index, made once of the demo's texts by `offline:e5-small`: here by full text, by
vectors and by both, by the code of another revision (`--baseline REV`, from a worktree), and asking a service that is
running (`--server`). The CPU time is that of the child process, which another program's work changes less than the wall
time; the median of the runs. Prints a table on stderr and one JSON object on stdout.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from measurements import ROOT, Table, add_save, save

PROGRAM = [sys.executable, "-c", "from crosslens.commands.app import script; script()"]
QUERY = "how long do cats sleep"
MODES = ("lexical", "dense", "hybrid")
MAKE = """
import sys
from crosslens.demo.collection import Demo
from crosslens.encoders.registry import load_encoder
from crosslens.indexes.registry import create_index
index = create_index(sys.argv[1], name="demo")
index.add([item for item in Demo().docs() if item.text and item.image is None], load_encoder("offline:e5-small"))
index.build()
"""


@contextmanager
def check_out(revision: str) -> Iterator[Path]:
    """A folder from which Python imports the package as it was at a revision."""
    with tempfile.TemporaryDirectory() as where:
        tree = Path(where) / "tree"
        subprocess.run(
            ["git", "worktree", "add", "--detach", str(tree), revision], cwd=ROOT, check=True, capture_output=True
        )
        try:
            (Path(where) / "crosslens").symlink_to(tree)
            yield Path(where)
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", str(tree)], cwd=ROOT, check=True)


@contextmanager
def serve(index: Path) -> Iterator[str]:
    """The address of a service of the index."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    service = subprocess.Popen(
        [*PROGRAM, "serve", str(index), "--port", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        for line in service.stderr:
            if "ready" in line:
                break
        else:
            raise RuntimeError("the service did not start")
        yield f"http://127.0.0.1:{port}"
    finally:
        service.terminate()
        service.communicate()


def run_once(arguments: list[str], environment: dict[str, str]) -> tuple[float, float]:
    """The CPU seconds of the command, and those on the clock."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([*PROGRAM, "search", *arguments], env=environment, check=True, stdout=subprocess.DEVNULL)
    wall, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, wall


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--baseline", metavar="REV", help="also the code of this commit")
    add_save(parser)
    options = parser.parse_args()
    now = dict(os.environ)
    with tempfile.TemporaryDirectory() as where:
        index = Path(where) / "demo.index"
        subprocess.run([sys.executable, "-c", MAKE, str(index)], env=now, check=True)
        cases = {(mode, "here"): ([str(index), QUERY, "--mode", mode, "--json"], now) for mode in MODES}
        with check_out(options.baseline or "HEAD") as tree:
            if options.baseline:  # its own index: it may not know what a later one writes
                then, old = {**now, "PYTHONPATH": str(tree)}, str(Path(where) / "old.index")
                subprocess.run([sys.executable, "-c", MAKE, old], env=then, check=True)
                cases |= {(mode, "before"): ([old, QUERY, "--mode", mode, "--json"], then) for mode in MODES}
            with serve(index) as url:
                cases["dense", "service"] = ([*cases["dense", "here"][0], "--server", url], now)
                for place in ("here", "before", "service"):  # files are read, and what is kept in the cache is made
                    if ("dense", place) in cases:
                        run_once(*cases["dense", place])
                took: dict[tuple[str, str], list[tuple[float, float]]] = {case: [] for case in cases}
                for _ in range(options.runs):
                    for case, call in cases.items():
                        took[case].append(run_once(*call))
    middle = {case: tuple(statistics.median(part) for part in zip(*each, strict=True)) for case, each in took.items()}
    rows = []
    for mode in MODES:
        for place, name in (("before", f"at {options.baseline}"), ("here", "now"), ("service", "now, `--server`")):
            if (mode, place) in middle:
                cpu, wall = middle[mode, place]
                ratio = f"{middle[mode, 'before'][0] / cpu:.1f}" if options.baseline else ""
                rows.append([f"{mode}, {name}", f"{cpu:.2f}", f"{wall:.2f}", ratio])
    figures = {f"{mode}, {place}": {"cpu": cpu, "wall": wall} for (mode, place), (cpu, wall) in middle.items()}
    table = Table(("search", "CPU seconds", "seconds", "times less CPU"), rows)
    print(table.markdown(), file=sys.stderr)
    notes = [
        f"The whole command, as one process; the median of {options.runs} runs in turns, on a machine with other work."
    ]
    save(options.save, figures, [table], notes)
    print(json.dumps(figures, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
