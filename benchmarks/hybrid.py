"""For which queries is hybrid search better than search by vectors alone, and does it lose anything elsewhere?

    python benchmarks/collections/libreoffice_help.py /tmp/help
    python benchmarks/collections/debian_descriptions.py /tmp/debian --langs deu,jpn,rus,zho --topics 150
    python benchmarks/hybrid.py /tmp/help /tmp/debian --save docs/measured/hybrid.json

The documents of a collection are versions of pages in several languages (ids `LANG/PAGE`), its topics are in English.
Beside these topics it is asked for

- names: what an English user would type that stands in the title of a page in another script (`SUMIFS`), or the name of a
  package (ids `LANG/PACKAGE-HASH`) that its description holds. All versions of these pages answer.
- codes: what has a digit or several capitals and stands on three pages at most, two versions of one among them. The
  documents that hold it answer.
- titles of pages, where each page is a document in one of its languages and without its first line: in the document's
  own language, and in another one.

Half of the names and codes is written in lower case; each is asked for bare and within a question. Halves and samples
follow from hashes. p: paired t-tests, Holm-corrected over all rows. Prints tables on stderr and JSON on stdout.
"""

from __future__ import annotations

import json
import re
import sys
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from comparing import Row, adjust, make_parser, note, open_encoder, time_queries
from crosslens import create_index, evaluate
from crosslens.indexes.base import Index
from crosslens.items import Item
from crosslens.multilingual.collections.registry import load_collection
from crosslens.multilingual.languages import fill_languages
from crosslens.runs import Qrels, Run
from measurements import Table, save, show_p

MEASURE = "nDCG@20"
TIMED = 10  # queries asked one at a time
OTHER_SCRIPTS = {"ara", "ell", "fas", "jpn", "kor", "rus", "tha", "ukr", "zho"}
CODE = re.compile(r"(?<![^\W_])[A-Za-z0-9]+(?:[._+/-][A-Za-z0-9]+)*\+*")
QUESTIONS = (
    "what does {} do?", "how to use {}", "an example of {}", "where can I find {}?", "{} does not work as expected",
    "information about {}", "explain {} please", "which settings does {} have?",
)  # fmt: skip


@dataclass(frozen=True)
class QuerySet:
    """Queries of one class, and what answers them."""

    name: str
    queries: Sequence[Item]
    qrels: Qrels


def main() -> None:
    parser = make_parser(__doc__, "offline:use-m3")
    parser.add_argument("--half", choices=("dev", "test"), default="test", help="(%(default)s)")
    parser.add_argument(
        "--most", type=int, default=150, help="queries of a class, and a third of the topics (%(default)s)"
    )
    parser.add_argument("--titles", type=int, default=1200, help="documents without titles, or 0 (%(default)s)")
    given = parser.parse_args()
    encoder = open_encoder(given)
    figures: list[Row] = []
    for where in given.collections:
        for docs, sets in read_sets(where, given.half, given.most, given.titles):
            index = create_index("memory://")
            index.add(docs, [encoder])
            for each in sets:
                row = {"collection": where.name, "class": each.name, "documents": len(docs)}
                note(figures, row, {"languages": len(index.langs)}, measure(index, each))
    adjust(figures, lambda row: row["p"])
    notes = [
        f"{given.encoder}, {given.half} half. p: paired t-tests of hybrid against dense, Holm-corrected over all rows. CPU "
        f"milliseconds: one query at a time, exact, encoding included, medians of {TIMED}."
    ]
    table = show(figures)
    print(table.markdown(), file=sys.stderr)
    save(given.save, {"rows": figures}, [table], notes)
    print(json.dumps({"rows": figures}, indent=2))


def read_sets(where: Path, half: str, most: int, titles: int) -> Iterator[tuple[Sequence[Item], list[QuerySet]]]:
    """Documents, and the classes of queries that are asked of them."""
    collection = load_collection(where / half)
    docs = [item for item in fill_languages(collection.docs()) if item.text]
    qrels = collection.qrels()
    topics = sorted(collection.queries(), key=lambda query: draw(query.id))
    topics = list(fill_languages([query for query in topics if query.id in qrels][: 3 * most]))
    qrels = {query.id: qrels[query.id] for query in topics}
    found = [QuerySet("topics in English", topics, qrels)]
    names, codes = list_names(docs), list_codes(docs)
    codes = {code: ids for code, ids in codes.items() if code not in names}
    for kind, held in (("names", names), ("codes", codes)):
        chosen = choose(held, half, most)
        for shape, word in (("alone", lambda code: "{}"), ("in a question", choose_question)):
            queries = [Item(code, word(code).format(choose_case(code)), lang="eng") for code in chosen]
            found.append(QuerySet(f"{kind}, {shape}", queries, {code: dict.fromkeys(held[code], 1) for code in chosen}))
    yield docs, found
    if titles:
        yield read_titles(docs, half, most, titles)


