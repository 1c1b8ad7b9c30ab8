"""`crosslens rerank`: a TREC run reranked."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from ..files import STDIN, hash_file
from . import options
from .console import progress, write_run


def rerank_command(
    run: Annotated[Path, typer.Argument(metavar="RUN")],
    collection: options.Judged,
    specs: options.Rerank,
    output: options.Written,
    fields: options.Fields = None,
    query_lang: options.QueryLang = None,
    exclude: options.Exclude = "listed",
    unseen: options.Unseen = "refuse",
    tag: options.Tag = "crosslens",
    device: options.Device = "auto",
    trust_remote_code: options.Trust = False,
    json: options.Json = False,
) -> None:
    """Rerank a TREC run with language models; killed, the same command goes on with the queries that are left."""
    from ..multilingual.collections.registry import load_collection
    from ..multilingual.languages import fill_languages
    from ..runs import Run, check_tag
    from ..systems.provenance import describe_command
    from ..systems.search import place_journal, rerank_run

    check_tag(tag)
    source = load_collection(collection)
    first = Run.from_trec(run, list(fill_languages(source.queries(fields=fields, lang=query_lang))))
    journal = place_journal(output)
    done = rerank_run(
        first, source, specs or (), exclude=exclude, unseen=unseen, device=device,  # type: ignore[arg-type]
        trust_remote_code=trust_remote_code, journal=journal, progress=progress,
    )  # fmt: skip
    wording = {"fields": fields, "query_lang": query_lang}
    read = {"path": str(run), "sha256": hash_file(run) if run != STDIN else None}
    done = done.note(run=read, topics={"collection": collection, **wording}, command=describe_command(sys.argv))
    write_run(done, output, tag, journal, json)
