"""Data frames, made and read with pandas, which is imported when they are asked for and not before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .errors import InputError, list_few
from .items import is_frame


def make_frame(columns: Mapping[str, Sequence[object]]) -> Any:
    """A data frame of columns by their names, one without rows included; `InputError` where pandas is missing."""
    try:
        import pandas
    except ImportError:
        raise InputError("data frames need pandas: pip install pandas") from None
    # Columns without a value would be of numbers, which no frame with ids can be joined with.
    return pandas.DataFrame(dict(columns), dtype=None if any(columns.values()) else object)


def read_columns(frame: object, *needed: str) -> list[list[Any]]:
    """The values of some columns of a data frame; `InputError` for what is none, and naming columns that it lacks."""
    if not is_frame(frame):
        raise InputError(f"a data frame of pandas is wanted, not {repr(frame)[:60]} ({type(frame).__name__})")
    held = list(map(str, frame.columns))  # type: ignore[attr-defined]
    if lacking := [name for name in needed if name not in held]:
        raise InputError(
            f"the data frame has no column {' and no '.join(lacking)} (it has {list_few(held, 8)}); "
            f"frame.rename(columns={{...}}) gives columns other names"
        )
    return [frame[name].tolist() for name in needed]  # type: ignore[index]