def read_titles(docs: Sequence[Item], half: str, most: int, titles: int) -> tuple[Sequence[Item], list[QuerySet]]:
    """Documents without their first line, one version of a page, with titles in their own and in other languages."""
    versions: dict[str, list[Item]] = defaultdict(list)
    for item in docs:
        versions[find_page(item.id)].append(item)
    kept = [sorted(items, key=lambda item: item.id)[draw(page, len(items))] for page, items in versions.items()]
    kept = [replace(item, text=body) for item in kept if len(body := split_title(item)[1]) > 20]
    kept = sorted(kept, key=lambda item: draw(item.id))[:titles]
    whole = {item.id: item for item in docs}
    mine = {item.id: item for item in kept}
    own, other = [], []
    for id in choose(mine, half, len(mine), find_page):
        own.append(Item(id, split_title(whole[id])[0], lang=whole[id].lang))
        if others := [item for item in versions[find_page(id)] if item.id != id]:
            item = min(others, key=lambda item: draw(item.id))
            other.append(Item(id, split_title(item)[0], lang=item.lang))
    return kept, [
        QuerySet(name, queries[:most], {query.id: {query.id: 1} for query in queries[:most]})
        for name, queries in (("titles in the document's language", own), ("titles in another language", other))
    ]


def list_names(docs: Iterable[Item]) -> dict[str, list[str]]:
    """Names, and all versions of the pages that they are of; those of three pages at most."""
    versions: dict[str, list[str]] = defaultdict(list)
    pages: dict[str, set[str]] = defaultdict(set)
    for item in docs:
        page = find_page(item.id)
        versions[page].append(item.id)
        package, mark, _ = page.rpartition("-")
        if mark and re.search(r"-[0-9a-f]{12}$", page):
            if re.search(rf"(?<![^\W_]){re.escape(package)}(?![^\W_])", item.text or "", re.IGNORECASE):
                pages[package].add(page)
        elif item.lang in OTHER_SCRIPTS:
            for code in CODE.findall(split_title(item)[0]):
                pages[code].add(page)
    return {
        code: [id for page in sorted(held) for id in versions[page]]
        for code, held in pages.items()
        if len(code) > 2 and len(held) <= 3
    }


def list_codes(docs: Iterable[Item]) -> dict[str, list[str]]:
    """Codes, and the documents that hold them."""
    held: dict[str, list[str]] = defaultdict(list)
    for item in docs:
        for code in sorted(set(CODE.findall(item.text or ""))):
            capitals = sum(map(str.isupper, code))
            if len(code) > 2 and (capitals > 1 or (any(map(str.isdigit, code)) and any(map(str.isalpha, code)))):
                held[code].append(item.id)
    return {code: ids for code, ids in held.items() if len(set(map(find_page, ids))) <= min(3, len(ids) - 1)}


def choose(
    held: Mapping[str, Any], half: str, most: int, split_by: Callable[[str], str] = lambda name: name
) -> list[str]:
    """So many of a half, by their hashes."""
    mine = [name for name in held if ("dev", "test")[draw("half " + split_by(name), 2)] == half]
    return sorted(mine, key=lambda name: (draw(name), name))[:most]


def choose_case(code: str) -> str:
    return code.lower() if draw("case " + code, 2) else code


def choose_question(code: str) -> str:
    return QUESTIONS[draw(code, len(QUESTIONS))]


def draw(text: str, below: int = 1 << 32) -> int:
    return zlib.crc32(text.encode()) % below


def find_page(id: str) -> str:
    return id.partition("/")[2]


def split_title(item: Item) -> tuple[str, str]:
    title, _, body = (item.text or "").partition("\n")
    return title, body


def measure(index: Index, asked: QuerySet) -> dict[str, Any]:
    """Means of dense, lexical and hybrid search, and p of hybrid against dense."""

    def search(mode: Any) -> Callable[[Sequence[Item]], Run]:
        return lambda queries: index.search(queries, 100, mode=mode, exact=True)

    runs = {mode: search(mode)(asked.queries) for mode in ("dense", "lexical", "hybrid")}
    table = evaluate(runs, asked.qrels, [MEASURE], baseline="dense")
    compared = (table.comparisons or {})["hybrid", MEASURE]
    return {
        "queries": len(asked.queries),
        "means": {mode: table.mean(mode, MEASURE) for mode in runs},
        "p": 1.0 if compared.p is None else compared.p,
        "ms": {mode: time_queries(asked.queries[:TIMED], search(mode)) for mode in ("dense", "hybrid")},
    }


def show(figures: Sequence[Mapping[str, Any]]) -> Table:
    modes = ("dense", "lexical", "hybrid")
    columns = [
        "queries",
        "collection",
        "number",
        *(f"{MEASURE}, {mode}" for mode in modes),
        "p",
        "CPU ms, dense",
        "hybrid",
    ]
    rows = []
    for row in sorted(figures, key=lambda row: [each["class"] for each in figures].index(row["class"])):
        cells = [row["class"], row["collection"], str(row["queries"]), *(f"{row['means'][mode]:.3f}" for mode in modes)]
        rows.append([*cells, show_p(row["p adjusted"]), *(f"{row['ms'][mode]:.0f}" for mode in ("dense", "hybrid"))])
    return Table(columns, rows)


if __name__ == "__main__":
    main()
