"""What `crosslens demo` finds: its table and what each stage adds.

    python benchmarks/demo.py --best --save docs/measured/demo.json

Runs the command and prints its JSON object on stdout. `--best` adds the reranker of that name, which needs the extra
`offline-llm` and a quarter of an hour. The README's excerpt is held to the saved table by a test.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile

from measurements import Table, add_save, save, show_p, tabulate


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--best", action="store_true", help="also rerank with `best`")
    add_save(parser)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        program = [sys.executable, "-c", "from crosslens.commands.app import script; script()"]
        done = subprocess.run(
            [*program, "demo", "--best" if options.best else "--no-best", "--json", "--html", f"{folder}/demo.html"],
            check=True, stdout=subprocess.PIPE,
        )  # fmt: skip
    report = json.loads(done.stdout)
    table = report["table"]
    means = tabulate(table, [("nDCG@10", group) for group in table["queries"]])
    steps = [
        [f"{step['system']} over {step['over']}", f"{step['difference']:+.3f}", show_p(step["p"]), step["verdict"]]
        for step in report["steps"]
    ]
    figures = {key: report[key] for key in ("table", "steps", "seconds")}
    save(options.save, figures, [means, Table(("step", "nDCG@10", "p", "verdict"), steps)])
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
