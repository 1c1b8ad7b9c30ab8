"""What the language correction is worth, in indexes of several languages and of one.

    python benchmarks/collections/libreoffice_help.py /tmp/help
    python benchmarks/collections/debian_descriptions.py /tmp/debian --langs deu,jpn,rus,zho
    python benchmarks/correction.py /tmp/help /tmp/debian --documents 6000 --save docs/measured/correction.json

Topics are English, documents are not, and are searched exactly (all that are relevant, and others up to `--documents`):

- several languages: uncorrected; corrected by the mean of the documents in the queries' place, by that of the documents'
  first lines encoded as queries, and by that led towards English as names of languages and territories differ.
- one language: for each, uncorrected and as an index of that language alone is corrected now. Beside the English topics
  the first lines of relevant documents are asked for, in the documents' own language; the documents are without them.
  Openings are then the first lines of the documents that are not relevant to any topic, as their own are gone.

Settings were chosen on dev; test is reported, with paired t-tests against uncorrected search, Holm-corrected over all
rows of a table. Prints tables on stderr and one JSON object on stdout.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from comparing import Row, make_parser, note, open_encoder
from crosslens import create_index, evaluate
from crosslens.encoders.base import Encoder, encode_matrix, unit
from crosslens.evaluation.significance import holm
from crosslens.indexes.index import DocumentIndex
from crosslens.indexes.moments import TEXT, Moments
from crosslens.items import Item
from crosslens.media.language_names import list_names
from crosslens.multilingual.collections.registry import load_collection
from crosslens.multilingual.languages import fill_languages
from crosslens.runs import Qrels, Run
from measurements import Table, save, show_p

MEASURE = "nDCG@20"
UNCORRECTED = "uncorrected"
OPENINGS = 256
LEAST_OPENINGS, LEAST_TOPICS = 50, 30
TOPICS = 300  # of a half, for one language
Halves = Mapping[str, tuple[Mapping[str, Item], Qrels]]


def main() -> None:
    parser = make_parser(__doc__, "offline:e5-small")
    parser.add_argument("--documents", type=int, default=6000, help="of a collection, at most (%(default)s)")
    parser.add_argument("--alone", type=int, default=900, help="documents of one language, at most (%(default)s)")
    parser.add_argument("-k", type=int, default=100)
    given = parser.parse_args()
    encoder = open_encoder(given)
    several: list[Row] = []
    alone: list[Row] = []
    for where in given.collections:
        halves = read_halves(where)
        docs = sample(list(fill_languages(load_collection(where / "dev").docs())), halves, given.documents)
        for row in measure_several(docs, halves, encoder, given.k):
            note(several, {"collection": where.name}, row)
        for row in measure_alone(docs, halves, encoder, given.alone):
            note(alone, {"collection": where.name}, row)
    report = {"several": several, "alone": alone}
    tables = [show(rows, half, title) for title, rows in report.items() if rows for half in ("dev", "test")]
    notes = [f"p: paired t-tests of the last column against {UNCORRECTED}, Holm-corrected over the rows of a table."]
    save(given.save, report, tables, notes)
    print(json.dumps(report, indent=2))


def read_halves(where: Path) -> Halves:
    """The topics of each half, and what is relevant to them."""
    halves = {}
    for half in ("dev", "test"):
        collection = load_collection(where / half)
        relevant = {
            topic: {doc: grade for doc, grade in grades.items() if grade > 0}
            for topic, grades in collection.qrels().items()
        }
        topics = {query.id: query for query in fill_languages(collection.queries())}
        halves[half] = topics, {topic: grades for topic, grades in relevant.items() if grades and topic in topics}
    return halves


def sample(documents: Sequence[Item], halves: Halves, most: int) -> list[Item]:
    """Relevant documents first, then others by a hash of their ids."""
    relevant = {doc for _, qrels in halves.values() for grades in qrels.values() for doc in grades}
    return sorted(documents, key=lambda item: (item.id not in relevant, zlib.crc32(item.id.encode())))[:most]


def measure_several(docs: Sequence[Item], halves: Halves, encoder: Encoder, k: int) -> Iterator[dict[str, Any]]:
    index = create_index("memory://", lexical=False)
    assert isinstance(index, DocumentIndex)
    index.statistics.openings = 0  # so that queries are corrected by the mean of documents
    index.add(docs, [encoder])
    (space,) = index.card.spaces
    runs: dict[str, dict[str, Run]] = {half: {} for half in halves}

    def search(name: str, **how: Any) -> None:
        for half, (topics, qrels) in halves.items():
            asked = [topic for id, topic in topics.items() if id in qrels]
            runs[half][name] = index.search(asked, k, exact=True, merge=0, **how)

    search(UNCORRECTED, correct=False)
    search("mean of documents")
    index.statistics.openings = OPENINGS
    index.statistics.refresh(index.encoders.find)
    names = dict(index.statistics.get(space).named)
    index.statistics.get(space).named.clear()
    search("openings")
    index.statistics.get(space).named.update(names)
    search("led by names")
    for half, (_, qrels) in halves.items():
        yield {"half": half, "documents": len(docs), "languages": len(index.langs)} | compare(runs[half], qrels)


def measure_alone(docs: Sequence[Item], halves: Halves, encoder: Encoder, most: int) -> Iterator[dict[str, Any]]:
    relevant = {doc for _, qrels in halves.values() for grades in qrels.values() for doc in grades}
    for lang in sorted({item.lang for item in docs if item.lang}):
        ordered = [item for item in docs if item.lang == lang]  # what is relevant first, as `sample` has it
        mine = ordered[:most]
        split = {item.id: (item.text or "").strip().partition("\n") for item in mine}
        heads = {id: head for id, (head, _, body) in split.items() if body.strip()}
        bodies = [replace(item, text=split[item.id][2].strip()) for item in mine if item.id in heads]
        others = [(item.text or "").strip() for item in ordered if item.id not in relevant]
        openings = [text.partition("\n")[0] for text in others if "\n" in text][:OPENINGS]
        if len(openings) < LEAST_OPENINGS:
            continue
        vectors = encode_matrix(encoder, bodies, "document")
        labels = [lang] * len(bodies), [TEXT] * len(bodies)
        moments = Moments.of(vectors.shape[1], lambda vectors=vectors, labels=labels: [(vectors, *labels)])
        moments.add_queries(lang, ask(encoder, openings, lang), "openings")
        for each in {lang, "eng"}:
            moments.add_names(each, ask(encoder, list_names(each), each))
        corrected = moments.correct(vectors, *labels)
        for half, (topics, qrels) in halves.items():
            held = {
                topic: {doc: grade for doc, grade in grades.items() if doc in heads} for topic, grades in qrels.items()
            }
            kept = sorted(topic for topic, grades in held.items() if grades)[:TOPICS]
            if len(kept) < LEAST_TOPICS:
                continue
            own = {topic: next(iter(held[topic])) for topic in kept}
            for asked_in, queries, judged in (
                ("eng", [topics[topic] for topic in kept], {topic: held[topic] for topic in kept}),
                (lang, [Item(t, heads[doc], lang=lang) for t, doc in own.items()], {t: {d: 3} for t, d in own.items()}),
            ):
                asked = ask(encoder, [query.text or "" for query in queries], asked_in)
                led = unit(asked - moments.query_mean(asked_in, TEXT))
                scores = {UNCORRECTED: asked @ vectors.T, "led by names": led @ corrected.T}
                runs = {name: rank(queries, bodies, each) for name, each in scores.items()}
                row = {"half": half, "documents": len(bodies), "languages": lang, "queries": asked_in}
                yield row | compare(runs, judged)


def ask(encoder: Encoder, texts: Sequence[str], lang: str) -> np.ndarray:
    return encode_matrix(encoder, [Item(str(n), text, lang=lang) for n, text in enumerate(texts)], "query")


def rank(queries: Sequence[Item], documents: Sequence[Item], scores: np.ndarray) -> Run:
    best = np.argsort(-scores, axis=1, kind="stable")[:, :100]
    hits = {
        query.id: [(documents[place].id, float(row[place])) for place in places]
        for query, row, places in zip(queries, scores, best, strict=True)
    }
    return Run.of(list(queries)).ranking(hits)


def compare(runs: Mapping[str, Run], qrels: Qrels) -> dict[str, Any]:
    table = evaluate(runs, qrels, [MEASURE], baseline=UNCORRECTED)
    p = {system: each.p for (system, _), each in (table.comparisons or {}).items()}
    return {"topics": len(qrels), "means": {name: table.mean(name, MEASURE) for name in runs}, "p": p}


def show(rows: Sequence[dict[str, Any]], half: str, title: str) -> Table:
    rows = [row for row in rows if row["half"] == half]
    names = list(rows[0]["means"])
    adjusted = holm([row["p"][names[-1]] for row in rows])
    queries = ["queries"] if "queries" in rows[0] else []
    columns = ["collection", "documents", "languages", *queries, "topics", *names, "p"]
    cells = [
        [
            row["collection"], f"{row['documents']:,}", str(row["languages"]), *(row[each] for each in queries),
            str(row["topics"]), *(f"{row['means'][name]:.3f}" for name in names), show_p(p),
        ]
        for row, p in zip(rows, adjusted, strict=True)
    ]  # fmt: skip
    return Table(columns, cells, f"{'several languages' if title == 'several' else 'one language'}, {half}")


if __name__ == "__main__":
    main()
