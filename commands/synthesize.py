"""`crosslens synthesize`: queries for documents, written by a model or mined."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .console import progress, show
from .options import Collection, Device, Json, Trust


def synthesize_command(
    collection: Collection,
    spec: Annotated[
        str,
        typer.Option(
            "--with",
            metavar="SOURCE",
            help="PROMPT@FAMILY:CHECKPOINT[?n=&styles=], PROMPT being inpars, promptagator or doc2query; or ict, "
            "titles, anchors, translations.",
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The directory to make; a rerun resumes.")],
    langs: Annotated[
        str, typer.Option(help="Languages of the queries: same, eng, or a mix by weight as eng=0.5,same=0.5.")
    ] = "same",
    documents: Annotated[int | None, typer.Option(help="A sample of so many documents (default: all).")] = None,
    lang: Annotated[
        list[str] | None, typer.Option("--lang", help="Only documents in this language; repeatable.")
    ] = None,
    balance: Annotated[
        bool,
        typer.Option(
            "--balance/--no-balance",
            help="The same number of documents of each language in the sample, as far as there are enough.",
        ),
    ] = False,
    shortest: Annotated[int, typer.Option(help="Letters that a document has at least.")] = 1,
    longest: Annotated[int | None, typer.Option(help="Letters that a document has at most.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the sample, and of all that is drawn at random.")] = 0,
    round_trip: Annotated[
        int | None,
        typer.Option(
            metavar="K",
            help="Keep a query if its document is among the first K found (by default not asked; with --index 20).",
        ),
    ] = None,
    index: Annotated[
        str | None,
        typer.Option(
            "--index", metavar="DIR", help="The index for the round trip; without it one is made, and removed."
        ),
    ] = None,
    judge: Annotated[
        str | None, typer.Option("--judge", help="Keep a query by this reranker's score: yesno@family:checkpoint.")
    ] = None,
    threshold: Annotated[
        float | None, typer.Option(help="The judge's score from which on a query is kept (yesno: 0).")
    ] = None,
    most_copied: Annotated[
        float, typer.Option(help="Share of a query that a long copy of the document's words may make.")
    ] = 0.6,
    held_out: Annotated[
        list[str] | None,
        typer.Option(
            metavar="COLLECTION",
            help="Leave out queries that are topics of this collection; repeatable. Topics of the collection itself "
            "are always left out.",
        ),
    ] = None,
    write: Annotated[str, typer.Option(help="Which documents are written: judged, or all.")] = "judged",
    device: Device = "auto",
    trust_remote_code: Trust = False,
    json: Json = False,
) -> None:
    """Make queries for a collection's documents, as a collection with judgements; killed, the same command goes on."""
    from ..multilingual.collections.registry import load_collection
    from ..multilingual.languages import parse_language
    from ..training.data.base import LanguageMix
    from ..training.data.registry import load_source
    from ..training.data.selection import Selection
    from ..training.data.synthesize import Synthesis, check_synthesis, list_wordings

    check_synthesis(output, write=write, judge=judge, threshold=threshold, index=index)
    made = load_collection(collection)
    codes = tuple(dict.fromkeys(map(parse_language, lang or ())))
    selection = Selection(documents, codes, shortest, longest, balance, seed)
    mix = LanguageMix.parse(langs)
    texts = [text for name in held_out or () for text in list_wordings(load_collection(name))]
    task = Synthesis(
        load_source(spec, device=device, trust_remote_code=trust_remote_code), selection, mix, round_trip, index, judge,
        threshold, most_copied, texts, write, device, trust_remote_code,  # type: ignore[arg-type]
    )  # fmt: skip
    show(task.run(made, output, name=collection, progress=progress), json)
