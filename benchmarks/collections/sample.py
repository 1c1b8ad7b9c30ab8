"""A smaller collection: the documents that are relevant to a topic, and some others.

    python benchmarks/collections/sample.py COLLECTION DIR [--others 4000]

COLLECTION is a directory that one of these scripts wrote, with dev/ and test/ below; DIR gets the same topics and
judgements, and the documents in the same order. Which others are taken follows from a hash of their ids.
"""

from __future__ import annotations

import argparse
import gzip
import json
import shutil
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from crosslens.commands.console import run_guarded
from crosslens.errors import InputError
from directory import HALVES, new_directory

DOCS, BESIDE = "docs.jsonl.gz", ("topics.jsonl", "qrels.txt")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("collection", type=Path, metavar="COLLECTION")
    parser.add_argument("directory", type=Path, metavar="DIR")
    parser.add_argument("--others", type=int, default=4000, metavar="N", help="documents beside (%(default)s)")
    arguments = parser.parse_args()
    print(json.dumps(draw_sample(arguments.collection, arguments.directory, arguments.others)))
    return 0


def draw_sample(source: Path, directory: Path, others: int) -> dict[str, int]:
    """Write the sample; counts of its documents and of the collection's. `InputError` for what is no collection."""
    if missing := [
        str(source / half / name) for half in HALVES for name in BESIDE if not (source / half / name).is_file()
    ]:
        raise InputError(f"{missing[0]} is not there: give a collection with halves, as these scripts write them")
    relevant = set()
    for half in HALVES:
        for line in (source / half / "qrels.txt").read_text("utf-8").splitlines():
            _, _, doc, grade = line.split()
            if int(grade) > 0:
                relevant.add(doc)
    ids = [doc["id"] for doc, _ in read_docs(source / DOCS)]
    rest = sorted((id for id in ids if id not in relevant), key=lambda id: zlib.crc32(id.encode()))
    kept = relevant.union(rest[:others])
    with new_directory(directory) as root:
        lines = [line for doc, line in read_docs(source / DOCS) if doc["id"] in kept]
        for half in HALVES:
            (root / half).mkdir()
            for name in BESIDE:
                shutil.copyfile(source / half / name, root / half / name)
            (root / half / "docs.jsonl").write_text("".join(lines), "utf-8", newline="\n")
    return {"documents": len(lines), "of": len(ids)}


def read_docs(path: Path) -> Iterator[tuple[dict[str, Any], str]]:
    """Each document, and its line."""
    with gzip.open(path, "rt", encoding="utf-8", newline="\n") as lines:
        for line in lines:
            yield json.loads(line), line


if __name__ == "__main__":
    sys.exit(run_guarded(main))
