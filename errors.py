"""The errors that users meet: each is one clear line that says what is wrong, where, and what to do about it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class CrosslensError(Exception):
    """Anything crosslens itself reports; the command line prints its text and exits with status 1."""


class InputError(CrosslensError, ValueError):
    """A mistake in what the user gave (a file, a SPEC, an argument); exit status 2."""


class SpecMismatch(InputError):
    """Vectors and encoder, or index and program, do not belong together; the text names the difference."""


def check_known(name: str, known: Iterable[str], what: str) -> None:
    """`InputError` unless `name` is one of the `known`; it lists them and, where one is close, suggests it."""
    names = tuple(known)
    if name not in names:
        raise unknown_name(name, names, what)


def unknown_name(name: str, known: Iterable[str], what: str) -> InputError:
    """The error for a `name` that is none of the `known`."""
    names = tuple(known)
    close = difflib.get_close_matches(name, names, n=1)
    hint = f"; did you mean {close[0]}?" if close else ""
    return InputError(f"unknown {what} {name!r}{hint} (known: {list_few(sorted(names), len(names))})")


def check_at_least(least: int, where: str = "", **values: int | None) -> None:
    """`InputError` naming the first value below `least`, and `where` it stands; None is none."""
    for name, value in values.items():
        if value is not None and value < least:
            raise InputError(f"{where and where + ': '}{name} must be at least {least}, not {value}")


def first_line(error: BaseException, limit: int = 200) -> str:
    """The first line of what an exception says, to be put into an error of one line; its type if it says nothing."""
    lines = str(error).strip().splitlines()
    return lines[0].strip()[:limit] if lines else type(error).__name__


def list_few(names: Iterable[str], limit: int = 3) -> str:
    """A few of many names, for an error line: `a, b, c, ... (12 in all)`."""
    listed = list(names)
    shown = ", ".join(listed[:limit]) or "none"
    return shown if len(listed) <= limit else f"{shown}, ... ({len(listed)} in all)"
