"""Values of rows as JSON: what metadata can hold, whatever library they come from."""

from __future__ import annotations

import math
from collections.abc import Mapping, Set
from datetime import date, time, timedelta
from decimal import Decimal
from pathlib import PurePath
from typing import Any
from uuid import UUID

from ..errors import InputError


def to_json_value(value: Any) -> Any:
    """A value as JSON has it; None for what stands for nothing, NaN and NaT among it, and for bytes.

    Dates and times are written as ISO 8601, lengths of time as seconds, and infinite numbers as text; decimal numbers
    become numbers where that is exact, else text. Arrays and sets become lists; of objects, keys are made text, and
    fields without a value are left out. `InputError` for what no JSON could stand for.
    """
    if value is None or isinstance(value, str | int):
        return value
    if isinstance(value, float):
        return None if math.isnan(value) else float(value) if math.isfinite(value) else str(value)
    if isinstance(value, bytes | bytearray | memoryview):
        return None
    if isinstance(value, Mapping):
        return {str(key): held for key, each in value.items() if (held := to_json_value(each)) is not None}
    if isinstance(value, list | tuple | Set):
        return [to_json_value(each) for each in value]
    if isinstance(value, date | time):
        return value.isoformat() if value == value else None  # NaT, which pandas calls a date, differs from itself
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, Decimal):
        return _write_decimal(value)
    if isinstance(value, UUID | PurePath):
        return str(value)
    kind = type(value).__name__
    if kind in ("NAType", "NaTType"):  # of pandas
        return None
    if kind == "datetime64":
        return None if str(value) == "NaT" else str(value)
    if hasattr(value, "tolist"):  # numpy's arrays and single values
        return to_json_value(value.tolist())
    raise InputError(f"a value of type {kind} cannot be kept as metadata")


def _write_decimal(value: Decimal) -> int | float | str | None:
    if not value.is_finite():
        return None if value.is_nan() else str(value)
    if value == value.to_integral_value():
        return int(value)
    return float(value) if Decimal(str(float(value))) == value else str(value)
