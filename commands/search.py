"""`crosslens search`: one query against an index."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..errors import InputError
from .console import describe_item, emit, progress, say
from .options import (
    Correct,
    Device,
    Exact,
    Json,
    Langs,
    Line,
    Location,
    Mode,
    QueryLang,
    Rerank,
    Trust,
    Unseen,
    Wheres,
    choose_line,
)  # fmt: skip


def search_command(
    directory: Location,
    text: Annotated[str | None, typer.Argument(metavar="TEXT")] = None,
    image: Annotated[Path | None, typer.Option(help="A picture to search with, alone or beside TEXT.")] = None,
    k: Annotated[int, typer.Option("-k", help="How many results.")] = 10,
    system: Line = None,
    mode: Mode = "hybrid",
    lang: Langs = None,
    where: Wheres = None,
    query_lang: QueryLang = None,
    rerank: Rerank = None,
    unseen: Unseen = "keep",
    correction: Correct = True,
    exact: Exact = False,
    device: Device = "auto",
    trust_remote_code: Trust = False,
    json: Json = False,
) -> None:
    """Search an index with text, a picture, or both."""
    from ..items import Item
    from ..multilingual.languages import fill_languages, parse_language
    from ..multilingual.reranking.notes import describe_judging
    from ..systems.search import parse_filters, search_index

    if not (text and text.strip()) and image is None:
        raise InputError("the query is empty: give TEXT, --image PATH, or both")
    if image is not None and not image.is_file():
        raise InputError(f"there is no picture {image}")
    query = Item("query", text=text, image=image, lang=parse_language(query_lang) if query_lang else None)
    line = choose_line(system, mode, lang, correction, rerank)
    run = search_index(
        directory, fill_languages([query]), line, k=k, where=parse_filters(where or ()), exact=exact,
        unseen=unseen, device=device, trust_remote_code=trust_remote_code, progress=progress,
    )  # fmt: skip
    rows = [
        {"rank": rank, "id": hit.id, "score": round(hit.score, 6), "lang": item.lang, **describe_item(item)}
        for rank, (hit, item) in enumerate(zip(run["query"], run.items("query"), strict=True), 1)
    ]
    if json:
        emit({"query": text, "lang": run.queries[0].lang, "hits": rows, "stages": run.manifest.to_json()})
        return
    for row in rows:
        line = row["text"].replace("\n", " · ")
        print(f"{row['rank']:>3}  {row['score']:9.4f}  {row['lang'] or '   '}  {row['id']}  {line}")
    if not rows:
        say("no document matches")
    for remark in describe_judging(run.manifest):
        say(remark)
