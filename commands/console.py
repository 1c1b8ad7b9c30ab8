"""What the command line shows: progress and messages on stderr, results on stdout, errors as one line."""

from __future__ import annotations

import difflib
import errno
import json
import logging
import os
import signal
import stat
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, redirect_stdout
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import CrosslensError, InputError, list_kept, write_line
from ..steps import listen

if TYPE_CHECKING:
    from rich.console import Console

    from ..items import Item
    from ..runs import Run

WIDE = 1000  # columns of a table that is piped
PATIENCE = 0.8  # seconds after which what is under way is said
BETWEEN = 10.0  # seconds from a line of progress to the next
# What the system says of a file that the user named and that is not there, or cannot be opened.
MISNAMED = {errno.EACCES, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.ENOENT, errno.ENOTDIR}


def emit(value: Mapping[str, Any]) -> None:
    """One JSON object on stdout."""
    print(json.dumps(value, ensure_ascii=False, indent=2), flush=True)


def show(result: Any, json: bool) -> None:
    """A result with `to_json` as one JSON object, or as text on stdout with its `notes`, if any, on stderr."""
    if json:
        emit(result.to_json())
        return
    print(result)
    for note in getattr(result, "notes", ()):
        say(note)


def say(text: str) -> None:
    """A line for people, on stderr."""
    print(text, file=sys.stderr, flush=True)


