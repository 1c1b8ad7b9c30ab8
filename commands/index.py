"""`crosslens index`: a collection encoded into an index."""

from __future__ import annotations

from typing import Annotated

import typer

from ..errors import InputError, UnreadableItem
from .console import emit, progress, say, show
from .options import Device, Indexed, Json, Location, Trust


def index_command(
    collection: Indexed,
    directory: Location,
    encoder: Annotated[
        list[str] | None,
        typer.Option(
            help="Encoder SPEC; repeatable. Default: those of the index; for a new one offline:e5-use, with "
            "pictures also offline:conse."
        ),
    ] = None,
    lexical: Annotated[bool, typer.Option("--lexical/--no-lexical", help="Full text beside the vectors.")] = True,
    kind: Annotated[str, typer.Option("--index", help="lance, flat, faiss:FACTORY, sparse or late.")] = "lance",
    ann: Annotated[str, typer.Option(help="auto, none, IVF_FLAT, IVF_RQ, IVF_PQ or IVF_HNSW_SQ.")] = "auto",
    passages: Annotated[
        bool, typer.Option("--passages", help="Split documents; the best passage counts (MaxP).")
    ] = False,
    whole: Annotated[
        bool, typer.Option("--whole", help="Passages, each counting together with its whole document.")
    ] = False,
    window: Annotated[int | None, typer.Option(help="Tokens of a passage (default: 180; 64 with --whole).")] = None,
    stride: Annotated[
        int | None,
        typer.Option(help="Tokens from a passage to the next (default: half the window; all of it with --whole)."),
    ] = None,
    expansions: Annotated[
        str | None,
        typer.Option(
            metavar="FILE", help="Queries that full text finds documents by: JSON lines id, text, or a synthesized DIR."
        ),
    ] = None,
    pages: Annotated[
        bool, typer.Option("--pages", help="Of a folder: PDF pages as pictures, too, beside their text.")
    ] = False,
    columns: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            help="Of a table: which columns are what, as id=docno,text=title+body,image=photo,lang=language (id=# "
            "numbers the rows, lang= is none); meta=year+author keeps these alone beside them. Default: usual names.",
        ),
    ] = None,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Leave out malformed lines and damaged files, and name them.")
    ] = False,
    sync: Annotated[
        bool, typer.Option("--sync", help="Remove the documents of the index that the collection lacks.")
    ] = False,
    grace: Annotated[
        float | None, typer.Option(help="Seconds that readers may go on with what a change replaces (default: 600).")
    ] = None,
    cache: Annotated[
        bool, typer.Option("--cache/--no-cache", help="Take vectors from the cache, and keep new ones there.")
    ] = True,
    ray: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Encode on a Ray cluster: local, auto or HOST:PORT.")
    ] = None,
    device: Device = "auto",
    trust_remote_code: Trust = False,
    json: Json = False,
) -> None:
    """Encode a collection into an index; interrupted, the same command goes on where it was."""
    from ..indexes.storage.card import Windows
    from ..indexes.storage.storage import list_encoders_of
    from ..multilingual.collections.base import PROBLEMS
    from ..multilingual.collections.passed import PassedOver
    from ..multilingual.collections.registry import load_collection
    from ..systems.indexing import index_collection
    from ..systems.search import choose_encoders

    if sync and skip_bad:
        raise InputError("--sync removes what the collection lacks, and --skip-bad leaves a part of it out: give one")
    split = passages or whole or window is not None or stride is not None
    windows = Windows.of(window, stride, whole=whole) if split else None
    source = load_collection(collection, skip_bad=skip_bad, pages=pages or None, columns=columns)
    for note in getattr(source, "notes", ()):
        say(note)
    try:
        counts = source.check()
        specs = encoder or list_encoders_of(directory) or choose_encoders(counts.images)
        made = index_collection(
            source, directory, specs, documents=counts.documents, media=bool(counts.media), kind=kind, lexical=lexical,
            windows=windows, expansions=expansions, ann=ann, device=device, trust_remote_code=trust_remote_code,
            ray=ray, cache=cache, sync=sync, grace=grace, progress=progress,
        )  # fmt: skip
    except UnreadableItem as error:
        way = "correct it" if sync else "correct it, or go on without it: --skip-bad"  # which --sync cannot have
        raise UnreadableItem(f"{error}; {way}") from None
    skipped = counts.skipped + len(made.problems)
    passed: PassedOver = getattr(source, "passed", PassedOver())
    problems = [*getattr(source, "problems", ()), *made.problems][:PROBLEMS]
    if json:
        emit({**made.to_json(), "skipped": skipped, "problems": problems, "passed": passed.to_json()})
        return
    show(made, json=False)
    for problem in problems:
        say(f"skipped {problem}")
    if skipped:
        say("1 bad document skipped" if skipped == 1 else f"{skipped:,} bad documents skipped")
    for note in passed.notes:
        say(f"skipped {note}")
