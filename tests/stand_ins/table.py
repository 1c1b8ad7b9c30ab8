"""Tests that are tables: one test runs all rows, and names those that fail."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection
from functools import wraps
from pathlib import Path
from typing import Any

import pytest

Test = Callable[..., None]


def table(names: str | tuple[str, ...], rows: Collection[Any]) -> Callable[[Test], Test]:
    """As `pytest.mark.parametrize`, where a row is too small for a test of its own.

    A row has its own folder `tmp_path`, and what it does by `monkeypatch` is undone before the next one.
    """
    columns = names if isinstance(names, tuple) else (names,)
    assert rows

    def decorate(test: Test) -> Test:
        signature = inspect.signature(test)

        @wraps(test)
        def run(**fixtures: Any) -> None:
            failures = []
            for number, row in enumerate(rows):
                given = fixtures | dict(zip(columns, row if len(columns) > 1 else (row,), strict=True))
                if "tmp_path" in fixtures:
                    given["tmp_path"] = Path(fixtures["tmp_path"], f"row{number}")
                    given["tmp_path"].mkdir()
                try:
                    with pytest.MonkeyPatch.context() as patch:
                        test(**given | ({"monkeypatch": patch} if "monkeypatch" in fixtures else {}))
                except (Exception, pytest.fail.Exception) as error:
                    error.add_note(f"in the row {row!r}")
                    failures.append(error)
            if len(failures) == 1:
                raise failures[0]
            if failures:
                raise BaseExceptionGroup(f"{len(failures)} of {len(rows)} rows", failures)

        asked = [each for name, each in signature.parameters.items() if name not in columns]
        run.__signature__ = signature.replace(parameters=asked)  # type: ignore[attr-defined]
        return run

    return decorate
