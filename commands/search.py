"""`crosslens search`: one query against an index."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import InputError, escape_controls
from ..files import check_file
from . import options
from .console import describe_item, emit, progress, say
from .hits import print_hits


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
    server: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            envvar="CROSSLENS_SERVER",
            help="Ask a running `crosslens serve`, where DIR is served under its name: no model is loaded here. "
            "Its key, if it has one, is read from CROSSLENS_API_KEY.",
        ),
    ] = None,
    html: Annotated[Path | None, typer.Option(help="Also write a page with the hits and their pictures.")] = None,
    json: options.Json = False,
) -> None:
    """Search an index with text, a picture, or both."""
    if not (text and text.strip()) and image is None:
        way = f"; the service's index comes first: search INDEX {str(directory)!r} --server URL" if server else ""
        raise InputError(f"the query is empty: give TEXT, --image PATH, or both{way}")
    if image is not None:
        if not os.path.lexists(image):
            raise InputError(f"there is no picture {image}")
        check_file(image)
    if server:
        refused = {
            "--no-correction": not correction, "--exclude": exclude != "listed", "--unseen": unseen != "keep",
            "--device": device != "auto", "--trust-remote-code": trust_remote_code, "--html": html is not None,
            "--rerank SPEC (a service has its own: --rerank default)": bool(rerank) and rerank != ["default"],
        }  # fmt: skip
        if given := [name for name, is_given in refused.items() if is_given]:
            raise InputError(f"a service is not asked with {', '.join(given)}: leave it out, or --server")
        if system is not None and (mode != "hybrid" or rerank):
            raise InputError("--system names a system of the service: leave out --mode and --rerank")
        found = _ask(
            server, directory, text, image, k=k, system=system, mode=None if system else mode, where=where, langs=lang,
            lang=query_lang, rerank=None if system else bool(rerank), explain=explain, exact=exact,
        )  # fmt: skip
    else:
        found = _search(
            directory, text, image, k=k, system=system, mode=mode, langs=lang, where=where, query_lang=query_lang,
            rerank=rerank, exclude=exclude, unseen=unseen, correct=correction, exact=exact, explain=explain,
            device=device, trust_remote_code=trust_remote_code, html=html,
        )  # fmt: skip
    answer, lines, remarks = found
    if json:
        emit(answer)
        return
    for line in lines:
        print(escape_controls(line))
    print_hits(answer["hits"])
    for remark in remarks:
        say(remark)


Shown = tuple[dict[str, Any], Sequence[str], Sequence[str]]  # as JSON, lines above the hits, remarks on stderr


def _ask(
    server: str,
    directory: str,
    text: str | None,
    image: Path | None,
    *,
    where: Sequence[str] | None,
    langs: Sequence[str] | None,
    **asked: Any,
) -> Shown:
    """What a service answers, as a search here would."""
    from ..media.language_codes import parse_language
    from ..service.client import encode_picture, name_served, search_service

    base = server.rstrip("/")
    filters = options.parse_filters([*(where or ()), *(f"lang={parse_language(each)}" for each in langs or ())])
    body = {"text": text, "index": name_served(directory), "where": filters or {}, **asked}
    if image is not None:
        body["image"] = encode_picture(image)
    found = search_service(server, body, os.environ.get("CROSSLENS_API_KEY", ""))
    try:
        rows = [
            {
                "rank": hit["rank"], "id": hit["id"], "score": hit["score"], "lang": hit["lang"],
                "text": hit["snippet"] or f"[{base + hit['thumbnail'] if hit['thumbnail'] else hit['modality']}]",
                "image": base + hit["image"] if hit["image"] else None,
                "meta": hit["meta"],
            }
            | ({"stages": hit["stages"]} if "stages" in hit else {})
            for hit in found["hits"]
        ]  # fmt: skip
        answer = {"query": text, "lang": found["query"]["lang"]}
        answer |= {"rewritten": found.get("rewritten", [])} if asked["explain"] else {}
        answer |= {"hits": rows, "stages": found["manifest"]}
    except (KeyError, TypeError):
        raise InputError(
            f"{server} is a service of another version of crosslens: update the one or the other"
        ) from None
    remarks = [] if rows else ["no document matches"]
    if found.get("partial"):
        remarks.append("the service's reranking was not done in time: this is the first ranking")
    lines = [
        f"searched for, group {each['group']}, as a {each['role']}, weight {each['weight']:g}: {each.get('text', text)}"
        for each in answer.get("rewritten", ())
    ]
    return answer, (lines or [f"searched for as it is: {text}"]) if asked["explain"] else (), remarks


def _search(
    directory: str,
    text: str | None,
    image: Path | None,
    *,
    k: int,
    system: str | None,
    mode: str,
    langs: Sequence[str] | None,
    where: Sequence[str] | None,
    query_lang: str | None,
    rerank: list[str] | None,
    correct: bool,
    explain: bool,
    html: Path | None,
    **how: Any,
) -> Shown:
    """What a search here finds."""
    from ..items import Item
    from ..multilingual.languages import fill_languages
    from ..multilingual.reranking.rerank import describe_judging
    from ..multilingual.rewriting.base import describe_rewriting
    from ..multilingual.rewriting.rewrites import explain_probes, to_rewrite
    from ..multilingual.snippets import make_snippet
    from ..systems.search import check_output, choose_line, search_index
    from ..systems.trace import Trace

    if html is not None:
        check_output(html)
    query = Item("query", text=text, image=image, lang=query_lang)
    line = choose_line(system, mode, langs, correct, rerank)
    trace = Trace() if explain else None
    run = search_index(
        directory, fill_languages([query]), line, k=k, where=options.parse_filters(where or ()), progress=progress,
        trace=trace, brief=True, **how,
    )  # fmt: skip
    probes = run.probes.get("query", ())
    words = " ".join([text or "", *(probe.item.text or "" for probe in probes)])
    hits = list(zip(run["query"], run.items("query"), strict=True))
    if html is not None:
        from ..demo.pages import write_hits_page

        write_hits_page(html, run.queries[0], hits, words=words, system=line)
    rows = []
    for rank, (hit, item) in enumerate(hits, 1):
        shown = describe_item(item)
        if item.text and item.text.strip():
            shown["text"] = make_snippet(item.text, words)[0]
        row = {"rank": rank, "id": hit.id, "score": round(hit.score, 6), "lang": item.lang, **shown}
        stages = {"stages": trace.describe("query", hit.id)} if trace else {}
        rows.append({**row, "meta": dict(item.meta), **stages})
    rewritten = {"rewritten": to_rewrite(run.queries[0], probes)["probes"]} if explain else {}
    answer = {"query": text, "lang": run.queries[0].lang, **rewritten, "hits": rows, "stages": run.manifest.to_json()}
    remarks = [] if rows else ["no document matches"]
    remarks += [*describe_rewriting(run.manifest), *describe_judging(run.manifest)]
    return answer, list(explain_probes(run.queries[0], probes)) if explain else (), remarks
