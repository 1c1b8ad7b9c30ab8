"""What `docs/measured` shows, measured again on this machine and compared: which figures got worse?

    python benchmarks/run_all.py --data /work/data --minutes 60
    python benchmarks/run_all.py --data /work/data startup demo --save
    python benchmarks/run_all.py --dry-run

Each file there holds the command that made it, which is run again. Paths of its inputs are looked for under `--data`, by
as many of their last parts as are there (`/tmp/help/dev` is DIR/help/dev), and then where they were; what it writes goes
to a folder that is removed. Left out, with the reason: files that are marked as transcribed, inputs and models that are
not here, and what took longer than is left of `--minutes`; what is not known to be short is stopped when these are over.
`--save` renews the files of what was run.

What is worse, `benchmarks/regressions.py` declares. Prints a table on stderr and one JSON object on stdout; exit status
1 where a figure got worse or a script failed.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from measurements import FILES, ROOT, describe_processor
from regressions import Comparison, compare

WRITES = ("-o", "--journal", "--keep", "--out", "--output", "--plot", "--work")  # options of what is written
PATH = re.compile(r"(^|(?<=[=\s]))/[^\s=]+")
MODEL = re.compile(r"offline:([\w.-]+)")
LIMIT = re.compile(r"--(minutes|seconds) (\d+)")


@dataclass(frozen=True)
class Rerun:
    """A file of measurements, and the command that makes it again here, or why it is not run."""

    name: str
    record: Mapping[str, Any]
    command: Sequence[str]
    reason: str = ""

    @property
    def seconds(self) -> float:
        """How long it took, or allows itself; 0 where the file does not say."""
        if "seconds" in self.record:
            return float(self.record["seconds"])
        found = LIMIT.search(self.record["command"])
        return float(found[2]) * (60 if found[1] == "minutes" else 1) if found else 0.0


def plan(name: str, record: Mapping[str, Any], data: Path | None, scratch: Path) -> Rerun:
    """How the file `name` is made again, with inputs from `data` and outputs in `scratch`."""
    if record.get("transcribed"):
        return Rerun(name, record, (), "transcribed from an earlier README")
    missing: list[str] = []
    command: list[str] = []
    for word in shlex.split(record["command"]):
        option = word.split("=")[0] if word.startswith("--") else command[-1] if command else ""
        writes = option in WRITES

        def place(found: re.Match[str], writes: bool = writes) -> str:
            path = Path(found[0])
            if writes:
                return str(scratch / path.name)
            here = find_input(path, data)
            if here is None:
                missing.append(found[0])
            return str(here or path)

        command.append(PATH.sub(place, word))
    missing += [f"offline:{model}" for model in sorted(list_models(record["command"])) if not has_model(model)]
    script = ROOT / command[1]
    if not script.is_file():
        missing.append(command[1])
    command = [sys.executable, str(script), *command[2:]]
    return Rerun(name, record, command, f"not here: {', '.join(missing)}" if missing else "")


def find_input(path: Path, data: Path | None) -> Path | None:
    """Where an input lies here: under `data`, by as many of its last parts as are there, else where it was."""
    if data is not None:
        for start in range(1, len(path.parts)):
            if (found := data.joinpath(*path.parts[start:])).exists():
                return found.resolve()
    return path if path.exists() else None


def list_models(command: str) -> set[str]:
    """The offline models that a command names, or that its script takes by default."""
    script = ROOT / shlex.split(command)[1]
    default = re.findall(r'default="offline:([\w.-]+)', script.read_text("utf-8")) if script.is_file() else []
    return {*MODEL.findall(command), *default}


def has_model(name: str) -> bool:
    """Whether an offline model is here; a name that is none is for its script to refuse."""
    from crosslens.checkpoints.offline.packages import is_available
    from crosslens.errors import InputError

    try:
        return is_available(name)
    except InputError:
        return True


def run(rerun: Rerun, scratch: Path, limit: float) -> tuple[dict[str, Any] | None, str]:
    """The file that its script wrote, None if it did not, and what there is to say: it failed, or time was over."""
    kept, log = scratch / f"{rerun.name}.json", scratch / f"{rerun.name}.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [*rerun.command, "--save", str(kept)],
            cwd=ROOT,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # what it starts ends with it
        )
        try:
            status = process.wait(limit)
        except subprocess.TimeoutExpired:
            return None, "stopped: the minutes are over"
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    if not kept.is_file():
        last = log.read_text("utf-8", "replace").strip().splitlines()[-1:]
        return None, f"failed with exit status {status}: {' '.join(last)}"
    made = json.loads(kept.read_text("utf-8"))
    made["command"] = rerun.record["command"]
    return made, f"exit status {status}: a goal of its own is missed" if status else ""


def report(
    rerun: Rerun, state: str, reason: str = "", found: Comparison | None = None, seconds: float = 0
) -> dict[str, Any]:
    """What became of a file, JSON-able."""
    row = {"name": rerun.name, "state": state, "reason": reason, "command": shlex.join(rerun.command)}
    row |= {"was": {key: rerun.record[key] for key in ("cpu", "date", "commit")}}
    return row | {"seconds": round(seconds)} | (asdict(found) if found else {})


def show(row: Mapping[str, Any]) -> str:
    """A line of the table, and a line for each figure that changed, or column that could not be compared."""
    counts = ""
    if row["state"] == "compared":
        counts = f"{len(row['worse'])} worse, {len(row['better'])} better, {row['same']} as they were, "
        counts += f"{len(row['not_compared'])} not compared"
    lines = ["  ".join(each for each in (f"{row['name']:24}", f"{row['state']:9}", counts, row["reason"]) if each)]
    lines += [f"    {how}: {_show_change(each)}" for how in ("worse", "better") for each in row.get(how, ())]
    lines += [f"    not compared: {each}" for each in row.get("not_compared", ())]
    return "\n".join(lines)


def _show_change(change: Mapping[str, Any]) -> str:
    where = " / ".join(change[key] for key in ("table", "row", "column") if change[key])
    was, now = (f"{each:.4g}" if isinstance(each, float) else each for each in (change["was"], change["now"]))
    return f"{where}: {was} -> {now}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="of files in docs/measured (all)")
    parser.add_argument("--data", type=Path, metavar="DIR", help="where collections and indexes are")
    parser.add_argument("--minutes", type=float, default=60, help="for all together (%(default)s)")
    parser.add_argument("--dry-run", action="store_true", help="run nothing: say what would be, and what is left out")
    parser.add_argument("--save", action="store_true", help="renew the files of what was run")
    parser.add_argument("--files", type=Path, default=FILES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    held = {path.stem: json.loads(path.read_text("utf-8")) for path in sorted(options.files.glob("*.json"))}
    if unknown := set(options.names) - set(held):
        parser.error(f"unknown names {', '.join(sorted(unknown))} (known: {', '.join(held)})")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what is running is ended, too
    machine = describe_processor()
    print(machine, file=sys.stderr)
    rows: list[dict[str, Any]] = []
    ends = time.monotonic() + 60 * options.minutes

    def note(row: dict[str, Any]) -> None:
        rows.append(row)
        print(show(row), file=sys.stderr, flush=True)

    with TemporaryDirectory(prefix="crosslens-measured-") as folder:
        scratch = Path(folder)
        plans = [plan(name, held[name], options.data, scratch / name) for name in options.names or held]
        # What is known to be short comes first, and what does not say how long it takes comes last.
        for each in sorted(plans, key=lambda each: (not each.seconds, each.seconds)):
            left = ends - time.monotonic()
            if each.reason:
                note(report(each, "skipped", each.reason))
            elif each.seconds > left or left <= 0:
                note(
                    report(
                        each, "skipped", f"takes {each.seconds / 60:.0f} of the {max(left, 0) / 60:.0f} minutes left"
                    )
                )
            elif options.dry_run:
                note(report(each, "would run"))
            else:
                (scratch / each.name).mkdir()
                began = time.monotonic()
                made, said = run(each, scratch, left)
                spent = time.monotonic() - began
                if made is None:
                    note(report(each, "stopped" if said.startswith("stopped") else "failed", said, seconds=spent))
                    continue
                note(report(each, "compared", said, compare(each.name, each.record, made), spent))
                if options.save:
                    text = json.dumps(made, indent=1, ensure_ascii=False) + "\n"
                    (options.files / f"{each.name}.json").write_text(text, "utf-8")
    worse = sum(len(row.get("worse", ())) for row in rows)
    failed = sum(row["state"] == "failed" for row in rows)
    print(f"{worse} figures got worse, {failed} scripts failed", file=sys.stderr)
    print(json.dumps({"machine": machine, "worse": worse, "failed": failed, "files": rows}, ensure_ascii=False))
    return 1 if worse or failed else 0


if __name__ == "__main__":
    sys.exit(main())
