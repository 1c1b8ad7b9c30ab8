"""Tensors of a safetensors file where they lie: mapped into memory, not copied, and read as they are used."""

from __future__ import annotations

import json
import mmap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "U32": "<u4", "U16": "<u2", "U8": "u1"}


@dataclass(frozen=True)
class MappedTensors:
    """Read-only arrays by name, and what the file says `about` itself."""

    arrays: Mapping[str, np.ndarray]
    about: Mapping[str, str]


def map_tensors(path: Path) -> MappedTensors:
    """The tensors of a file; `OSError` if it cannot be opened, `ValueError` if it is cut short, damaged or bfloat16."""
    with path.open("rb") as file:
        held = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    start = 8 + int.from_bytes(held[:8], "little")
    header = json.loads(held[8:start])
    about = header.pop("__metadata__", {})
    arrays = {}
    for name, each in header.items():
        if each["dtype"] not in DTYPES:
            raise ValueError(f"{path}: {name} is {each['dtype']}, which is not read here")
        dtype = np.dtype(DTYPES[each["dtype"]])
        first, last = each["data_offsets"]
        flat = np.frombuffer(held, dtype, (last - first) // dtype.itemsize, start + first)
        arrays[name] = flat.reshape(each["shape"])
    return MappedTensors(arrays, about)
