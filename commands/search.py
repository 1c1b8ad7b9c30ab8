"""`crosslens search`: one query against an index."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import InputError, escape_controls
from ..files import check_file
from . import options
from .console import describe_item, emit, progress, say


def search_command(
    directory: options.Location,
    text: Annotated[str | None, typer.Argument(metavar="TEXT")] = None,
    image: Annotated[Path | None, typer.Option(help="A picture to search with, alone or beside TEXT.")] = None,
    k: Annotated[int, typer.Option("-k", help="How many results.")] = 10,
    system: options.Line = None,
    mode: options.Mode = "hybrid",
    lang: options.Langs = None,
    where: options.Wheres = None,
    query_lang: options.QueryLang = None,
    rerank: options.Rerank = None,
    exclude: Annotated[
        str, typer.Option(help="self: not the documents that have the query's text. listed, none: all documents.")
    ] = "listed",
    unseen: options.Unseen = "keep",
    correction: options.Correct = True,
    exact: options.Exact = False,
    explain: Annotated[
        bool,
        typer.Option("--explain", help="Show what was searched for in the query's place, and ranks after each stage."),
    ] = False,
    device: options.Device = "auto",
    trust_remote_code: options.Trust = False,
    json: options.Json = False,
) -> None:
    """Search an index with text, a picture, or both."""
    from ..items import Item
    from ..multilingual.languages import fill_languages
    from ..multilingual.reranking.rerank import describe_judging
    from ..multilingual.rewriting.base import describe_rewriting
    from ..multilingual.rewriting.rewrites import explain_probes, to_rewrite
    from ..systems.search import choose_line, parse_filters, search_index
    from ..systems.trace import Trace

    if not (text and text.strip()) and image is None:
        raise InputError("the query is empty: give TEXT, --image PATH, or both")
    if image is not None:
        if not os.path.lexists(image):
            raise InputError(f"there is no picture {image}")
        check_file(image)
    query = Item("query", text=text, image=image, lang=query_lang)
    line = choose_line(system, mode, lang, correction, rerank)
    trace = Trace() if explain else None
    run = search_index(
        directory, fill_languages([query]), line, k=k, where=parse_filters(where or ()), exact=exact,
        exclude=exclude, unseen=unseen, device=device,  # type: ignore[arg-type]
        trust_remote_code=trust_remote_code, progress=progress, trace=trace, brief=True,
    )  # fmt: skip
    rows = [
        {"rank": rank, "id": hit.id, "score": round(hit.score, 6), "lang": item.lang, **describe_item(item)}
        | ({"stages": trace.describe("query", hit.id)} if trace else {})
        for rank, (hit, item) in enumerate(zip(run["query"], run.items("query"), strict=True), 1)
    ]
    probes = run.probes.get("query", ())
    if json:
        rewritten = {"rewritten": to_rewrite(run.queries[0], probes)["probes"]} if explain else {}
        emit({"query": text, "lang": run.queries[0].lang, **rewritten, "hits": rows, "stages": run.manifest.to_json()})
        return
    for shown in explain_probes(run.queries[0], probes) if explain else ():
        print(escape_controls(shown))
    for row in rows:
        line = row["text"].replace("\n", " · ")
        print(escape_controls(f"{row['rank']:>3}  {row['score']:9.4f}  {row['lang'] or '   '}  {row['id']}  {line}"))
        if len(stages := row.get("stages", ())) > 1:
            print(escape_controls(f"     {' > '.join(map(show_place, stages))}"))
    if not rows:
        say("no document matches")
    for remark in (*describe_rewriting(run.manifest), *describe_judging(run.manifest)):
        say(remark)


def show_place(place: Mapping[str, Any]) -> str:
    """A stage, and where it ranked a document."""
    return f"{place['stage']}: " + (f"{place['rank']} ({place['score']:.4f})" if place["rank"] else "not found")
