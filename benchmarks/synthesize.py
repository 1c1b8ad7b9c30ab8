"""Which queries are made of documents, what do the checks leave of them, and what do they cost?

    python benchmarks/synthesize.py --collection DIR --index DIR --work DIR --save docs/measured/synthesize.json

Each source makes queries for the same balanced sample of documents; what the checks leave out is counted, the round trip
as the last; with `--judge`, what a model wrote is also scored. What is made stays in `--work`: stopped, the same call
goes on. Prints a table a question on stderr and one JSON object on stdout.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from crosslens.multilingual.collections.base import Collection
from crosslens.multilingual.collections.registry import load_collection
from crosslens.multilingual.languages import fill_languages
from crosslens.training.data.base import LanguageMix, Making
from crosslens.training.data.registry import load_source
from crosslens.training.data.selection import Selection
from crosslens.training.data.synthesize import Synthesis, list_wordings
from measurements import Table, add_save, save

SOURCES = ("ict", "titles", "translations?by=id", "inpars@offline:qwen-1.5b?n=2&styles=question,keywords")
EARLY = ("empty", "refused", "unclosed_thought", "unreadable", "cut", "short", "long", "language", "copied", "held_out")
LATE = ("not_found", "below_threshold", "duplicate")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--collection", required=True)
    parser.add_argument("--index", required=True)
    parser.add_argument("--work", type=Path, required=True, help="where what is made stays")
    parser.add_argument("--source", action="append", metavar="SPEC", help=f"repeatable; default: {', '.join(SOURCES)}")
    parser.add_argument("--documents", type=int, default=40)
    parser.add_argument("--langs", default="same")
    parser.add_argument("--k", type=int, default=20)
    parser.add_argument("--held-out", action="append", default=[], metavar="COLLECTION")
    parser.add_argument("--judge", metavar="SPEC")
    parser.add_argument("--threshold", type=float)
    parser.add_argument("--examples", type=int, default=3, help="shown of each language and style")
    parser.add_argument(
        "--margins", type=float, nargs="*", default=[], help="mine translations, and compare with by=id"
    )
    add_save(parser)
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    collection = load_collection(options.collection)
    held_out = [text for name in options.held_out for text in list_wordings(load_collection(name))]
    selection = Selection(options.documents, balance=True)
    made = {}
    for number, spec in enumerate(options.source or SOURCES):
        task = Synthesis(
            load_source(spec), selection, LanguageMix.parse(options.langs), options.k, options.index,
            judge=options.judge if "@" in spec else None, threshold=options.threshold if "@" in spec else None,
            held_out=held_out,
        )  # fmt: skip
        where = options.work / f"{number}-{spec.partition('?')[0].partition('@')[0]}"
        result = task.run(collection, where)
        topics = [json.loads(line) for line in (where / "topics.jsonl").read_text("utf-8").splitlines()]
        made[spec] = {"card": result.card, "cost": result.cost, "topics": topics}
        print(result, file=sys.stderr, flush=True)
    mined = mine_translations(collection, options.margins) if options.margins else {}
    written = {spec: each for spec, each in made.items() if "@" in spec}
    tables = [show_checks(made), show_round_trip(made), *([show_cost(written)] if written else [])]
    tables += [show_examples(spec, each["topics"], options.examples) for spec, each in written.items()]
    tables += [show_mining(mined)] if mined else []
    for table in tables:
        print(table.markdown(), "\n", file=sys.stderr)
    figures: dict[str, Any] = {
        spec: {key: each[key] for key in ("card", "cost")} | {"examples": each["topics"][:50]}
        for spec, each in made.items()
    }
    figures["mining"] = mined
    notes = [
        f"A sample of {options.documents} documents of {collection.name}, as many of each language; languages of queries: "
        f"`{options.langs}`; round trip: the first {options.k} in the index of the whole collection, among the documents "
        "of the same language. *First* is the share of the kept ones that find their document first."
    ]
    save(options.save, figures, tables, notes)
    print(json.dumps(figures, ensure_ascii=False, indent=1))
    return 0


def show_checks(made: Mapping[str, Any]) -> Table:
    """How many drafts each check left out, in their order, and what share was kept."""
    reasons = [reason for reason in (*EARLY, *LATE) if any(reason in each["card"]["dropped"] for each in made.values())]
    rows = []
    for spec, each in made.items():
        card = each["card"]
        drafted, kept = card["queries"]["drafted"], card["queries"]["kept"]
        lost = [str(sum(card["dropped"].get(reason, {}).values())) for reason in reasons]
        rows.append([f"`{name_source(spec)}`", str(drafted), *lost, str(kept), f"{kept / max(drafted, 1):.2f}"])
    return Table(["source", "drafts", *(r.replace("_", " ") for r in reasons), "kept", "share"], rows, "What is kept")


def show_round_trip(made: Mapping[str, Any]) -> Table:
    """The share of queries that find their document, by language, and of those kept the share that finds it first."""
    langs = sorted({lang for each in made.values() for lang in each["card"]["queries"]["langs"]})
    rows = []
    for spec, each in made.items():
        dropped, kept = each["card"]["dropped"], each["card"]["queries"]["langs"]
        first = Counter(topic["lang"] for topic in each["topics"] if topic["rank"] == 1)
        row = [f"`{name_source(spec)}`"]
        for lang in langs:
            lost = dropped.get("not_found", {}).get(lang, 0)
            later = sum(dropped.get(reason, {}).get(lang, 0) for reason in LATE[1:])
            asked = kept.get(lang, 0) + later + lost
            row += [
                f"{1 - lost / asked:.2f}" if asked else "",
                f"{first[lang] / kept[lang]:.2f}" if kept.get(lang) else "",
            ]
        rows.append(row)
    heads = [head for lang in langs for head in (f"found, {lang}", f"first, {lang}")]
    return Table(["source", *heads], rows, "Round trip")


def show_cost(made: Mapping[str, Any]) -> Table:
    """Seconds of the model and its tokens for a draft, and for a query that was kept."""
    rows = []
    for spec, each in made.items():
        usage, seconds = each["cost"]["usage"], each["cost"]["seconds_by_work"]
        drafted, kept = each["card"]["queries"]["drafted"], each["card"]["queries"]["kept"]
        writing = seconds.get("writing", 0.0)
        tokens = [f"{usage.get(key, 0) / max(drafted, 1):.0f}" for key in ("prompt_tokens", "generated_tokens")]
        rows.append([
            f"`{name_source(spec)}`", f"{writing / max(drafted, 1):.1f}", *tokens, f"{writing / max(kept, 1):.1f}",
            f"{seconds.get('searching', 0.0) / max(drafted, 1):.2f}",
        ])  # fmt: skip
    heads = ["source", "s to write a draft", "tokens read", "tokens written", "s for one that is kept", "s to search"]
    return Table(heads, rows, "Cost")


def mine_translations(collection: Collection, margins: Sequence[float]) -> dict[str, dict[str, float]]:
    """Precision and recall of the pairs that are mined by vectors among all documents, against those aligned by id."""

    def list_pairs(spec: str) -> set[tuple[str, str, str | None]]:
        everything = {document.id for document in collection.docs()}
        made = load_source(spec).make(lambda: fill_languages(collection.docs()), everything, Making())
        return {(document.id, draft.text, draft.lang) for document, drafts in made for draft in drafts}

    aligned = list_pairs("translations?by=id")
    found = {}
    for margin in margins:
        mined = list_pairs(f"translations?by=vectors&margin={margin:g}")
        right = len(mined & aligned)
        rates = {"precision": right / len(mined), "recall": right / len(aligned)}
        found[f"{margin:g}"] = {"pairs": len(mined) // 2, "aligned": len(aligned) // 2, **rates}
    return found


def show_mining(mined: Mapping[str, Mapping[str, float]]) -> Table:
    """What `mine_translations` found, a row a margin."""
    rows = [
        [
            margin,
            *(f"{each[key]:.0f}" for key in ("pairs", "aligned")),
            *(f"{each[key]:.2f}" for key in ("precision", "recall")),
        ]
        for margin, each in mined.items()
    ]
    title = "Translations mined by vectors of e5-small, against the alignment by id"
    return Table(["margin", "pairs", "aligned", "precision", "recall"], rows, title)


def show_examples(spec: str, topics: Sequence[Mapping[str, Any]], number: int) -> Table:
    """The first queries of each language and style that were kept."""
    seen: Counter[tuple[str, str]] = Counter()
    rows = []
    for topic in topics:
        kind = topic["lang"], topic["style"]
        seen[kind] += 1
        if seen[kind] <= number:
            rows.append([*kind, topic["text"].replace("|", "\\|"), str(topic["rank"])])
    rows.sort(key=lambda row: row[:2])
    return Table(["language", "style", "query", "rank"], rows, f"Queries by `{name_source(spec)}`")


def name_source(spec: str) -> str:
    """A SPEC without the folder of its checkpoint."""
    head, mark, options = spec.partition("?")
    method, at, model = head.partition("@")
    return f"{method}{at}{model.rpartition('/')[2]}{mark}{options}"


if __name__ == "__main__":
    sys.exit(main())
