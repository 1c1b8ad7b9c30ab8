"""An encoder that needs no model, and counts what it was asked for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

import numpy as np
import scipy.sparse
from crosslens.encoders.base import Encoder, EncoderSpec
from crosslens.items import Batch, Dense, Item, Multi, Role, Sparse, windows

DIM = 64


def vector(text: str) -> np.ndarray:
    """What the counting encoder makes of a text."""
    return np.random.default_rng(list(text.encode())).standard_normal(DIM).astype(np.float32)


class Counting:
    """An encoder that says what it was asked for, `window` items at a time as the engine does."""

    def __init__(self, kind: str = "dense", window: int = 100, name: str = "count", dtype: str = "float32"):
        self.spec = EncoderSpec(f"{name}:x", name, ("text",), DIM, kind=kind, dtype=dtype)  # type: ignore[arg-type]
        self.window = window
        self.asked: Counter[str] = Counter()
        self.streams = 0

    def encode(self, items: Iterable[Item], role: Role) -> Iterator[Batch]:
        self.streams += 1
        for group in windows(items, self.window):
            self.asked.update(item.text or "" for item in group)
            yield self.batch(group)

    def batch(self, group: list[Item]) -> Batch:
        ids = [item.id for item in group]
        made = [vector(item.text or "") for item in group]
        if self.spec.kind == "dense":
            return Dense(ids, np.stack(made))
        if self.spec.kind == "multi":
            return Multi(
                ids,
                [
                    np.outer(np.arange(len(i.text or "") % 5, dtype=np.float32), m)
                    for i, m in zip(group, made, strict=True)
                ],
            )
        thinned = np.where(np.stack(made) > 0.5, np.stack(made), 0)
        return Sparse(ids, scipy.sparse.csr_matrix(thinned))


def documents(*texts: str, lang: str | None = "eng") -> list[Item]:
    return [Item(f"d{number}", text, lang=lang) for number, text in enumerate(texts)]


def numbered(count: int, start: int = 0) -> list[Item]:
    return [Item(f"n{number}", f"text {number}", lang="eng") for number in range(start, start + count)]


def rows(encoder: Encoder, items: Iterable[Item]) -> list[tuple[str, bytes]]:
    """The id of each item and all that its vector says."""
    found = []
    for batch in encoder.encode(items, "document"):
        if isinstance(batch, Sparse):
            assert batch.vectors.shape == (len(batch.ids), encoder.spec.dim)
            for row, id in enumerate(batch.ids):
                one = batch.vectors[row]
                assert one.dtype == np.float32
                found.append((id, one.indices.astype("i4").tobytes() + one.data.tobytes()))
        else:
            for id, each in zip(batch.ids, batch.vectors, strict=True):
                assert each.dtype == np.float32
                found.append((id, repr(each.shape).encode() + each.tobytes()))
    return found
