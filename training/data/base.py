"""What a source of pairs is: drafts of queries for documents, and the mix of their languages."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import accumulate
from types import MappingProxyType
from typing import Any, ClassVar, Protocol

from ...errors import InputError
from ...items import Item, hash_json, hash_text
from ...multilingual.judges.journal import Journal
from ...multilingual.languages import parse_language
from ...pipeline import advance

SAME = "same"  # in a mix of languages: that of the document


@dataclass(frozen=True, slots=True)
class Draft:
    """A query that a source has for a document, before any check; `fault` says why there is none (`empty`, ...)."""

    text: str
    lang: str | None
    style: str
    fault: str = ""


@dataclass(frozen=True)
class LanguageMix:
    """In which languages queries are written: codes, or `same` as the document, with weights that sum to 1."""

    weights: tuple[tuple[str, float], ...] = ((SAME, 1.0),)

    @classmethod
    def parse(cls, text: str) -> LanguageMix:
        """`same`, `eng`, or weights as in `eng=0.5,same=0.5`; `InputError` for anything else."""
        weights: dict[str, float] = {}
        for part in text.split(","):
            name, equals, number = part.partition("=")
            code = SAME if name.strip() == SAME else parse_language(name)
            try:
                weight = float(number) if equals else 1.0
            except ValueError:
                weight = math.nan
            if not 0 < weight < math.inf:
                raise InputError(f"the weight of {name.strip()} in --langs {text!r} must be a number above 0")
            if code in weights:
                raise InputError(f"--langs {text!r} has {code} twice")
            weights[code] = weight
        total = math.fsum(weights.values())
        return cls(tuple((code, weight / total) for code, weight in weights.items()))

    def choose(self, document: Item, place: float) -> str | None:
        """The language at a place from 0 to 1 among the weights; None where it is that of a document without one."""
        ends = accumulate(weight for _, weight in self.weights)
        code = next(
            (code for (code, _), end in zip(self.weights, ends, strict=True) if place < end), self.weights[-1][0]
        )
        return document.lang if code == SAME else code

    def __str__(self) -> str:
        return ",".join(f"{code}={weight:g}" for code, weight in self.weights)


@dataclass(frozen=True)
class Making:
    """What a source is given beside the documents: the seed, the mix of languages, what is kept, and what it counts."""

    seed: int = 0
    mix: LanguageMix = field(default_factory=LanguageMix)
    journal: Journal | None = None
    count: Counter[str] = field(default_factory=Counter)
    usage: Counter[str] = field(default_factory=Counter)  # of what was kept in this session

    def draw(self, *what: object) -> float:
        """A number from 0 to 1, uniform over what it is drawn for, and the same whenever and wherever it is drawn."""
        return hash_text("\0".join(map(str, (self.seed, *what)))) / 2**64

    def keep(self, what: str, key: object, work: Callable[[], Any], usage: Counter[str]) -> Any:
        """What `work` makes, JSON-able, or what the journal has of it.

        `what` it is and the `key` say all that it depends on; `usage` is what the work adds to. Its seconds are counted
        as `WHAT_seconds`.
        """
        name = hash_json([what, key], 32)
        found = None if self.journal is None else self.journal.get(name)
        if found is None:
            before, started = Counter(usage), time.perf_counter()
            found = work()
            cost: dict[str, Any] = dict(usage - before)
            cost[f"{what}_seconds"] = round(time.perf_counter() - started, 3)
            self.usage.update(cost)
            if self.journal is not None:
                self.journal.put(name, found, cost)
        return found


class PairSource(Protocol):
    """Where pairs come from.

    `copies` says whether its queries are the documents' own words, which are not held against them then; `whole`
    whether a document is trained on as it is, and has not lost what became its query. `models` are those that take
    part, by name with their revisions; `usage` counts what they cost and only grows.
    """

    @property
    def name(self) -> str: ...

    @property
    def copies(self) -> bool: ...

    @property
    def whole(self) -> bool: ...

    @property
    def models(self) -> Mapping[str, str]: ...

    @property
    def usage(self) -> Counter[str]: ...

    def describe(self) -> dict[str, Any]:
        """All that decides what it makes, JSON-able: for the card."""
        ...

    def count(self, documents: int) -> int:
        """How many steps it reports to `pipeline.advance` for so many documents."""
        ...

    def make(
        self, read: Callable[[], Iterator[Item]], chosen: Container[str], making: Making
    ) -> Iterator[tuple[Item, list[Draft]]]:
        """Documents and the drafts for them, in the order of `read`, which reads all documents, as often as called.

        Of the documents those whose ids are `chosen` get drafts; a document is given as it is to be trained on, which
        may lack what became its query, under its own id. The same call makes the same drafts.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class MinedSource:
    """The base of sources that take a document's own words, by no model; a subclass has a `name`.

    It draws the pairs of each document from that alone in `take`, or writes `make` itself.
    """

    copies: bool = field(default=True, init=False)
    whole: bool = field(default=False, init=False)
    usage: Counter[str] = field(default_factory=Counter, init=False, compare=False)
    models: ClassVar[Mapping[str, str]] = MappingProxyType({})

    def describe(self) -> dict[str, Any]:
        return {}

    def count(self, documents: int) -> int:
        return documents

    def make(
        self, read: Callable[[], Iterator[Item]], chosen: Container[str], making: Making
    ) -> Iterator[tuple[Item, list[Draft]]]:
        for document in read():
            if document.id in chosen:
                yield self.take(document, making)
                advance()

    def take(self, document: Item, making: Making) -> tuple[Item, list[Draft]]:
        """A document as it is to be trained on, and its drafts."""
        raise NotImplementedError


def split_title(document: Item) -> tuple[str, str]:
    """A document's title, empty where it has none, and the rest of its text."""
    title, text = document.meta.get("title"), document.text or ""
    if isinstance(title, str) and title.strip() and f"{text}\n".startswith(f"{title}\n"):
        return title.strip(), text[len(title) + 1 :].strip()
    return "", text.strip()
