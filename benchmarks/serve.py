"""How fast does `crosslens serve` answer, how much does it bear, and what is lost when something breaks?

    python benchmarks/serve.py load --index demo=DIR debian=DIR --save docs/measured/serve-load.json
    python benchmarks/serve.py embeddings --peer PYTHON --texts COLLECTION
    python benchmarks/serve.py soak DIR --minutes 10
    python benchmarks/serve.py faults COLLECTION

Each starts the real command on a free port, and clients in a process of their own (`serve_client.py`). As both share the
machine's cores, ratios within one run say more than its rates. Prints tables on stderr and one JSON object on stdout;
exit status 1 where a goal is missed.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from typing import Any

import serve_embeddings
import serve_faults
import serve_load
import serve_soak
from crosslens.commands.console import run_guarded
from measurements import add_save, save

PARTS = {"load": serve_load, "embeddings": serve_embeddings, "soak": serve_soak, "faults": serve_faults}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="part", required=True)
    for name, part in PARTS.items():
        verb = verbs.add_parser(name, help=(part.__doc__ or "").partition(": ")[2])
        part.add_arguments(verb)
        add_save(verb)
    options = parser.parse_args()
    report, tables, notes = PARTS[options.part].measure(options)
    for table in tables:
        print(table.markdown(), end="\n\n", file=sys.stderr)
    save(options.save, report, tables, notes)
    print(json.dumps(report, indent=1, ensure_ascii=False))
    return int(not all(_leaves(report["meets"])))


def _leaves(tree: Any) -> Iterator[bool]:
    for each in tree.values():
        yield from _leaves(each) if isinstance(each, dict) else (each,)


if __name__ == "__main__":
    sys.exit(run_guarded(lambda: sys.exit(main())))
