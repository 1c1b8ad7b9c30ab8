"""Documents that are added and removed while a service runs: one change at a time, by an index of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from ..encoders.base import Encoder, EncoderSpec
from ..errors import InputError
from ..indexes.registry import open_index
from ..items import Batch, Dense, Item, Role
from ..multilingual.languages import fill_languages
from .gate import hide_paths
from .quotas import Unknown
from .systems import ServedIndex

TOGETHER = 32  # documents that are encoded together: so long may a search wait


class QueuedEncoder:
    """A dense encoder of the service, which encodes in its turn among the searches (`engine.Engine`)."""

    def __init__(self, name: str, encoder: Encoder, submit: Callable[[str, Any, int], Future[Any]]) -> None:
        self.name = name
        self.spec: EncoderSpec = encoder.spec
        self._encoder = encoder
        self._submit = submit

    def encode(self, items: Iterable[Item], role: Role) -> Iterator[Batch]:
        listed = list(items)
        for start in range(0, len(listed), TOGETHER):
            part = listed[start : start + TOGETHER]
            vectors, _ = self._submit("encode", (self.name, role, part), len(part)).result()
            yield Dense([item.id for item in part], vectors)

    def token_spans(self, texts: Sequence[str]) -> Any:
        """As `encoders.base.Tokenizes`."""
        return self._encoder.token_spans(texts)  # type: ignore[attr-defined]

    def room(self, role: Role = "document") -> int:
        """As `encoders.base.Tokenizes`."""
        return int(self._encoder.room(role))  # type: ignore[attr-defined]


@dataclass
class Changes:
    """Changes of the served indexes, which are for `turn`: one thread, so that no two meet."""

    submit: Callable[[str, Any, int], Future[Any]]
    turn: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "crosslens-changes"))

    def add(self, served: ServedIndex, items: Sequence[Item]) -> dict[str, Any]:
        """Store documents, or others in their places; readers go on with the edition before until all are there."""
        self._check(served)
        encoders = [QueuedEncoder(hide_paths(name), each, self.submit) for name, each in served.encoders.items()]
        index = open_index(served.index.path, encoders=encoders)
        changed = index.add(list(fill_languages(items)), encoders)
        if changed:
            index.build()
        return {"changed": changed, "unchanged": len(items) - changed, "documents": len(index)}

    def remove(self, served: ServedIndex, id: str) -> dict[str, Any]:
        """Take a document out; `Unknown` if it is not there."""
        self._check(served)
        index = open_index(served.index.path)
        if not index.remove([id]):
            raise Unknown(f"there is no document {id!r} in {served.name}")
        index.build()
        return {"removed": id, "documents": len(index)}

    def _check(self, served: ServedIndex) -> None:
        if served.index.storage.place is None:
            raise InputError(f"{served.name} is in memory, and cannot be changed here")
        if any(each.spec.kind != "dense" for each in served.encoders.values()):
            raise InputError(f"{served.name} has other vectors than dense ones: change it with `crosslens index`")
