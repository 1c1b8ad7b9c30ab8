"""Does crosslens work on this GPU, and how fast: one line, some minutes, and nothing to be prepared there.

    python benchmarks/gpu.py                  # the first GPU, or the CPU where there is none; 8 minutes at most
    python benchmarks/gpu.py --quick          # small sizes, tiny random models: also on a CPU
    python benchmarks/gpu.py --only encode flat --lines rows.jsonl --save docs/measured/gpu.json

First checks: what the GPU computes is what the CPU computes, and what goes wrong there ends as it should. Then measures,
warm, the median of three rounds in which ours and its peers take turns. Each has its own limit of time; one that hangs
or takes its process down is killed, and the others go on in another. What is not here (a package, a model, a GPU) is
named, and its check is not run. A line of JSON appears in `--lines` as each ends.

Needs a checkout of the repository, and of packages torch, transformers, scipy, safetensors, pillow and filelock. More is
used where it is here: e5-small and Gemma (random models of the same shapes stand in), sentence-transformers, peft, datasets,
open_clip, faiss. `gpu_wheels.sh` collects what a machine without a network lacks in `luggage/`, where it is found.

Prints rows on stderr as they come, then a table there, and one JSON object on stdout; exits with 1 if a check is broken or
a goal is missed.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, Queue
from typing import IO, Any

ROOT = Path(__file__).resolve().parents[1]
START = 240.0  # seconds that a process may take to import what checks need


@dataclass(frozen=True)
class Task:
    """A check or a measure: the function, and the seconds that it may take."""

    function: str
    limit: float


TASKS = {
    "card": Task("gpu_checks:check_card", 60),
    "devices": Task("gpu_checks:check_devices", 60),
    "text": Task("gpu_checks:compare_text", 90),
    "llm": Task("gpu_checks:compare_llm", 60),
    "clip": Task("gpu_checks:compare_clip", 60),
    "vlm": Task("gpu_checks:compare_vlm", 60),
    "batches": Task("gpu_checks:compare_batches", 60),
    "memory": Task("gpu_checks:run_out_of_memory", 60),
    "nan": Task("gpu_checks:refuse_nan", 30),
    "judge": Task("gpu_checks:compare_judges", 90),
    "attention": Task("gpu_checks:compare_attention", 60),
    "search": Task("gpu_checks:compare_search", 60),
    "share": Task("gpu_checks:share_card", 120),
    "encode": Task("gpu_speed:measure_encoding", 90),
    "likelihood": Task("gpu_speed:measure_likelihood", 90),
    "setwise": Task("gpu_speed:measure_setwise", 90),
    "flat": Task("gpu_speed:measure_flat", 90),
    "pictures": Task("gpu_speed:measure_pictures", 90),
    "train": Task("gpu_speed:measure_training", 120),
    "lora": Task("gpu_speed:measure_adapters", 120),
}
Row = dict[str, Any]


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto", help="(%(default)s)")
    parser.add_argument("--quick", action="store_true", help="small sizes, tiny random models, no goals")
    parser.add_argument("--only", nargs="+", choices=TASKS, default=list(TASKS), metavar="NAME", help=", ".join(TASKS))
    parser.add_argument("--minutes", type=float, default=8.0, help="for all of it (%(default)s)")
    parser.add_argument("--lines", type=Path, metavar="FILE", help="a line of JSON for each, as it ends")
    parser.add_argument("--log", type=Path, metavar="FILE", help="what libraries say")
    parser.add_argument("--save", type=Path, metavar="FILE", help="also keep what is measured: docs/measured/NAME.json")
    parser.add_argument("--worker", type=Path, metavar="FOLDER", help=argparse.SUPPRESS)  # in a process of its own
    given = parser.parse_args(arguments)
    for path in filter(None, (given.lines, given.log, given.save)):  # not after minutes
        if path.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
            parser.error(f"cannot write {path}")
    return given


def main() -> int:
    options = parse_arguments()
    if options.worker:
        return work(options)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that no process is left behind
    with tempfile.TemporaryDirectory(prefix="crosslens-gpu-") as scratch:
        folder = Path(scratch)
        prepare_imports(folder)
        log = options.log or folder / "log"
        rows = []
        for row in run_tasks(options, folder, log):
            rows.append(row)
            show(row)
            if options.lines:
                with options.lines.open("a", encoding="utf-8") as out:
                    out.write(json.dumps(row) + "\n")
        report(options, rows)
    return int(any(row["state"] == "broken" for row in rows))


def prepare_imports(folder: Path) -> None:
    """Let this process and its children find crosslens, which is this checkout, and what `luggage` holds."""
    paths = [unpack_luggage(folder)] if any((ROOT / "luggage").glob("*/*")) else []
    spec = importlib.util.find_spec("crosslens")
    if spec is None or Path(str(spec.origin)).resolve() != ROOT / "__init__.py":
        (folder / "checkout").mkdir()
        (folder / "checkout/crosslens").symlink_to(ROOT)
        paths.append(folder / "checkout")
    sys.path[:0] = map(str, paths)
    os.environ["PYTHONPATH"] = os.pathsep.join([*map(str, paths), *filter(None, [os.environ.get("PYTHONPATH")])])
    if importlib.util.find_spec("platformdirs") is None:
        os.environ.setdefault("CROSSLENS_CACHE", str(folder / "cache"))


def unpack_luggage(folder: Path) -> Path:
    """What `gpu_wheels.sh` collected, as a folder of packages: wheels, and parts of an archive of models."""
    site, luggage = folder / "site", ROOT / "luggage"
    site.mkdir()
    if wheels := sorted(luggage.glob("*/*.whl")):
        print(f"from luggage: {', '.join(each.name.partition('-')[0] for each in wheels)}", file=sys.stderr)
        install = [
            sys.executable,
            "-m",
            "pip",
            "install",
            "-q",
            "--no-index",
            "--no-deps",
            "--no-compile",
            "--target",
            str(site),
        ]
        subprocess.run([*install, *map(str, wheels)], check=True)
    for wanted in sorted(luggage.glob("*/*.parts")):  # how many there are
        name, parts = wanted.stem, sorted(luggage.glob(f"*/{wanted.stem}.tar.*"), key=lambda path: path.name)
        if len(parts) < int(wanted.read_text()):
            print(
                f"luggage holds {len(parts)} of {wanted.read_text().strip()} parts of {name}: left out", file=sys.stderr
            )
            continue
        print(f"from luggage: {name}", file=sys.stderr)
        with subprocess.Popen(["tar", "-x", "-C", str(site)], stdin=subprocess.PIPE) as unpack:
            for part in parts:
                unpack.stdin.write(part.read_bytes())  # type: ignore[union-attr]
            unpack.stdin.close()  # type: ignore[union-attr]
    return site


def run_tasks(options: argparse.Namespace, folder: Path, log: Path) -> Iterator[Row]:
    """The rows of all tasks as they end, in processes that are killed when one is not done in time."""
    waiting, ends = list(options.only), time.monotonic() + 60 * options.minutes
    while waiting and time.monotonic() < ends:
        command = [
            sys.executable,
            __file__,
            "--worker",
            str(folder),
            "--device",
            options.device,
            *["--quick"] * options.quick,
            "--only",
        ]
        with log.open("ab") as said:
            worker = subprocess.Popen([*command, *waiting], stdout=subprocess.PIPE, stderr=said, start_new_session=True)
        try:
            yield from follow(worker, waiting, ends, log)
        finally:
            stop(worker)
    for name in waiting:
        yield make_row(name, "not run", f"the {options.minutes:g} minutes were over", 0.0)


def follow(worker: subprocess.Popen[bytes], waiting: list[str], ends: float, log: Path) -> Iterator[Row]:
    """The rows of one process; what it has done is no longer `waiting`, nor what it did not survive."""
    lines: Queue[Row | None] = Queue()
    threading.Thread(target=read_lines, args=(worker.stdout, lines), daemon=True).start()
    left = max(1.0, ends - time.monotonic())
    started, first = time.monotonic(), take(lines, min(START, left))
    if first is None and time.monotonic() >= ends:
        return
    if first is None:
        for name in waiting:
            yield make_row(name, "broken", f"the process did not start: {last_line(log)}", time.monotonic() - started)
        waiting.clear()
    while waiting:
        limit = max(1.0, min(TASKS[waiting[0]].limit, ends - time.monotonic()))
        started = time.monotonic()
        row = take(lines, limit)
        name = waiting.pop(0)
        if row is None:
            spent = time.monotonic() - started
            hangs = worker.poll() is None and spent >= limit
            how = (
                f"not done after {limit:.0f} s: killed"
                if hangs
                else f"its process ended with {worker.wait()}: {last_line(log)}"
            )
            yield make_row(name, "broken", how, spent)
            return
        yield row
        if row.get("fresh"):
            return  # a CUDA error leaves nothing that could be relied on
        if time.monotonic() > ends:
            return


def read_lines(stream: IO[bytes], lines: Queue[Row | None]) -> None:
    for line in stream:
        lines.put(json.loads(line))
    lines.put(None)


def take(lines: Queue[Row | None], seconds: float) -> Row | None:
    """The next row; None where there is none in time, or the process has ended."""
    try:
        return lines.get(timeout=seconds)
    except Empty:
        return None


def stop(worker: subprocess.Popen[bytes]) -> None:
    """End a process and those that it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(worker.pid, signal.SIGKILL)
    worker.wait()


