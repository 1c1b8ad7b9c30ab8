"""The errors that users meet: each is one clear line that says what is wrong, where, and what to do about it."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator
from numbers import Integral

LONGEST = 200  # characters of one input that an error repeats
MOST = 3000  # of a whole error
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")
_BREAKS = re.compile(r"[ \t]*[\t\n\v\f\r]\s*")
_MARKS = re.compile(r"""\\.|(?<!\w)(?P<opening>['"])|(?P<closing>['"])""")
_LONG = re.compile(rf"\S{{{LONGEST + 1},}}")


class CrosslensError(Exception):
    """Anything crosslens itself reports; the command line prints its text and exits with status 1.

    The text is one line without control characters, whatever input it repeats, and of no input more than `LONGEST`
    characters. A `command` that ends it, to be copied, is not cut.
    """

    def __init__(self, text: str, command: str = "") -> None:
        super().__init__(write_line(text) + escape_controls(command))


class InputError(CrosslensError, ValueError):
    """A mistake in what the user gave (a file, a SPEC, an argument); exit status 2."""


class UnreadableItem(InputError):
    """One document of many cannot be read: a malformed line, a damaged picture; the text names it, or where it is."""


class SpecMismatch(InputError):
    """Vectors and encoder, or index and program, do not belong together; the text names the difference."""


KEPT = "kept: "


def note_kept(error: BaseException, what: str) -> None:
    """Add to what ends long work a note of what is kept of it, with which the same call goes on."""
    error.add_note(KEPT + what)


def list_kept(error: BaseException | None) -> list[str]:
    """The notes of what is kept, as `note_kept` made them."""
    return [note for note in getattr(error, "__notes__", ()) if note.startswith(KEPT)]


def check_known(name: str, known: Iterable[str], what: str) -> None:
    """`InputError` unless `name` is one of the `known`; it lists them and, where one is close, suggests it."""
    names = tuple(known)
    if name not in names:
        raise unknown_name(name, names, what)


def unknown_name(name: str, known: Iterable[str], what: str) -> InputError:
    """The error for a `name` that is none of the `known`."""
    names = tuple(dict.fromkeys(known))
    close = difflib.get_close_matches(name, names, n=1) if isinstance(name, str) else []
    hint = f"; did you mean {close[0]}?" if close else ""
    return InputError(f"unknown {what} {name!r}{hint} (known: {list_few(sorted(names), len(names))})")


def check_unicode(text: str, what: str) -> None:
    """`InputError` where half of a surrogate pair, as Python makes of bytes that are not UTF-8, stands in `what`."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InputError(f"{what} {text!r} is not valid Unicode: give it as UTF-8") from None


def check_at_least(least: int, where: str = "", **values: int | None) -> None:
    """`InputError` naming the first value that is no whole number from `least`, and `where` it stands; None is none."""
    for name, value in values.items():
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, Integral):
            raise InputError(f"{where and where + ': '}{name} must be a whole number, not {value!r}")
        if value < least:
            raise InputError(f"{where and where + ': '}{name} must be at least {least}, not {value}")


def check_cutoff(k: int | None, name: str = "k") -> None:
    """`InputError` unless `k` is a whole number of hits, from 1 to a billion."""
    if k is None:
        raise InputError(f"{name} must be a whole number, not None")
    check_at_least(1, "", **{name: k})
    if k > 10**9:
        raise InputError(f"{name} must be at most 1,000,000,000, not {k}")


def write_line(text: str) -> str:
    """A text as one line for people: control characters escaped, and what is long of the inputs it repeats cut.

    Inputs stand in quotes, or are words (paths, ids, SPECs); what is cut keeps its beginning and its end.
    """
    text = escape_controls(_BREAKS.sub(" ", text))
    text = _LONG.sub(lambda found: _cut(found[0]), "".join(map(_cut_quoted, _split_quoted(text))))
    return _cut(text, MOST)


def escape_controls(text: str) -> str:
    """A text without control characters, which a terminal would obey: they are shown as Python escapes them."""
    return _CONTROLS.sub(lambda found: repr(found[0])[1:-1], text)


def _split_quoted(text: str) -> Iterator[str]:
    """The parts of a text, in turn: what stands outside of quotes, and what stands in them, quotes included."""
    start, mark = 0, ""
    for found in _MARKS.finditer(text):
        if not mark and found["opening"]:
            yield text[start : found.start()]
            start, mark = found.start(), found["opening"]
        elif mark == found[0] and not text[found.end() : found.end() + 1].isalnum():
            yield text[start : found.end()]
            start, mark = found.end(), ""
    yield text[start:]


def _cut_quoted(part: str) -> str:
    if len(part) > 1 and part[0] in "'\"" and part[0] == part[-1]:
        return part[0] + _cut(part[1:-1]) + part[0]
    return part


def _cut(text: str, most: int = LONGEST) -> str:
    if len(text) <= most:
        return text
    end = most // 4
    return f"{text[: most - end - 3]}...{text[-end:]}"


def first_line(error: BaseException, limit: int = 200) -> str:
    """The first line of what an exception says, to be put into an error of one line; its type if it says nothing."""
    lines = str(error).strip().splitlines()
    return lines[0].strip()[:limit] if lines else type(error).__name__


def list_few(names: Iterable[str], limit: int = 3) -> str:
    """A few of many names, for an error line: `a, b, c, ... (12 in all)`."""
    listed = list(names)
    shown = ", ".join(listed[:limit]) or "none"
    return shown if len(listed) <= limit else f"{shown}, ... ({len(listed)} in all)"
