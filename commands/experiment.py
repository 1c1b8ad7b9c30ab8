"""`crosslens experiment`: many systems, one table."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .console import emit, progress, say
from .options import Device, Json, Trust


def experiment_command(
    file: Annotated[Path, typer.Argument(metavar="FILE.toml", help="Collections, systems, measures.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Where all of it goes (default: FILE.results).")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done: documents, tokens, judge calls, minutes.")
    ] = False,
    device: Device = "auto",
    trust_remote_code: Trust = False,
    json: Json = False,
) -> None:
    """Many systems on some collections: runs, manifests, tables and a report; a rerun does only what is not done."""
    from ..evaluation.experiment.plan import Plan

    plan = Plan.read(file)
    out = output or file.with_suffix(".results")
    if dry_run:
        from ..evaluation.experiment.survey import sum_up, survey_plan

        found = survey_plan(plan, out, device=device)
        if json:
            emit({"plan": plan.to_json(), "collections": [each.to_json() for each in found]})
        else:
            print(*found, sum_up(found), sep="\n")
        return
    from ..evaluation.experiment.conduct import conduct
    from ..evaluation.report.plots import explain_lack
    from ..evaluation.report.render import write_report

    results = conduct(plan, out, device=device, trust_remote_code=trust_remote_code, progress=progress)
    write_report(results, out)
    if lack := explain_lack():
        say(lack)
    if json:
        emit(results.to_json())
        return
    for part in results.parts:
        print(part.collection)
        part.table.show()
    print(f"{out}: report.html, results.json, tables.md, tables.tex, and a folder for every run")
