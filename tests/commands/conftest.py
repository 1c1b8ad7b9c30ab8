"""What the command line says of a mistake."""

from __future__ import annotations

from collections.abc import Callable

import pytest


@pytest.fixture
def refused(crosslens: Callable[..., tuple[int, str, str]]) -> Callable[..., None]:
    """Asserts that a call ends with status 2 and one line on stderr that holds all the `parts`.

    `by` makes the call of the arguments, by default `crosslens`.
    """

    def call(*arguments: object, parts: tuple[str, ...], by: Callable[..., tuple[int, str, str]] = crosslens) -> None:
        status, out, err = by(*arguments)
        assert status == 2, err
        lines = [line for line in err.splitlines() if line.startswith("crosslens: ")]
        assert len(lines) == 1, err
        assert "Traceback" not in err
        for part in parts:
            assert part in lines[0]
        assert not out

    return call
