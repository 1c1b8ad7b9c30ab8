"""The errors that users meet: each is one clear line that says what is wrong, where, and the mend."""


class CrosslensError(Exception):
    """Anything crosslens itself reports; the command line prints its text and exits with status 1."""


class InputError(CrosslensError, ValueError):
    """A mistake in what the user gave (a file, a SPEC, an argument); exit status 2."""


class SpecMismatch(InputError):
    """Vectors and encoder, or index and program, do not belong together; the text names the difference."""


def nearest(name: str, known: "list[str] | tuple[str, ...]", what: str) -> InputError:
    """An error for an unknown `name` that lists the known ones and, where one is close, suggests it."""
    import difflib

    close = difflib.get_close_matches(name, known, n=1)
    hint = f"; did you mean {close[0]}?" if close else ""
    return InputError(f"unknown {what} {name!r}{hint} (known: {', '.join(sorted(known)) or 'none'})")
