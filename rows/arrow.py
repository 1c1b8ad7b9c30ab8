"""Batches of Arrow, from files and from tables in memory, as rows of plain Python values."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from ..errors import InputError, first_line
from .fields import check_column_names

if TYPE_CHECKING:
    import pyarrow as pa

BATCH = 256  # rows that are Python objects at a time

Labels = Mapping[str, Sequence[str]]  # column -> the names that its numbers stand for


def read_batch(batch: pa.RecordBatch | pa.Table, labels: Labels) -> Iterator[dict[str, Any]]:
    """The rows of a batch, `BATCH` at a time; numbers that stand for `labels` become these.

    Times are read to the microsecond, which is all that Python has. `InputError` names a column that cannot be read.
    """
    names = batch.schema.names
    check_column_names(names)
    for start in range(0, batch.num_rows, BATCH):
        part = batch.slice(start, BATCH)
        values = [_list_values(name, part.column(place), labels) for place, name in enumerate(names)]
        for row in zip(*values, strict=True):
            yield dict(zip(names, row, strict=True))


def find_labels(schema: pa.Schema) -> Labels:
    """The names of classes that `datasets` notes in the schema of what it writes."""
    with suppress(ValueError, KeyError, TypeError, AttributeError):
        return read_labels(json.loads(schema.metadata[b"huggingface"])["info"]["features"])
    return {}


def read_labels(features: Mapping[str, Any]) -> Labels:
    """The names of classes in the features of a data set, as `Features.to_dict` gives them."""
    found = {name: _find_names(feature) for name, feature in features.items()}
    return {name: names for name, names in found.items() if names}


def _find_names(feature: Any) -> Sequence[str] | None:
    if isinstance(feature, list) and len(feature) == 1:  # how lists are noted, too
        return _find_names(feature[0])
    if not isinstance(feature, Mapping):
        return None
    if feature.get("_type") == "ClassLabel":
        return feature.get("names")
    return _find_names(feature["feature"]) if "feature" in feature else None


def _list_values(name: str, column: Any, labels: Labels) -> list[Any]:
    import pyarrow as pa

    try:
        values = _to_microseconds(column).to_pylist()
    except (pa.ArrowException, ValueError, OverflowError) as error:
        raise InputError(f"the column {name!r} cannot be read: {first_line(error)}") from None
    return [_write_label(each, names) for each in values] if (names := labels.get(name)) else values


def _to_microseconds(column: Any) -> Any:
    import pyarrow as pa

    kind = column.type
    if getattr(kind, "unit", None) != "ns":
        return column
    if pa.types.is_timestamp(kind):
        return column.cast(pa.timestamp("us", kind.tz), safe=False)
    return column.cast(pa.duration("us") if pa.types.is_duration(kind) else pa.time64("us"), safe=False)


def _write_label(value: Any, names: Sequence[str]) -> Any:
    if isinstance(value, list):
        return [_write_label(each, names) for each in value]
    if not isinstance(value, int):
        return value
    return names[value] if 0 <= value < len(names) else None  # -1 stands for no class
