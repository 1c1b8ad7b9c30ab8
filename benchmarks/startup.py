"""How long from the shell to the first result of `crosslens search` on a ready index, and where does it go?

Runs the command as a whole, and inside one process the same steps with a clock between them; the index is the demo's,
made once. Prints a table on stderr and one JSON object on stdout.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from measurements import Table, add_save, save

STEPS = """
import json, sys, time
marks = [("start", time.perf_counter())]
def mark(name): marks.append((name, time.perf_counter()))
import crosslens.commands.app
mark("import crosslens.commands.app")
from crosslens.indexes.registry import open_index
index = open_index(sys.argv[1])
mark("import lancedb, open the index")
import crosslens.encoders.transformer
mark("import torch and transformers")
index.ready()
mark("load the models")
from crosslens.items import Item
index.search([Item("q", text=sys.argv[2], lang="eng")], 10, mode="hybrid")
mark("first query")
index.search([Item("q", text=sys.argv[2], lang="eng")], 10, mode="hybrid")
mark("second query")
print(json.dumps({name: round(now - before, 3) for (_, before), (name, now) in zip(marks, marks[1:])}))
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--encoder", action="append", help="encoder SPECs (default: what `crosslens index` takes)")
    add_save(parser)
    options = parser.parse_args()
    query = "how long do cats sleep"
    with tempfile.TemporaryDirectory() as where:
        index = Path(where) / "index"
        encoders = [part for spec in options.encoder or [] for part in ("--encoder", spec)]
        program = [sys.executable, "-c", "from crosslens.commands.app import script; script()"]
        subprocess.run([*program, "index", "demo", str(index), *encoders], check=True, stdout=subprocess.DEVNULL)
        totals, parts = [], []
        for _ in range(options.runs):
            started = time.perf_counter()
            subprocess.run([*program, "search", str(index), query, "--json"], check=True, stdout=subprocess.DEVNULL)
            totals.append(time.perf_counter() - started)
            done = subprocess.run(
                [sys.executable, "-c", STEPS, str(index), query], check=True, capture_output=True, text=True
            )
            parts.append(json.loads(done.stdout.splitlines()[-1]))
    report = {
        "whole_command_seconds": round(statistics.median(totals), 2),
        "steps_seconds": {name: round(statistics.median(part[name] for part in parts), 3) for name in parts[0]},
        "runs": options.runs,
    }
    print(f"crosslens search, whole command: {report['whole_command_seconds']} s", file=sys.stderr)
    for name, spent in report["steps_seconds"].items():
        print(f"  {name:32} {spent:7.3f} s", file=sys.stderr)
    rows = [["the whole command", str(report["whole_command_seconds"])]]
    rows += [[name, f"{spent:.2f}"] for name, spent in report["steps_seconds"].items()]
    save(options.save, report, [Table(("", "seconds"), rows)])
    print(json.dumps(report, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
