"""What is served by name: systems, split where their reranking begins, and indexes, to which they are bound."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from hashlib import blake2b
from operator import rshift
from pathlib import Path
from threading import Lock
from typing import Any, Generic, Self, TypeVar

from ..encoders.base import Encoder
from ..errors import InputError
from ..indexes.base import Index, Where
from ..items import Item
from ..pipeline import Cut, Stage, Then
from ..systems.stages import Unbound
from ..systems.system import OpenSite, System
from .examples import find_examples
from .quotas import Unknown

T = TypeVar("T")
NAME = re.compile(r"([A-Za-z][\w.-]*)=(.+)", re.DOTALL)
RETRIEVERS = 256  # searches that are kept bound: they are small


class Kept(Generic[T]):
    """The last `most` values by key; the one that was asked for longest ago goes first. Threads may share it.

    With `weigh`, their bytes, they also go until all together have at most `room`.
    """

    def __init__(self, most: int, room: int = 0, weigh: Callable[[T], int] = lambda value: 0) -> None:
        self.most = most
        self.room = room
        self._weigh = weigh
        self._weight = 0
        self._held: OrderedDict[object, tuple[T, int]] = OrderedDict()
        self._lock = Lock()

    def find(self, key: object) -> T | None:
        """What is kept under a key."""
        with self._lock:
            if key not in self._held:
                return None
            self._held.move_to_end(key)
            return self._held[key][0]

    def keep(self, key: object, value: T) -> T:
        """Keep a value, and give it back."""
        weight = self._weigh(value)
        with self._lock:
            _, before = self._held.pop(key, (None, 0))
            self._weight += weight - before
            self._held[key] = value, weight
            while len(self._held) > self.most or self._weight > self.room:
                _, (_, gone) = self._held.popitem(last=False)
                self._weight -= gone
        return value

    def make(self, key: object, make: Callable[[], T]) -> T:
        """What is kept, or what `make` gives."""
        found = self.find(key)
        return self.keep(key, make()) if found is None else found


@dataclass(frozen=True)
class ServedSystem:
    """A line of the grammar, read once, under a name: `first` searches, `second` reranks, if it does."""

    name: str
    first: System
    second: System | None = None

    @classmethod
    def parse(cls, text: str, *, device: str = "auto", trust_remote_code: bool = False) -> Self:
        """`LINE` or `NAME=LINE`; a line without a name has the name `default`. `InputError` for a wrong line."""
        named = NAME.fullmatch(text)
        name, line = named.groups() if named else ("default", text)
        return cls.split(name, System.parse(line, device=device, trust_remote_code=trust_remote_code))

    @classmethod
    def split(cls, name: str, system: System) -> Self:
        """A system in two parts; `InputError` where it does not begin with a search."""
        chain = list(_list_chain(system.stage))
        start = len(chain)
        while start and all(isinstance(part, Cut) or _reranks(part) for part in chain[start - 1].parts):
            start -= 1
        start = next((place for place in range(start, len(chain)) if _reranks(chain[place])), len(chain))
        if not start:
            raise InputError(f"the system {system.line!r} has no search: begin with one, as in `hybrid >> ...`")
        first, second = (reduce(rshift, part) if part else None for part in (chain[:start], chain[start:]))
        assert first is not None
        return cls(name, _name_part(first), _name_part(second) if second is not None else None)

    @property
    def line(self) -> str:
        """All of it, as people write it."""
        return " >> ".join(each.line for each in (self.first, self.second) if each is not None)

    def depth(self, k: int, reranked: bool) -> int:
        """How many documents the search has to find so that `k` can be given back."""
        depth = self.first.depth(k)
        return max(depth, self.second.depth(k)) if reranked and self.second is not None else depth


def _name_part(stage: Stage) -> System:
    return System(str(stage).replace(" >> % ", " % "), stage)  # as the grammar writes a cut


def _list_chain(stage: Stage) -> Iterator[Stage]:
    if isinstance(stage, Then):
        yield from _list_chain(stage.first)
        yield from _list_chain(stage.second)
    else:
        yield stage


def _reranks(stage: Stage) -> bool:
    return isinstance(stage, Unbound) and stage.method is not None


@dataclass(frozen=True)
class Search:
    """How queries are searched for; those that are searched for alike are so together."""

    index: str
    system: ServedSystem
    where: tuple[tuple[str, tuple[Any, ...]], ...]
    depth: int
    exact: bool
    explain: bool
    rerank: bool

    @property
    def key(self) -> tuple[object, ...]:
        """What the first ranking follows from; filters as they are written, as True and 1 are equal."""
        return self.index, self.system.first.line, repr(self.where), self.depth, self.exact

    def name_query(self, query: Item, like: str) -> str:
        """An id by content: equal questions have equal ones, and so are searched for once."""
        hashing = blake2b(repr((self.key, query.content_hash(), like)).encode(), digest_size=12)
        return f"q{hashing.hexdigest()}"


@dataclass
class ServedIndex:
    """An open index under a name, and the searches that are bound to it."""

    name: str
    index: Index
    encoders: Mapping[str, Encoder]
    _bound: Kept[Stage] = field(default_factory=lambda: Kept(RETRIEVERS))
    _examples: Kept[list[dict[str, str]]] = field(default_factory=lambda: Kept(1))

    @classmethod
    def load(cls, name: str, index: Index) -> Self:
        """With its encoders loaded; `InputError` for an unfinished index, or one without them."""
        index.require_complete()
        return cls(name, index, {space.spec.name: index.encoders.get(space) for space in index.card.spaces})

    def find(self, id: str) -> Item:
        """A stored document; `Unknown` if there is none of that id."""
        try:
            (item,) = self.index.get([id])
        except InputError:
            raise Unknown(f"there is no document {id!r} in {self.name}") from None
        return item

    def bind(self, search: Search) -> Stage:
        """The search as a stage."""
        where: Where = {key: list(values) for key, values in search.where}
        site = OpenSite(self.index, None, where or None, search.exact, "keep")
        return self._bound.make(search.key, lambda: search.system.first.bind(site, search.depth))

    @property
    def examples(self) -> list[dict[str, str]]:
        """Queries to try, found once for each edition."""
        view = self.index.view()
        return self._examples.make(view.fingerprint, lambda: find_examples(view))

    @property
    def reads(self) -> list[str]:
        """What a query may hold."""
        held = {each for space in self.index.card.spaces for each in space.spec.modalities}
        return sorted(held | ({"text"} if self.index.card.lexical else set()), reverse=True)

    @property
    def modalities(self) -> dict[str, int]:
        """Documents by what they hold, as far as the spaces say."""
        counts: dict[str, int] = {}
        for space in self.index.card.spaces:
            for modality, number in space.counts.items():
                counts[modality] = max(number, counts.get(modality, 0))
        return counts


def name_indexes(paths: Sequence[str]) -> dict[str, str]:
    """Indexes by the last part of where they are, `NAME=PATH` by a name of their own; `InputError` on equal names."""
    named: dict[str, str] = {}
    for path in paths:
        found = NAME.fullmatch(path) if not Path(path).exists() else None
        name, where = found.groups() if found else (Path(path.rstrip("/")).name.removesuffix(".index"), path)
        if name in named:
            raise InputError(f"two indexes have the name {name}: give one another, as NAME={where}")
        named[name] = where
    return named
