"""What the language correction is worth, by how the mean of queries is known.

    python benchmarks/collections/libreoffice_help.py /tmp/libreoffice-help
    python benchmarks/correction.py /tmp/libreoffice-help/dev --openings 16,64,256

Documents are encoded once; then the topics are searched exactly without the correction, with the mean of documents in
the queries' place (no openings), and with that of so many documents' first lines a language, encoded as queries. Prints
a table on stderr and one JSON object on stdout: means, by language of the documents too, and paired t-tests against
uncorrected search, Holm-corrected.
"""

from __future__ import annotations

import argparse
import json
import sys
from contextlib import redirect_stdout

from crosslens import create_index, evaluate
from crosslens.encoders.cache.encoder import CachedEncoder
from crosslens.encoders.registry import load_encoder
from crosslens.indexes.index import DocumentIndex
from crosslens.multilingual.collections.registry import load_collection
from crosslens.multilingual.languages import fill_languages
from measurements import add_save, save, tabulate


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("collection")
    parser.add_argument("--encoder", default="offline:e5-small")
    parser.add_argument("--openings", default="16,64,256", help="first lines a language, comma-separated")
    parser.add_argument("-k", type=int, default=100)
    parser.add_argument("--device", default="auto")
    add_save(parser)
    given = parser.parse_args()

    collection = load_collection(given.collection)
    docs, queries = (list(fill_languages(each)) for each in (collection.docs(), collection.queries()))
    index = create_index("memory://", lexical=False)
    assert isinstance(index, DocumentIndex)
    index.statistics.openings = 0  # so that queries are corrected by the mean of documents
    index.add(docs, [CachedEncoder(load_encoder(given.encoder, device=given.device))])
    (space,) = index.card.spaces
    if not space.multilingual:
        sys.exit(f"{given.collection} has one language: nothing is corrected there")

    runs = {"uncorrected": index.search(queries, given.k, exact=True, correct=False)}
    runs["mean of documents"] = index.search(queries, given.k, exact=True)
    for count in map(int, given.openings.split(",")):
        index.statistics.openings = count
        index.statistics.refresh(index.encoders.find)
        runs[f"{count} openings"] = index.search(queries, given.k, exact=True)
    table = evaluate(
        runs,
        collection.qrels(),
        ["nDCG@20", "R@100"],
        per="doc_lang",
        baseline="uncorrected",
        doc_langs={item.id: item.lang for item in docs if item.lang},
    )
    with redirect_stdout(sys.stderr):
        table.show()
    report = table.to_json()
    columns = [("nDCG@20", group) for group in table.groups]
    save(given.save, report, [tabulate(report, columns, p=True)])
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
