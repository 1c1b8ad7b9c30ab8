"""`crosslens evaluate`: measures of runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .console import emit
from .options import Json


def evaluate_command(
    qrels: Annotated[Path, typer.Argument(metavar="QRELS")],
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...")],
    measure: Annotated[
        list[str] | None,
        typer.Option("-m", help="As ir_measures writes it: nDCG@20, alpha_nDCG@20, PEER@20; repeatable."),
    ] = None,
    per_language: Annotated[
        bool | None,
        typer.Option(
            "--per-language/--no-per-language",
            help="Also by the documents' language (default: where the relevant documents have several, all known).",
        ),
    ] = None,
    langs: Annotated[
        str | None,
        typer.Option(
            help="The languages of documents that QRELS has none of, as unjudged ones: a file of lines "
            "`document language`, or a collection."
        ),
    ] = None,
    per_topic: Annotated[bool, typer.Option("--per-topic", help="Also every topic's values.")] = False,
    baseline: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Test every run against this one: its name in the table, its file, or 0, the first."
        ),
    ] = None,
    test: Annotated[str, typer.Option(help="The paired test: t or randomisation.")] = "t",
    correction: Annotated[str, typer.Option(help="For many runs: holm or bonferroni.")] = "holm",
    interval: Annotated[
        float | None, typer.Option(help="Bootstrap intervals of the means at this confidence: 0.95.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the randomisation test and the bootstrap.")] = 0,
    json: Json = False,
) -> None:
    """Measures of runs, by language and topic, with paired tests against a baseline and intervals."""
    from ..evaluation.evaluate import evaluate_files

    table = evaluate_files(
        qrels, runs, measures=measure or None, per_language=per_language, langs=langs, baseline=baseline,
        test=test, correction=correction, interval=interval, seed=seed,  # type: ignore[arg-type]
    )  # fmt: skip
    if json:
        emit(table.to_json(per_query=per_topic))
    else:
        table.show(per_topic=per_topic)