class Steps:
    """The steps of the work that are under way, the innermost last; one that lasts is shown, once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: list[Callable[[], None]] = []
        self._shown: list[Callable[[], None]] = []
        self._timer: threading.Timer | None = None

    @contextmanager
    def enter(self, show: Callable[[], None]) -> Iterator[None]:
        """While the block runs, it is a step, which `show` shows if it takes longer than `PATIENCE`."""
        with self._lock:
            if self._open and self._open[-1] is say_libraries:
                self._open.pop()
            self._open.append(show)
            self._wait()
        try:
            yield
        finally:
            with self._lock:
                self._open = [each for each in self._open if each is not show]
                self._shown = [each for each in self._shown if each is not show]
                self._wait()

    def _wait(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._open and self._open[-1] not in self._shown:
            self._timer = threading.Timer(PATIENCE, self._show, [self._open[-1]])
            self._timer.daemon = True
            self._timer.start()

    def _show(self, show: Callable[[], None]) -> None:
        with self._lock:
            if self._open and self._open[-1] is show:
                self._shown.append(show)
                show()


STEPS = Steps()


def say_libraries() -> None:
    """What a verb is at before its first step."""
    say("loading libraries ...")


def _are_lines_wanted() -> bool:
    return os.environ.get("CROSSLENS_PROGRESS") == "lines"


@contextmanager
def watch_steps() -> Iterator[None]:
    """While the block runs, a line on stderr says what takes longer than a second, for a terminal or where asked."""
    if not (sys.stderr.isatty() or _are_lines_wanted()):
        yield
        return
    with listen(lambda what: STEPS.enter(lambda: say(f"{what} ..."))), STEPS.enter(say_libraries):
        yield


@contextmanager
def progress(what: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
    """A bar on stderr if that is a terminal, and the work takes longer than a second.

    Else, and where `CROSSLENS_PROGRESS=lines` asks for it, lines. The callable takes how many are done in all.
    """
    if _are_lines_wanted():
        with _show_lines(what, total) as show_line:
            yield show_line
        return
    if not sys.stderr.isatty():
        yield lambda done: None
        return
    from rich import progress as rich
    from rich.console import Console

    columns = (
        rich.TextColumn("{task.description}"),
        rich.BarColumn(),
        rich.MofNCompleteColumn(),
        rich.TimeElapsedColumn(),
        rich.TimeRemainingColumn(),
    )
    bar = rich.Progress(*columns, console=Console(stderr=True), transient=True)
    task = bar.add_task(what, total=total)

    def show(done: int) -> None:
        # More than was expected moves the end: a bar never stands beyond it.
        bar.update(task, completed=done, total=None if total is None else max(done, total))

    try:
        with STEPS.enter(bar.start):
            yield show
    finally:
        bar.stop()


@contextmanager
def _show_lines(what: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """A line at the beginning and then one every `BETWEEN` seconds, with the time that is left."""
    started = said = time.monotonic()
    of = f" of {total:,}" if total else ""

    def show(done: int) -> None:
        nonlocal said
        if (now := time.monotonic()) - said >= BETWEEN and done:
            said = now
            left = f", about {format_seconds((now - started) * (total / done - 1))} left" if total else ""
            say(f"{what}: {done:,}{of}{left}")

    with STEPS.enter(lambda: say(f"{what}{of.replace(' of', '')} ...")):
        yield show


def format_seconds(seconds: float) -> str:
    """A duration as people say it: `40 s`, `3 min`, `2.5 h`."""
    seconds = max(0.0, seconds)
    return (
        f"{seconds:.0f} s"
        if seconds < 90
        else f"{seconds / 60:.0f} min"
        if seconds < 5400
        else f"{seconds / 3600:.1f} h"
    )


def describe_item(item: Item) -> dict[str, Any]:
    """What a person sees of a hit: the start of its text, or where its picture and other media are."""
    text, held = (item.text or "").strip(), {name: each for name, each in item.contents.items() if each is not None}
    shown = {name: str(each) if isinstance(each, Path) else f"(stored {name})" for name, each in held.items()}
    return {"text": text[:100] if text else f"[{', '.join(shown.values())}]", "image": shown.get("image")}


@contextmanager
def leave_stdout(output: Path) -> Iterator[None]:
    """What is shown goes to stderr where `output` is stdout itself (`/dev/stdout`): no reader would tell them apart."""
    try:
        there = os.stat(output)
        # A terminal, or /dev/null, has no reader that could mistake them.
        taken = os.path.samestat(there, os.fstat(1)) and not stat.S_ISCHR(there.st_mode)
    except (OSError, ValueError):
        taken = False
    with redirect_stdout(sys.stderr) if taken else nullcontext():
        yield


def write_run(run: Run, output: Path, tag: str, journal: Path | None, json: bool) -> None:
    """The end of `run` and `rerank`: the file, what was searched for beside it, and what is in it, without the journal.

    Queries that were rewritten stand in `OUTPUT.rewrites.jsonl`, with those that were not.
    """
    from ..systems.rewriting import write_beside

    run.to_trec(output, tag)
    if journal is not None:
        journal.unlink(missing_ok=True)
    write_beside(run, output)
    with leave_stdout(output):
        _show_run(run, output, json)


def _show_run(run: Run, output: Path, json: bool) -> None:
    from ..multilingual.judges.mass import leave_out_mass
    from ..multilingual.prompts.places import leave_out_places
    from ..multilingual.reranking.rerank import describe_judging
    from ..multilingual.rewriting.base import describe_rewriting

    empty = [query.id for query, hits in run if not hits]
    hits = sum(map(len, run.hits.values()))
    if json:
        emit({
            "run": str(output), "topics": len(run), "hits": hits, "topics_without_hits": empty,
            "stages": run.manifest.to_json(),
        })  # fmt: skip
        return
    print(f"{output}: {hits} hits for {len(run)} topics")
    for record in run.manifest.records:
        shown = leave_out_places(leave_out_mass(record.counts))
        counts = ", ".join(f"{int(number)} {kind}" for kind, number in shown.items() if int(number))
        print(f"  {record.stage}: {record.seconds:.1f} s" + (f", {counts}" if counts else ""))
    if empty:
        say(f"{len(empty)} topics have no hits, the first is {empty[0]}")
    for line in (*describe_rewriting(run.manifest), *describe_judging(run.manifest)):
        say(line)


def run_guarded(program: Callable[[], Any]) -> int:
    """Run a program; its exit status: 0 done, 2 bad usage or input, 1 anything else. No traceback for mistakes."""
    # Of libraries only errors: their warnings are about how they are called, which is no user's concern.
    logging.basicConfig(stream=sys.stderr, format="crosslens: %(message)s", level=logging.ERROR)
    logging.getLogger("crosslens").setLevel(logging.INFO)
    # Its retries are noise: what is wrong comes as one line in the end.
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    # What PIL logs as an error it raises, too.
    logging.getLogger("PIL").setLevel(logging.CRITICAL)
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # names of files need not be UTF-8
    try:
        with warnings.catch_warnings():
            if not sys.warnoptions:
                warnings.simplefilter("ignore")
            program()
        if sys.stdout is not None:
            sys.stdout.flush()  # here, where it is no mistake that a reader has gone
        return 0
    except CrosslensError as error:
        return _fail("; ".join([str(error), *list_kept(error)]), 2 if isinstance(error, InputError) else 1)
    except KeyboardInterrupt as stop:
        return report_interruption(stop)
    except BrokenPipeError:
        # The reader of our output (head, less) has gone: nothing is wrong. Python would complain while exiting.
        sys.stdout = open("/dev/null", "w")  # noqa: SIM115
        return 0
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return _fail(write_line(f"{where}{error.strerror or error}"), 2 if error.errno in MISNAMED else 1)
    except Exception as error:
        if type(error).__module__.startswith(("click", "typer")) and hasattr(error, "format_message"):
            usage = error.format_message()
            say(usage if usage.startswith("Usage") else write_line(f"crosslens: {_explain_usage(error, usage)}"))
            return 2
        raise


class Terminated(KeyboardInterrupt):
    """SIGTERM, which ends the work as Ctrl-C does."""


@contextmanager
def catch_termination() -> Iterator[threading.Event]:
    """While the block runs, SIGTERM sets the event and raises `Terminated`, unless it is handled otherwise already."""
    came = threading.Event()
    if (
        signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
        or threading.current_thread() is not threading.main_thread()
    ):
        yield came
        return

    def terminate(number: int, frame: object) -> None:
        came.set()
        raise Terminated

    signal.signal(signal.SIGTERM, terminate)
    try:
        yield came
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def report_interruption(stop: KeyboardInterrupt) -> int:
    """Say that the work was stopped and what is kept of it; the exit status: 1, or 143 (128 + 15) after SIGTERM."""
    kept = "; ".join(list_kept(stop)) or "what was finished is kept"
    how, status = ("terminated", 143) if isinstance(stop, Terminated) else ("interrupted", 1)
    return _fail(f"{how}; {kept}, and the same command goes on from there", status)


def _explain_usage(error: Any, usage: str) -> str:
    """What is wrong with a command line, the option that was probably meant, and where all of them are explained."""
    context, verbs = getattr(error, "ctx", None), [""]
    while context is not None and context.parent is not None:
        context, verbs = context.parent, [f" {context.info_name}", *verbs]
    name, known = getattr(error, "option_name", ""), getattr(error, "possibilities", None) or ()
    if close := [each for each in known if name and each.startswith(name)] or difflib.get_close_matches(name, known):
        usage = f"No such option: {name}; did you mean {close[0]}?"
    elif "unexpected extra argument" in usage:
        usage = f"{usage}; put words that belong together in quotes"
    return f"{usage} (see crosslens{''.join(verbs)} --help)"


def open_console() -> Console:
    """Where tables are printed: as wide as the terminal is, and on no terminal as wide as they are."""
    from rich.console import Console

    return Console() if sys.stdout.isatty() else Console(width=WIDE)


def _fail(text: str, status: int) -> int:
    say("crosslens: " + text)
    return status
