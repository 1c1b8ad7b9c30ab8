"""What an experiment found, in a file of measurements.

    python benchmarks/collections/libreoffice_help.py /tmp/libreoffice-help
    python benchmarks/experiment.py benchmarks/experiments/libreoffice-help.toml -o /tmp/libreoffice-help.results \
        --save docs/measured/help-pages.json

Runs `crosslens experiment`, which does only what is not done yet, and prints its JSON object on stdout. For every
collection the table shows the first measure for each group of queries, and the others over all queries.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

from measurements import add_save, save, tabulate


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    add_save(parser)
    options = parser.parse_args()
    program = [sys.executable, "-c", "from crosslens.commands.app import script; script()"]
    done = subprocess.run(
        [*program, "experiment", str(options.file), "-o", str(options.output), "--json"],
        check=True, stdout=subprocess.PIPE,
    )  # fmt: skip
    report = json.loads(done.stdout)
    tables = []
    figures = []
    for part in report["collections"]:
        table = part["table"]
        first, *others = table["measures"]
        columns = [(first, group) for group in table["queries"]] + [(measure, "all") for measure in others]
        title = "/".join(Path(part["name"]).parts[-2:])
        tables.append(tabulate(table, columns, p=table["baseline"] is not None, title=title))
        for system in table["systems"]:
            system.pop("values", None)
        figures.append({"collection": title, "counts": part["counts"], "table": table})
    save(options.save, {"collections": figures}, tables)
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
