"""The command line: a file a verb, which parses, calls the library, and prints (docs/design.md, section 5)."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from functools import wraps
from typing import Annotated, Any

import typer

from .adapt import adapt_command
from .cache import cache_command
from .console import Terminated, catch_termination, report_interruption, run_guarded, watch_steps
from .convert import convert_command
from .delete import delete_command
from .demo import demo_command
from .doctor import doctor_command
from .evaluate import evaluate_command
from .experiment import experiment_command
from .export import export_command
from .export_vectors import export_vectors_command
from .get import get_command
from .index import index_command
from .info import info_command
from .judge import judge_command
from .list import list_command
from .mine import mine_command
from .models import models_command
from .rerank import rerank_command
from .rewrite import rewrite_command
from .run import run_command
from .search import search_command
from .serve import serve_command
from .synthesize import synthesize_command
from .train import train_encoder_command, train_ranker_command
from .translate import translate_command
from .verify import verify_command

QUIET = {"LANCEDB_LOG": "error", "LANCE_LOG": "ERROR", "TRANSFORMERS_VERBOSITY": "error", "PYTHONWARNINGS": "ignore"}


def _interruptible(verb: Callable[..., None]) -> Callable[..., None]:
    """The verb, which says itself what is kept when it is stopped: typer forgets what it was stopped by."""

    @wraps(verb)
    def run(*given: Any, **options: Any) -> None:
        try:
            with watch_steps():
                verb(*given, **options)
        except KeyboardInterrupt as stop:
            raise typer.Exit(report_interruption(stop)) from None

    return run


HELP = {"help_option_names": ["--help", "-h"]}
app = typer.Typer(
    context_settings=HELP,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for verb in (
    demo_command, index_command, info_command, list_command, get_command, delete_command, export_vectors_command,
    search_command, serve_command, run_command, rerank_command,
    judge_command, evaluate_command, experiment_command, export_command, translate_command, rewrite_command,
    synthesize_command, mine_command, convert_command, adapt_command, verify_command, cache_command,
    models_command, doctor_command,
):  # fmt: skip
    app.command(verb.__name__.removesuffix("_command").replace("_", "-"))(_interruptible(verb))

train = typer.Typer(no_args_is_help=True, help="Train a model on examples.")
train.command("encoder")(_interruptible(train_encoder_command))
train.command("ranker")(_interruptible(train_ranker_command))
app.add_typer(train, name="train")


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(version("crosslens"))
        raise typer.Exit


@app.callback()
def crosslens(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Multilingual and multimodal retrieval: index, search, rerank, evaluate."""


def main() -> None:
    """Run the command line; exits with its status."""
    # Threads that wait by spinning make everything three times slower on a busy machine, and cost 2% less on an
    # idle one. Read when torch is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # What libraries log themselves, past Python's logging, or in processes that they start: errors alone.
    for name, level in QUIET.items():
        os.environ.setdefault(name, level)

    def program() -> None:
        # Alone, typer would print errors in a box and exit with its own status; so it returns the status instead.
        status = app(standalone_mode=False)
        if status == 130:
            raise Terminated if terminated.is_set() else KeyboardInterrupt
        if status:
            sys.exit(status)

    with catch_termination() as terminated:
        sys.exit(run_guarded(program))


def script() -> None:
    """The console script: `main`, without the second that torch and lancedb take to be torn down."""
    try:
        main()
    except SystemExit as stop:
        for stream in filter(None, (sys.stdout, sys.stderr)):  # None where it was closed from the start
            stream.flush()
        os._exit(stop.code if isinstance(stop.code, int) else 1)
