"""`crosslens mine`: training examples with hard negatives, from judgements and the ranking of any system."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .console import progress, show
from .options import Device, Fields, Json, Judged, QueryLang, Source, Trust


def mine_command(
    collection: Judged,
    where: Annotated[
        str, typer.Argument(metavar="INDEX", help="The index that is searched for negatives, or a TREC run.")
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The JSON lines to write, plain or .gz; a killed call goes on.")
    ],
    system: Annotated[
        str | None,
        typer.Option(
            metavar="LINE",
            help="The system that ranks, in one line (default: dense, or lexical where the index has no vectors).",
        ),
    ] = None,
    first: Annotated[int, typer.Option(help="The first rank that may be a negative.")] = 1,
    last: Annotated[int, typer.Option(help="The last rank that may be one.")] = 100,
    negatives: Annotated[int, typer.Option(help="Hard negatives a query.")] = 7,
    margin: Annotated[
        str,
        typer.Option(
            help="The greatest score of a negative: a share of the positive's (0.95), a difference to it (-0.05), or "
            "none for any."
        ),
    ] = "0.95",
    sampling: Annotated[
        str, typer.Option(metavar="SPEC", help="Which candidates are taken: top, uniform, or simans?a=&b=.")
    ] = "top",
    same_language: Annotated[
        str,
        typer.Option(
            metavar="SHARE",
            help="Share of the negatives in the positives' languages, the rest in the collection's mix; or any, for no "
            "rule of languages.",
        ),
    ] = "0.5",
    translations: Annotated[
        str,
        typer.Option(metavar="BY", help="A positive's translations are no negatives: they are told by id, or a key."),
    ] = "",
    judge: Annotated[
        str | None,
        typer.Option("--judge", help="A reranker's SPEC (yesno@family:checkpoint) whose scores the margin is for."),
    ] = None,
    threshold: Annotated[
        float | None, typer.Option(help="The judge's score from which on a document is no negative.")
    ] = None,
    score: Annotated[
        str | None, typer.Option("--score", help="A reranker's SPEC: the teacher whose scores are written.")
    ] = None,
    fields: Fields = None,
    query_lang: QueryLang = None,
    source: Source = None,
    held_out: Annotated[
        list[str] | None,
        typer.Option(metavar="COLLECTION", help="Refuse queries that are topics of this collection; repeatable."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Take test topics, too.")] = False,
    seed: Annotated[int, typer.Option(help="Seed of all that is drawn at random.")] = 0,
    device: Device = "auto",
    trust_remote_code: Trust = False,
    json: Json = False,
) -> None:
    """Make training examples of a collection's judgements, with hard negatives, and perhaps a teacher's scores."""
    from ..multilingual.collections.registry import load_collection
    from ..training.data.mine import Mining
    from ..training.data.negatives import Margin, parse_share

    share = None if same_language == "any" else parse_share(same_language)
    mining = Mining(
        where, system, first, last, negatives, Margin.parse(margin), sampling, share, translations, judge,
        threshold, score, seed, tuple(held_out or ()), force, device, trust_remote_code,
    )  # fmt: skip
    wording = {"fields": fields, "lang": query_lang, "source": source}
    show(mining.run(load_collection(collection), output, data=collection, progress=progress, **wording), json)
