"""What bringing languages to one level is worth, where each language holds an answer and where one alone does.

    python benchmarks/collections/libreoffice_help.py /tmp/help10 --langs deu,ell,fra,jpn,kor,rus,spa,tur,vie,zho
    python benchmarks/collections/debian_descriptions.py /tmp/debian
    python benchmarks/merging.py /tmp/help10 /tmp/debian --save docs/measured/merging.json

The documents of a collection are versions of pages in several languages (ids `LANG/PAGE`). They are searched as they are,
and with each page in only one of its languages, chosen by a hash of its name, so that no topic has its answer in several
languages. On dev all strengths are shown; test has the default and the scores as they are, with paired t-tests,
Holm-corrected over all collections. Searches are exact. Prints tables on stderr and one JSON object on stdout.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from comparing import Row, adjust, make_parser, note, open_encoder, time_queries
from crosslens import create_index, evaluate
from crosslens.indexes.base import Index
from crosslens.indexes.merging import STRENGTH
from crosslens.items import Item
from crosslens.multilingual.collections.registry import load_collection
from crosslens.multilingual.languages import fill_languages
from crosslens.runs import Run
from measurements import Table, save, show_p

STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0)
MEASURE = "nDCG@20"
TIMED = 30  # queries asked one at a time


def main() -> None:
    parser = make_parser(__doc__, "offline:e5-small")
    parser.add_argument("-k", type=int, default=100)
    given = parser.parse_args()
    encoder = open_encoder(given)
    figures: list[Row] = []
    for where in given.collections:
        items = list(fill_languages(load_collection(where / "dev").docs()))
        for variant, docs in {"all versions": items, "one version a page": keep_one_version(items)}.items():
            index = create_index("memory://", lexical=False)
            index.add(docs, [encoder])
            for half in ("dev", "test"):
                found = measure(index, where / half, given.k, STRENGTHS if half == "dev" else (0.0, STRENGTH))
                row = {"collection": where.name, "variant": variant, "half": half, "documents": len(docs)}
                note(figures, row, {"languages": len(index.langs)}, found)
    tested = [row for row in figures if row["half"] == "test"]
    adjust(tested, lambda row: row["p"][f"{STRENGTH:g}"])
    notes = [
        f"Strength {STRENGTH:g} is the default, 0 leaves the scores as they are. p: paired t-tests, on test Holm-corrected over its "
        f"{len(tested)} rows. CPU milliseconds: one query at a time, exact, encoding left out, medians of {TIMED}."
    ]
    save(given.save, {"rows": figures}, [show(figures, "dev"), show(tested, "test")], notes)
    print(json.dumps({"rows": figures}, indent=2))


def keep_one_version(items: Sequence[Item]) -> list[Item]:
    """Each page in one of its languages."""
    versions: dict[str, list[str]] = {}
    for item in items:
        versions.setdefault(item.id.partition("/")[2], []).append(item.id)
    kept = {sorted(ids)[zlib.crc32(page.encode()) % len(ids)] for page, ids in versions.items()}
    return [item for item in items if item.id in kept]


def measure(index: Index, where: Path, k: int, strengths: Sequence[float]) -> dict[str, Any]:
    """Means, p against strength 0, and milliseconds by strength."""
    collection = load_collection(where)
    held = set(index.ids())
    qrels = {
        topic: {doc: grade for doc, grade in grades.items() if doc in held}
        for topic, grades in collection.qrels().items()
    }
    qrels = {topic: grades for topic, grades in qrels.items() if any(grade > 0 for grade in grades.values())}
    queries = [query for query in fill_languages(collection.queries()) if query.id in qrels]

    def search(merge: float) -> Callable[[Sequence[Item]], Run]:
        return lambda asked: index.search(asked, k, exact=True, merge=merge)

    runs = {f"{each:g}": search(each)(queries) for each in strengths}
    table = evaluate(runs, qrels, [MEASURE], baseline="0")
    return {
        "topics": len(queries),
        "means": {name: table.mean(name, MEASURE) for name in runs},
        "p": {system: each.p for (system, _), each in (table.comparisons or {}).items()},
        "ms": {f"{each:g}": time_queries(queries[:TIMED], search(each)) for each in (0.0, STRENGTH)},
    }


def show(figures: Sequence[dict[str, Any]], half: str) -> Table:
    rows = [row for row in figures if row["half"] == half]
    strengths = list(rows[0]["means"])
    columns = ["collection", "documents", "languages", "topics", *(f"{MEASURE}, {each}" for each in strengths)]
    columns += ["p", "CPU ms, 0", f"CPU ms, {STRENGTH:g}"]
    table = []
    for row in rows:
        p = row.get("p adjusted", row["p"][f"{STRENGTH:g}"])
        cells = [f"{row['documents']:,}", str(row["languages"]), str(row["topics"])]
        cells += [f"{row['means'][each]:.3f}" for each in strengths]
        ms = [f"{row['ms'][each]:.0f}" for each in ("0", f"{STRENGTH:g}")]
        table.append([f"{row['collection']}, {row['variant']}", *cells, show_p(p), *ms])
    return Table(columns, table, half)


if __name__ == "__main__":
    main()