def last_line(log: Path) -> str:
    """The last thing that was said."""
    lines = log.read_text("utf-8", errors="replace").strip().splitlines() if log.exists() else []
    return lines[-1][:300] if lines else "it said nothing"


def work(options: argparse.Namespace) -> int:
    """The tasks in this process: a line of JSON on stdout before the first, and for each."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no JSON

    def send(row: Mapping[str, Any]) -> None:
        print(json.dumps(row), file=out, flush=True)

    quieten()
    from gpu_models import Place

    importlib.import_module("gpu_checks")
    place = Place(options.device, options.quick, options.worker)
    send({"ready": True})
    for name in options.only:
        send(run_task(name, place))
    return 0


def quieten() -> None:
    """Libraries' progress and advice are left out."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()


def run_task(name: str, place: Any) -> Row:
    """One task here and now; `fresh` asks for another process after it."""
    from crosslens.errors import CrosslensError, first_line
    from gpu_models import NotHere
    from measurements import try_check

    module, _, function = TASKS[name].function.partition(":")
    figures: dict[str, Any] = {}
    lacking: list[str] = []
    failed: list[str] = []

    def check() -> str:
        try:
            found: str = getattr(importlib.import_module(module), function)(place, figures)
            return found
        except NotHere as reason:
            lacking.append(str(reason))
            return str(reason)
        except CrosslensError:
            raise
        except Exception as error:
            import traceback

            traceback.print_exc()
            failed.append(name)
            raise CrosslensError(f"{type(error).__name__}: {first_line(error)}") from None

    row = {**try_check(name, check), "figures": figures}
    if lacking:
        row["state"] = "not run"
    return {**row, "fresh": True} if failed else row


