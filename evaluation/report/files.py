"""The files that an experiment leaves beside its runs: results.json, tables.md, tables.tex and report.html."""

from __future__ import annotations

import json
from pathlib import Path

from ...files import write_atomically
from ..experiment.results import Results
from . import render as report


def leave(results: Results, out: Path) -> None:
    """Write them into the directory `out`; each appears under its name when it is complete."""
    with write_atomically(out / "results.json") as file:
        json.dump(results.to_json(), file, indent=2, ensure_ascii=False)
    for name, text in (
        ("tables.md", report.markdown(results)),
        ("tables.tex", report.latex(results)),
        ("report.html", report.html(results)),
    ):
        with write_atomically(out / name) as file:
            file.write(text)
