"""A GGUF file, whole or in parts, to a checkpoint's bfloat16 safetensors, a few rows at a time.

transformers reads GGUF too. It takes minutes for a vocabulary of 150,000 to 260,000 pieces, which it walks value by
value three times, wants the parts joined on disk, and holds the weights twice. The header (GGUF version 3) is read
here; the dequantisation is the `gguf` package's.
"""

import json
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import BufferedReader, RawIOBase
from itertools import accumulate
from math import prod
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

import numpy as np

from ...errors import InputError
from .packages import Cursor

SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
STRING, ARRAY = 8, 9
CONTROL, USER_DEFINED, UNUSED = 3, 4, 5  # token types; the first two are matched as a whole before the model runs
BLOCK = 1 << 23  # weights that are dequantised at once: 32 MB in float32


class Tensor(NamedTuple):
    """A tensor of a GGUF file: its shape in numpy's order, its type among ggml's, where its bytes begin."""

    name: str
    shape: tuple[int, ...]
    kind: int
    offset: int


class JoinedFiles(RawIOBase):
    """Files that are read as one, in this order."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._files = [path.open("rb") for path in paths]
        self._ends = list(accumulate(path.stat().st_size for path in paths))
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0, /) -> int:
        self._at = offset + (0, self._at, self._ends[-1])[whence]
        return self._at

    def readinto(self, buffer: Any, /) -> int:
        """As much as one of the files has from here on; 0 at the end of the last."""
        number = bisect_right(self._ends, self._at)
        if number == len(self._files):
            return 0
        file = self._files[number]
        file.seek(self._at - (self._ends[number - 1] if number else 0))
        count = file.readinto(buffer)
        self._at += count
        return count

    def close(self) -> None:
        for file in self._files:
            file.close()
        super().close()


@contextmanager
def open_gguf(parts: Sequence[Path], architecture: str) -> Iterator[tuple[BinaryIO, dict[str, Any], list[Tensor]]]:
    """The file that `parts` make when joined, its metadata and its tensors; `InputError` if it is of another kind."""
    with BufferedReader(JoinedFiles(parts), 1 << 20) as file:
        meta, tensors = read_header(cast(BinaryIO, file))
        if (found := meta["general.architecture"]) != architecture:
            raise InputError(f"a GGUF file of the architecture {architecture} is needed, not {found}")
        yield cast(BinaryIO, file), meta, tensors


def read_header(file: BinaryIO) -> tuple[dict[str, Any], list[Tensor]]:
    """A GGUF file's metadata, and its tensors. Numeric arrays come as numpy arrays, string arrays as lists."""
    cursor = Cursor(file)

    def value(kind: int) -> Any:
        if kind == STRING:
            return cursor.text("Q")
        if kind != ARRAY:
            return cursor.take(SCALARS[kind])[0]
        inner, count = cursor.take("IQ")
        if inner in (STRING, ARRAY):
            return [value(inner) for _ in range(count)]
        return cursor.array("<" + SCALARS[inner], count)

    magic, version, tensor_count, meta_count = cursor.take("4sIQQ")
    if (magic, version) != (b"GGUF", 3):
        raise InputError(f"not a GGUF file of version 3: {magic!r} {version}")
    meta = {cursor.text("Q"): value(cursor.take("I")[0]) for _ in range(meta_count)}
    found = []
    for _ in range(tensor_count):
        name, (dimensions,) = cursor.text("Q"), cursor.take("I")
        shape = cursor.take(f"{dimensions}Q")[::-1]
        found.append((name, shape, *cursor.take("IQ")))
    step = meta.get("general.alignment", 32)
    base = -(-file.tell() // step) * step
    return meta, [Tensor(name, shape, kind, base + offset) for name, shape, kind, offset in found]


def rename_tensor(name: str, outer: Mapping[str, str], layer: Mapping[str, str]) -> str:
    """What transformers calls a tensor: by its whole name if it stands `outer`, else by its part of a `layer`."""
    if name in outer:
        return outer[name]
    _, number, part, suffix = name.split(".")
    return f"model.layers.{number}.{layer[part]}.{suffix}"


def write_weights(
    file: BinaryIO,
    tensors: Sequence[Tensor],
    directory: Path,
    rename: Callable[[str], str],
    adjust: Callable[[str, np.ndarray], np.ndarray] = lambda name, values: values,
) -> None:
    """Write model.safetensors in bfloat16: rounding to it loses far less than the quantisation did, in half the space.

    `rename` gives a tensor its name there, `adjust` may change its float32 values. The format is written here because
    the library's own writer wants all tensors in memory: the length of a JSON header, the header, the values.
    """
    import torch
    from gguf.quants import dequantize

    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for each in tensors:
        start, end = end, end + 2 * prod(each.shape)
        header[rename(each.name)] = {"dtype": "BF16", "shape": each.shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with (directory / "model.safetensors").open("wb") as out:
        out.write(len(text).to_bytes(8, "little") + text)
        for each in tensors:
            for raw, quant in _read_rows(file, each):
                values = adjust(each.name, dequantize(raw, quant))
                rounded = torch.from_numpy(np.require(values, requirements=["C", "W"])).bfloat16()
                out.write(rounded.view(torch.int16).numpy().data)


def _read_rows(file: BinaryIO, tensor: Tensor) -> Iterator[tuple[np.ndarray, Any]]:
    """A tensor's rows as they are in the file, uint8 [some, bytes], and their type."""
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    quant = GGMLQuantizationType(tensor.kind)
    block, size = GGML_QUANT_SIZES[quant]
    count, length = prod(tensor.shape[:-1]), tensor.shape[-1]
    width = length // block * size
    step = max(1, BLOCK // length)
    file.seek(tensor.offset)
    for start in range(0, count, step):
        rows = min(step, count - start)
        yield np.frombuffer(file.read(rows * width), np.uint8).reshape(rows, width), quant