def make_row(name: str, state: str, found: str, seconds: float) -> Row:
    return {"check": name, "state": state, "found": found, "seconds": round(seconds, 1), "figures": {}}


def show(row: Row) -> None:
    print(f"{row['state']:8} {row['check']:11} {row['seconds']:6.1f} s  {row['found']}", file=sys.stderr, flush=True)


def report(options: argparse.Namespace, rows: Sequence[Row]) -> None:
    """The table, the JSON object, and the file of measurements."""
    from measurements import Table, save

    card = next((row["figures"] for row in rows if row["check"] == "card"), {})
    table = Table(
        ["check", "state", "found", "s"],
        [[row["check"], row["state"], row["found"], f"{row['seconds']:.1f}"] for row in rows],
    )
    print(table.markdown(), file=sys.stderr)
    figures = {"card": card, "quick": options.quick, "rows": rows}
    print(json.dumps(figures))
    notes = []
    if card:
        names = ", ".join(f"{name} {found}" for name, found in card["versions"].items() if found != "not here")
        absent = ", ".join(name for name, found in card["versions"].items() if found == "not here")
        where = (
            f"{card['card']} with {card['gib']} GiB, driver {card['driver']}, CUDA {card['cuda']}"
            if "card" in card
            else "No GPU"
        )
        notes.append(f"{where}; {names}; not here: {absent or 'nothing'}.")
    if options.quick:
        notes.append("Small sizes and tiny random models: the figures of speed say nothing.")
    save(options.save, figures, [table], notes)


if __name__ == "__main__":
    sys.exit(main())
