"""`crosslens run`: all topics of a collection against an index."""

from __future__ import annotations

from typing import Annotated

import typer

from ..errors import InputError
from .console import emit_run, progress
from .options import (
    Correct,
    Device,
    Exact,
    Fields,
    Json,
    Langs,
    Line,
    Location,
    Mode,
    QueryLang,
    Rerank,
    Source,
    Tag,
    Trust,
    Unseen,
    Wheres,
    Written,
    choose_line,
)  # fmt: skip


def run_command(
    directory: Location,
    collection: Annotated[str, typer.Argument(help="Where the topics are.")],
    output: Written,
    k: Annotated[int, typer.Option("-k", help="Hits a topic.")] = 1000,
    system: Line = None,
    mode: Mode = "hybrid",
    fields: Fields = None,
    query_lang: QueryLang = None,
    source: Source = None,
    lang: Langs = None,
    where: Wheres = None,
    rerank: Rerank = None,
    unseen: Unseen = "refuse",
    correction: Correct = True,
    exact: Exact = False,
    tag: Tag = "crosslens",
    device: Device = "auto",
    trust_remote_code: Trust = False,
    json: Json = False,
) -> None:
    """Run all topics of a collection against an index and write a TREC run with its manifest."""
    from ..multilingual.collections.registry import load_collection
    from ..multilingual.languages import fill_languages, parse_language
    from ..systems.search import parse_filters, place_journal, search_index

    topics = load_collection(collection)
    code = parse_language(query_lang) if query_lang else None
    queries = list(fill_languages(topics.queries(fields=fields, lang=code, source=source)))  # type: ignore[arg-type]
    if not queries:
        raise InputError(f"{collection} has no topics" + (f" in {code}" if code else ""))
    line = choose_line(system, mode, lang, correction, rerank)
    journal = place_journal(output)
    done = search_index(
        directory, queries, line, k=k, topics=topics, where=parse_filters(where or ()), exact=exact,
        unseen=unseen, device=device, trust_remote_code=trust_remote_code, journal=journal, progress=progress,
    )  # fmt: skip
    done.to_trec(output, tag)
    journal.unlink(missing_ok=True)
    emit_run(done, output, json)
