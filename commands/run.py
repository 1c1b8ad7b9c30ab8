"""`crosslens run`: all topics of a collection against an index."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from ..errors import InputError
from . import options
from .console import progress, write_run


def run_command(
    directory: options.Location,
    collection: Annotated[str, typer.Argument(metavar="COLLECTION", help="Where the topics are.")],
    output: options.Written,
    k: Annotated[int, typer.Option("-k", help="Hits a topic.")] = 1000,
    system: options.Line = None,
    mode: options.Mode = "hybrid",
    fields: options.Fields = None,
    query_lang: options.QueryLang = None,
    source: options.Source = None,
    lang: options.Langs = None,
    where: options.Wheres = None,
    rerank: options.Rerank = None,
    exclude: options.Exclude = "listed",
    unseen: options.Unseen = "refuse",
    correction: options.Correct = True,
    exact: options.Exact = False,
    tag: options.Tag = "crosslens",
    device: options.Device = "auto",
    trust_remote_code: options.Trust = False,
    json: options.Json = False,
) -> None:
    """Run all topics of a collection against an index and write a TREC run with its manifest."""
    from ..multilingual.collections.registry import load_collection
    from ..multilingual.languages import fill_languages
    from ..runs import check_tag
    from ..systems.provenance import describe_command
    from ..systems.search import choose_line, place_journal, search_index

    check_tag(tag)
    topics = load_collection(collection)
    queries = list(fill_languages(topics.queries(fields=fields, lang=query_lang, source=source)))  # type: ignore[arg-type]
    if not queries:
        raise InputError(f"{collection} has no topics" + (f" in {query_lang}" if query_lang else ""))
    line = choose_line(system, mode, lang, correction, rerank)
    journal = place_journal(output)
    done = search_index(
        directory, queries, line, k=k, topics=topics, where=options.parse_filters(where or ()), exact=exact,
        exclude=exclude, unseen=unseen, device=device,  # type: ignore[arg-type]
        trust_remote_code=trust_remote_code, journal=journal, progress=progress,
    )  # fmt: skip
    wording = {"fields": fields, "query_lang": query_lang, "source": source}
    done = done.note(topics={"collection": collection, **wording}, command=describe_command(sys.argv))
    write_run(done, output, tag, journal, json)
