"""`crosslens judge`: a language model as assessor."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .console import leave_stdout, progress, show
from .options import Device, Fields, Json, Judged, QueryLang, Trust


def judge_command(
    collection: Judged,
    spec: Annotated[str, typer.Option("--judge", help="prompt@family:checkpoint, with a prompt that gives grades.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The TREC qrels to write.")],
    run: Annotated[
        list[Path] | None, typer.Option("--run", help="Judge the first documents of this run; repeatable.")
    ] = None,
    depth: Annotated[int, typer.Option(help="How many documents of each topic in each run.")] = 20,
    qrels: Annotated[
        str | None,
        typer.Option(
            help="Human judgements to agree with, and without --run to judge the same pairs: a file, or `collection`."
        ),
    ] = None,
    measure: Annotated[str, typer.Option("-m", "--measure", help="What ranks the runs.")] = "nDCG@20",
    fields: Fields = None,
    query_lang: QueryLang = None,
    unseen: Annotated[
        str, typer.Option(help="Pairs that the judge cannot see, as photos: refuse, or skip.")
    ] = "refuse",
    device: Device = "auto",
    trust_remote_code: Trust = False,
    json: Json = False,
) -> None:
    """Let a language model grade documents into TREC qrels, and hold its grades against human ones."""
    from ..evaluation.assess import parse_assessor
    from ..evaluation.assess_task import plan_assessment
    from ..multilingual.collections.registry import load_collection
    from ..pipeline import watch

    load = parse_assessor(spec, device=device, trust_remote_code=trust_remote_code)
    task = plan_assessment(
        load_collection(collection), output, runs=run or (), depth=depth, qrels=qrels, fields=fields, lang=query_lang,
        measure=measure, unseen=unseen,
    )  # fmt: skip
    assessor = load()
    with progress("judging", len(task.pairs)) as bar, watch(bar):
        report = task.judge_with(assessor)
    with leave_stdout(output):
        show(report, json)
