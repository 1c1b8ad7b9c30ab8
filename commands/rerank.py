"""`crosslens rerank`: a TREC run reranked."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .console import emit_run, progress
from .options import Device, Fields, Json, Judged, QueryLang, Rerank, Tag, Trust, Unseen, Written


def rerank_command(
    run: Annotated[Path, typer.Argument(metavar="RUN")],
    collection: Judged,
    specs: Rerank,
    output: Written,
    fields: Fields = None,
    query_lang: QueryLang = None,
    unseen: Unseen = "refuse",
    tag: Tag = "crosslens",
    device: Device = "auto",
    trust_remote_code: Trust = False,
    json: Json = False,
) -> None:
    """Rerank a TREC run with language models; killed, the same command goes on with the queries that are left."""
    from ..multilingual.collections.registry import load_collection
    from ..multilingual.languages import fill_languages, parse_language
    from ..runs import Run
    from ..systems.search import place_journal, rerank_run

    source = load_collection(collection)
    code = parse_language(query_lang) if query_lang else None
    first = Run.from_trec(run, list(fill_languages(source.queries(fields=fields, lang=code))))
    journal = place_journal(output)
    done = rerank_run(
        first, source, specs or (), unseen=unseen, device=device, trust_remote_code=trust_remote_code,
        journal=journal, progress=progress,
    )  # fmt: skip
    done.to_trec(output, tag)
    journal.unlink(missing_ok=True)
    emit_run(done, output, json)
